"""Secret headers go to the origin that they are meant for, and to no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from ws_core.redaction import is_secret_name

_is_secret = lru_cache(maxsize=1000)(is_secret_name)


class CredentialGuard:
    """
    A middleware of aiohttp that removes headers from requests to other origins.

    aiohttp does so for Authorization when it follows a redirect, but not for an API key, nor for the
    session's headers in a request to another host.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Mapping[str, URL]) -> None:
        self._names = names

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request without the headers that are meant for another origin."""
        origin = http_origin(request.url)

        for name, own in self._names.items():
            if origin != own:
                request.headers.popall(name, None)

        return await handler(request)


def http_origin(url: URL) -> URL:
    """Return the origin of a URL; that of a WebSocket is the one of its server's pages."""
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme)
    return url.origin() if scheme is None else url.origin().with_scheme(scheme)


def secret_names(headers: Iterable[str]) -> list[str]:
    """Return the names of headers that hold secrets, in small letters."""
    return [name.lower() for name in headers if _is_secret(name)]
