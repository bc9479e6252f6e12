"""Refuse WebSockets that pages of other sites open with the cookies of our users."""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette import status
from starlette.types import Receive, Scope, Send

from ws_web.response import HTTPExceptionResponse

DENIAL = "websocket.http.response"
"""ASGI's extension for answering a handshake."""

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_MOST_REMEMBERED = 1000

logger = logging.getLogger("ws_web")


def is_allowed(origin: str, host: str, allowed: Collection[str]) -> bool:
    """
    Return whether a page of this origin may open a WebSocket to this host.

    Example:
        >>> is_allowed("https://shop.example", "shop.example", ())
        True
        >>> is_allowed("https://evil.example", "shop.example", ())
        False
    """
    if "*" in allowed or origin.rstrip("/") in allowed:
        return True

    try:
        page = urlsplit(origin)
        served = urlsplit(f"//{host}")
        # Behind a proxy that ends TLS our scheme is not the page's: a port counts only where it is written.
        port = page.port or _PORTS.get(page.scheme)
        return bool(page.hostname) and page.hostname == served.hostname and (served.port or port) == port
    except ValueError:
        return False


class Origins:
    """The hosts whose pages may open WebSockets: our own, and those that are allowed."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/") for origin in allowed)
        self._refused: set[str] = set()

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Return whether a WebSocket may go on to its route; if not, it is refused."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin, host = headers.get(b"origin"), headers.get(b"host", "")

        # Programs that are not browsers send none, and carry no cookies of others.
        if origin is None or is_allowed(origin, host, self._allowed):
            return True

        if origin not in self._refused and len(self._refused) < _MOST_REMEMBERED:
            self._refused.add(origin)
            remedy = "name the origin in ALLOWED_ORIGINS if it is yours (logged once per origin)"
            logger.warning("a WebSocket from a page of %r to %r is refused: %s", origin, host, remedy)

        if DENIAL in scope.get("extensions", ()):
            await HTTPExceptionResponse(403, "Origin not allowed")(scope, receive, send)
        else:
            await send(
                {
                    "type": "websocket.close",
                    "code": status.WS_1008_POLICY_VIOLATION,
                    "reason": "origin not allowed",
                }
            )

        return False
