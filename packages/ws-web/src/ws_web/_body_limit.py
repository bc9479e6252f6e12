"""A limit for request bodies, which are counted while they are read."""

from __future__ import annotations

from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

DEFAULT_MAX_BODY_SIZE = 16 * 1024 * 1024  # bytes

TOO_LARGE = "Content Too Large"
_OURS = "ws_web.max_body_size"  # of the scope
_STARLETTES = "starlette.max_body_size"  # which FastAPI's routers and routes set


class BodyLimit:
    """The limit of an application; routers, routes and mounted applications may set their own."""

    __slots__ = ("_is_own", "_max_bytes")

    def __init__(self, max_bytes: int | None, *, is_own: bool = True) -> None:
        self._max_bytes = max_bytes
        self._is_own = is_own

    def apply(self, scope: Scope) -> None:
        """Limit the body of a request that begins."""
        # An application that sets no limit of its own has that of the one it is mounted in.
        if self._is_own or _OURS not in scope:
            scope[_OURS] = self._max_bytes


class Body:
    """
    The body of one request, refused when it is too large, announced by ``Content-Length`` or not.

    It is not read on then. Most requests have none, so that all is done when it is asked for.
    """

    __slots__ = ("_announced", "_receive", "_scope", "_seen", "refused")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._seen = 0
        self._announced: int | None = None
        self.refused: bool = False

    async def receive(self) -> Message:
        """Return the next message; a body beyond the limit is refused instead."""
        # A mounted application, a router or a route may have set a limit of its own meanwhile.
        limit = self._scope.get(_STARLETTES, self._scope[_OURS])

        if self._announced is None:
            headers = self._scope.get("headers", ())
            sent = next((value for name, value in headers if name == b"content-length"), b"")
            self._announced = int(sent) if sent.isdigit() else 0

        if limit is not None and self._announced > limit:
            self._refuse()

        message = await self._receive()
        self._seen += len(message.get("body", b""))

        if limit is not None and self._seen > limit:
            self._refuse()

        return message

    def _refuse(self) -> NoReturn:
        self.refused = True
        raise HTTPException(413, TOO_LARGE)
