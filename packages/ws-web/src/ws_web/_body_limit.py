"""A limit for request bodies whose refusal has the envelope, as every other error."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web.response import HTTPExceptionResponse

__all__ = ("BodyLimitMiddleware",)

TOO_LARGE = "Content Too Large"


class BodyLimitMiddleware:
    """
    Refuse bodies that are too large, announced by ``Content-Length`` or not.

    An announced one is refused before any of it is read; of another one, no more than the limit
    is handed to the application.

    Args:
        app: The application inside.
        max_bytes: The largest body in bytes.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http pass unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        if any(name == b"content-length" and self._exceeds(value) for name, value in scope["headers"]):
            await HTTPExceptionResponse(413, TOO_LARGE)(scope, receive, send)
            return

        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))

            if seen > self._max_bytes:
                raise HTTPException(413, TOO_LARGE)

            return message

        await self._app(scope, receive_limited, send)

    def _exceeds(self, announced: bytes) -> bool:
        return announced.isdigit() and int(announced) > self._max_bytes
