"""A limit for request bodies whose refusal has the envelope, as every other error."""

from __future__ import annotations

from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web.response import HTTPExceptionResponse

__all__ = ("DEFAULT_MAX_BODY_SIZE", "BodyLimitMiddleware")

DEFAULT_MAX_BODY_SIZE = 16 * 1024 * 1024

_TOO_LARGE = "Content Too Large"
_OURS = "ws_web.max_body_size"
_STARLETTES = "starlette.max_body_size"


class BodyLimitMiddleware:
    """Refuse bodies that are too large, announced by ``Content-Length`` or not, without reading them on."""

    def __init__(self, app: ASGIApp, *, max_bytes: int | None, is_own: bool = True) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._is_own = is_own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http pass unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        # An application that sets no limit of its own has that of the one it is mounted in.
        if self._is_own:
            scope[_OURS] = self._max_bytes
        else:
            scope.setdefault(_OURS, self._max_bytes)

        body = _Body(scope, receive, send)

        try:
            await self._app(scope, body.receive, body.send)
        except ExceptionGroup as group:
            if body.refused and len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # a middleware has read the body in a task group

            raise


class _Body:
    """The body of one request, which is counted while it is read."""

    __slots__ = ("_receive", "_scope", "_seen", "_send", "_size", "_taken_over", "refused")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        self._scope = scope
        self._receive = receive
        self._send = send
        self._size = int(announced) if announced.isdigit() else 0
        self._seen = 0
        self._taken_over = False
        self.refused = False

    async def receive(self) -> Message:
        """Return the next message; a body beyond the limit is refused instead."""
        # A mounted application, a router or a route may have set a limit of its own meanwhile.
        limit = self._scope.get(_STARLETTES, self._scope[_OURS])

        if limit is not None and self._size > limit:
            self._refuse()

        message = await self._receive()
        self._seen += len(message.get("body", b""))

        if limit is not None and self._seen > limit:
            self._refuse()

        return message

    async def send(self, message: Message) -> None:
        """Pass a reply on, but for those that say in other words that the body was too large."""
        if message["type"] == "http.response.start":
            status = message["status"]
            # FastAPI answers for the limits of routes and routers in plain text. And it says that a body
            # could not be parsed when a middleware has put our refusal into an exception group.
            self._taken_over = _is_plain(message) if status == 413 else self.refused and status == 400

            if self._taken_over:
                await HTTPExceptionResponse(413, _TOO_LARGE)(self._scope, self._receive, self._send)

        if not self._taken_over:
            await self._send(message)

    def _refuse(self) -> NoReturn:
        self.refused = True
        raise HTTPException(413, _TOO_LARGE)


def _is_plain(message: Message) -> bool:
    return any(n == b"content-type" and v.startswith(b"text/plain") for n, v in message.get("headers", ()))
