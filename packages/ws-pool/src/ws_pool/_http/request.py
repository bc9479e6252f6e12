"""What a request takes besides its URL, and how aiohttp calls it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, TypedDict

import aiohttp

from ws_pool._http.bodies import FileBody, Files, Form, is_replayable
from ws_pool._http.options import FRAMING, basic, client_timeout
from ws_pool.errors import UsageError

__all__ = ("RequestOptions", "aiohttp_arguments")


class RequestOptions(TypedDict, total=False):
    """
    What every request takes besides its URL, as keyword arguments.

    - ``params``: added to the URL's query.
    - ``headers``: added to the pool's headers.
    - ``json``: sent as JSON.
    - ``data``: sent as it is (bytes, text, an open file, an async iterator of bytes), or a mapping
      as a form.
    - ``files``: sent as a multipart form, with ``data`` as its plain fields: field names to bytes,
      text, a path, an open binary file, or a tuple (name, file, content type).
    - ``cookies``: sent with this request.
    - ``auth``: user and password for basic authentication, or aiohttp's `BasicAuth`.
    - ``timeout``: seconds for each attempt, in place of the pool's; None for no bound; or aiohttp's
      `ClientTimeout`.
    - ``retries``: in place of the pool's.
    - ``idempotent``: whether the request may be made again; by default its method decides.
    - ``raise_for_status``: in place of the pool's.
    - ``allow_redirects``: whether redirects are followed; True by default.
    """

    params: Mapping[str, str | int | float | list[str]] | None
    headers: Mapping[str, str] | None
    json: Any  # whatever the encoder takes
    data: Any  # whatever aiohttp takes
    files: Files | None
    cookies: Mapping[str, str] | None
    auth: tuple[str, ...] | aiohttp.BasicAuth | None
    timeout: float | aiohttp.ClientTimeout | None
    retries: int
    idempotent: bool
    raise_for_status: bool
    allow_redirects: bool


_PASSED_ON = frozenset({"params", "headers", "json", "data", "cookies", "allow_redirects"})
_OURS = frozenset({"files", "auth", "retries", "idempotent", "raise_for_status"})


def aiohttp_arguments(
    options: RequestOptions, connect_timeout: float | None
) -> dict[str, Any]:  # aiohttp's own
    """Translate a request's options into arguments of `aiohttp.ClientSession.request`."""
    arguments: dict[str, Any] = {}

    for name, value in options.items():
        if name in _PASSED_ON:
            arguments[name] = value
        elif name == "timeout":
            arguments[name] = client_timeout(options["timeout"], connect_timeout)
        elif name not in _OURS:
            raise UsageError(f"{name!r} is not an option of a request", option=name)

    arguments |= _body(options)

    if (headers := _headers(options, arguments.get("data"))) is not None:
        arguments["headers"] = headers

    return arguments


def _headers(options: RequestOptions, body: object) -> Mapping[str, str] | None:
    """Return the headers of a request, with those that its other options make."""
    headers = options.get("headers")

    if headers is not None and not isinstance(headers, Mapping):
        raise UsageError(f"headers must map names to values, not {type(headers).__name__}")

    # A length that is not the body's makes the server wait for the rest of it.
    if headers and is_replayable(body) and not FRAMING.isdisjoint(str(name).lower() for name in headers):
        raise UsageError("the body's length is known: leave content-length and transfer-encoding out")

    auth: object = options.get("auth")

    if auth is None:
        return headers

    if not isinstance(auth, tuple | list) or len(auth) not in {2, 3}:
        raise UsageError("auth must be a pair of user and password, or aiohttp's BasicAuth")

    return {**(headers or {}), "authorization": basic(*auth)}


def _body(options: RequestOptions) -> dict[str, object]:
    """Return the argument for a body that can be sent again."""
    data, files = options.get("data"), options.get("files")

    if files:
        if not isinstance(files, Mapping):
            raise UsageError(f"files must map names of fields to files, not {type(files).__name__}")

        if data is not None and not isinstance(data, Mapping):
            raise UsageError("with files, data must be a mapping of plain fields")

        return {"data": Form(data, files)}

    return {"data": FileBody(data)} if isinstance(data, io.BufferedIOBase | io.RawIOBase) else {}
