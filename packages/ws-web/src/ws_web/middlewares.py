"""Pure ASGI middlewares: the request id; the error boundary stands in a module of its own.

Pure ASGI means: no ``BaseHTTPMiddleware``, so context variables, streaming, background tasks and
WebSockets pass through untouched.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web._negotiation import ID_KEY, current_scope, get_request_id

__all__ = ("RequestIDMiddleware", "get_request_id")

REQUEST_ID_HEADER = "x-request-id"
TIMESTAMP_HEADER = "x-timestamp"

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_RAW_ID_HEADER = REQUEST_ID_HEADER.encode()
_RAW_TIMESTAMP_HEADER = TIMESTAMP_HEADER.encode()
_OUR_HEADERS = frozenset({_RAW_ID_HEADER, _RAW_TIMESTAMP_HEADER})


def _new_id() -> str:
    return os.urandom(16).hex()  # as random as a UUID of version 4, and twice as fast


class RequestIDMiddleware:
    """
    Give every request and WebSocket an id, for the client and for the code inside.

    An ``x-request-id`` of the client is kept when it is one header of 1 to 128 characters out of
    ``A-Z a-z 0-9 . _ -``; anything else (several headers, other characters) gets a new id, so
    that no client can write into logs. The reply carries exactly one ``x-request-id`` and an
    ``x-timestamp``, whole seconds of Unix time when the reply began.

    Args:
        app: The application inside.
        clock: Returns Unix time in seconds.
        new_id: Returns a new unique id.

    Example:
        ```python
        from starlette.responses import PlainTextResponse

        from ws_web import RequestIDMiddleware, get_request_id
        from ws_web.testing import AppClient


        async def app(scope, receive, send):
            await PlainTextResponse(get_request_id())(scope, receive, send)


        client = AppClient(RequestIDMiddleware(app))
        reply = await client.get("/", headers={"x-request-id": "order-7"})
        assert reply.text == reply.headers["x-request-id"] == "order-7"
        ```
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._app = app
        self._clock = clock
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        # A mounted application shares the id of the one around it, which writes the headers.
        if scope["type"] not in ("http", "websocket") or ID_KEY in scope:
            await self._app(scope, receive, send)
            return

        request_id = self._accept(scope) or self._new_id()
        scope[ID_KEY] = request_id
        clock = self._clock

        async def send_with_id(message: Message) -> None:
            if message["type"] in _HEADER_MESSAGES:
                own = (_RAW_ID_HEADER, request_id.encode("ascii")), (_RAW_TIMESTAMP_HEADER, b"%d" % clock())
                headers = message.get("headers", ())

                # Header names of ASGI messages are in lower case; some applications forget it.
                if not _OUR_HEADERS.isdisjoint([name.lower() for name, _ in headers]):
                    headers = [pair for pair in headers if pair[0].lower() not in _OUR_HEADERS]

                message["headers"] = [*headers, *own]

            await send(message)

        token = current_scope.set(scope)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            current_scope.reset(token)

    @staticmethod
    def get_request_id() -> str:
        """Return the id of the request that is being answered; the same as `get_request_id`."""
        return get_request_id()

    @staticmethod
    def _accept(scope: Scope) -> str | None:
        """Return the client's id if it sent exactly one and it is harmless."""
        sent = [pair[1] for pair in scope.get("headers", ()) if pair[0] == _RAW_ID_HEADER]

        if len(sent) == 1 and _ACCEPTED_ID.fullmatch(sent[0]):
            accepted: bytes = sent[0]
            return accepted.decode("ascii")

        return None


_HEADER_MESSAGES = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
