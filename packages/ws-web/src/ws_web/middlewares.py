"""Pure ASGI middlewares: the request id and the error boundary.

Pure ASGI means: no ``BaseHTTPMiddleware``, so context variables, streaming, background tasks and
WebSockets pass through untouched.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocketDisconnect, WebSocketState

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("ErrorBoundaryMiddleware", "RequestIDMiddleware", "get_request_id")

REQUEST_ID_HEADER = "x-request-id"
TIMESTAMP_HEADER = "x-timestamp"

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_RAW_ID_HEADER = REQUEST_ID_HEADER.encode()
_RAW_TIMESTAMP_HEADER = TIMESTAMP_HEADER.encode()
_OUR_HEADERS = frozenset({_RAW_ID_HEADER, _RAW_TIMESTAMP_HEADER})

_DENIAL = "websocket.http.response"  # ASGI's extension for answering a handshake

_request_id: ContextVar[str] = ContextVar("ws_web_request_id", default="")

logger: logging.Logger = logging.getLogger("ws_web")


def get_request_id() -> str:
    """
    Return the id of the request that is being answered, or ``""`` outside of one.

    Example:
        >>> get_request_id()
        ''
    """
    return _request_id.get()


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
        if scope["type"] not in ("http", "websocket") or "ws_web.request_id" in scope:
            await self._app(scope, receive, send)
            return

        request_id = self._accept(scope) or self._new_id()
        scope["ws_web.request_id"] = request_id
        clock = self._clock

        async def send_with_id(message: Message) -> None:
            if message["type"] in _HEADER_MESSAGES:
                # Header names of ASGI messages are in lower case; some applications forget it.
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _OUR_HEADERS]
                headers.append((_RAW_ID_HEADER, request_id.encode("ascii")))
                headers.append((_RAW_TIMESTAMP_HEADER, b"%d" % clock()))
                message["headers"] = headers

            await send(message)

        token = _request_id.set(request_id)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _request_id.reset(token)

    @staticmethod
    def get_request_id() -> str:
        """Return the id of the request that is being answered; the same as `get_request_id`."""
        return _request_id.get()

    @staticmethod
    def _accept(scope: Scope) -> str | None:
        """Return the client's id if it sent exactly one and it is harmless."""
        sent = [value for name, value in scope["headers"] if name == _RAW_ID_HEADER]

        if len(sent) == 1 and _ACCEPTED_ID.fullmatch(sent[0]):
            accepted: bytes = sent[0]
            return accepted.decode("ascii")

        return None


_HEADER_MESSAGES = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class ErrorBoundaryMiddleware:
    """
    Turn an exception that nobody handled into a reply, log it once, and pass it on.

    It sits inside the request id and CORS, so that the reply has their headers, which
    Starlette's outermost handler cannot give. As in Starlette the exception then goes on to the server
    and to test clients; it is marked, so that the server does not log it a second time. An
    `HTTPException` of a middleware is a reply like any other: not logged, and it ends here.

    A reply that had begun is broken off, so that the client notices; that is logged too. A WebSocket
    is closed with 1011, a handshake is answered with the reply.

    Args:
        app: The application inside.
        handler: Builds the reply from the connection and the exception, directly or awaited.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        handler: Callable[[HTTPConnection, Exception], Response | Awaitable[Response]],
    ) -> None:
        self._app = app
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if begun:
                # Half a reply is out: the server must break the connection off.
                log_failure(scope, error, " after the reply had begun")
                raise

            is_reply = isinstance(error, HTTPException)

            if not is_reply:
                log_failure(scope, error)

            reply = await self._reply(Request(scope, receive), error)
            await reply(scope, receive, send)

            if not is_reply:
                raise

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = WebSocketState.CONNECTING

        async def watch(message: Message) -> None:
            nonlocal state

            if message["type"] == "websocket.accept":
                state = WebSocketState.CONNECTED
            elif message["type"] in ("websocket.close", "websocket.http.response.start"):
                state = WebSocketState.DISCONNECTED

            await send(message)

        try:
            await self._app(scope, receive, watch)
        except WebSocketDisconnect as left:
            _mark(left)  # the handler met a peer that has left: nothing failed, and there is nobody to close
            raise
        except Exception as error:
            log_failure(scope, error)

            if state is WebSocketState.CONNECTING and _DENIAL in scope.get("extensions", ()):
                reply = await self._reply(HTTPConnection(scope), error)
                await reply(scope, receive, send)
            elif state is not WebSocketState.DISCONNECTED:
                await _close_quietly(send)

            raise

    async def _reply(self, connection: HTTPConnection, error: Exception) -> Response:
        reply = self._handler(connection, error)
        return await reply if isawaitable(reply) else reply


async def _close_quietly(send: Send) -> None:
    """Close a WebSocket whose handler failed; the peer may be gone already."""
    try:
        await send({"type": "websocket.close", "code": 1011, "reason": ""})
    except (RuntimeError, OSError):
        logger.debug("the WebSocket was closed by the peer before its handler failed")


def log_failure(scope: Scope, error: Exception, when: str = "") -> None:
    """Log a failed handler with its route and request id, once; `repr` keeps control characters out."""
    if is_logged(error):
        return

    route = getattr(scope.get("route"), "path", None)
    logger.error(
        "%s %r failed%s: %s",
        scope.get("method", "WEBSOCKET"),
        scope["path"],
        when,
        type(error).__name__,
        exc_info=error,
        extra={"request_id": scope.get("ws_web.request_id", ""), "route": route},
    )
    _mark(error)


def _mark(error: Exception) -> None:
    """Let servers' logs and test clients know that everything is said about this exception."""
    error.__ws_web_logged__ = True  # type: ignore[attr-defined]  # every exception has a dict


def is_logged(error: BaseException | None) -> bool:
    """Return whether the boundary has logged this exception."""
    return getattr(error, "__ws_web_logged__", False)


def is_news(record: logging.LogRecord) -> bool:
    """Drop a server's line about an exception that the boundary has logged; a filter for its logger."""
    return not (record.exc_info and is_logged(record.exc_info[1]))
