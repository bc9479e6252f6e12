"""The error boundary: whatever fails inside becomes one reply in the envelope and one line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import isawaitable

from starlette import status
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response as StarletteResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ws_web._body_limit import TOO_LARGE, Body, BodyLimit
from ws_web._negotiation import ID_KEY, has_content_type
from ws_web._origin import DENIAL, Origins
from ws_web._ws_messages import BadMessage, bad_message, escape
from ws_web.response import HTTPExceptionResponse, Response, phrase

_ERRORS = 400  # the least status of an error
_BAD_REQUEST = 400
_TOO_LARGE = 413

_UNANSWERED = "ASGI callable returned without completing handshake."  # uvicorn's words

logger: logging.Logger = logging.getLogger("ws_web")

_handshake_is_answered: ContextVar[bool] = ContextVar("ws_web_handshake_is_answered", default=False)


class ErrorBoundaryMiddleware:
    """
    Turn an exception that nobody handled into a reply, log it once, and pass it on.

    It sits inside the request id and CORS, so that the reply has their headers, which
    Starlette's outermost handler cannot give. As in Starlette the exception then goes on to the server
    and to test clients; it is marked, so that the server does not log it a second time. An
    `HTTPException` of a middleware is a reply like any other: not logged, and it ends here.

    A reply that had begun is broken off, so that the client notices; that is logged too. A request that
    the server cancels because it stops is answered with 503. Errors that Starlette writes as
    plain text, such as those of a mounted application, get the envelope. A WebSocket is closed with 1011; a
    handshake that is refused or fails is answered with the reply.

    Two more things are done here, since each further layer costs every request: bodies are limited, and
    WebSockets of foreign pages are refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        handler: Callable[[HTTPConnection, Exception], StarletteResponse | Awaitable[StarletteResponse]],
        is_draining: Callable[[], bool] = lambda: False,
        limit: BodyLimit | None = None,
        origins: Origins | None = None,
    ) -> None:
        self._app = app
        self._handler = handler
        self._is_draining = is_draining
        self._limit = BodyLimit(None) if limit is None else limit
        self._origins = origins
        self._bad_messages = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        # No coroutine of its own: each costs every request.
        if scope["type"] == "http":
            return self._serve_http(scope, receive, send)

        if scope["type"] == "websocket":
            return self._serve_websocket(scope, receive, send)

        return self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._limit.apply(scope)
        reply = _Reply(scope, receive, send)

        try:
            await self._app(scope, reply.receive, reply.send)
        except asyncio.CancelledError as cut:
            # Servers cancel what is not done when their time to stop is over. Whatever else cancels a
            # request, such as a middleware with a timeout, answers it by itself.
            if not reply.begun and (self._is_draining() or "shutdown" in str(cut)):
                logger.warning("%s %r was cut: the server stops", scope["method"], scope["path"])
                cut_off = HTTPExceptionResponse(503, headers={"Retry-After": "1"})
                await cut_off(scope, receive, send)

            raise
        except Exception as error:
            if reply.refused and isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]

            if reply.begun:
                # Half a reply is out: the server must break the connection off. The handler is called, since
                # it may report errors; its reply cannot be sent.
                log_failure(scope, error, " after the reply had begun")
                await self._reply(Request(scope, receive), error)
                raise

            is_reply = isinstance(error, HTTPException)

            if not is_reply:
                log_failure(scope, error)

            answer = await self._reply(Request(scope, receive), error)
            await answer(scope, receive, send)

            if not is_reply:
                raise

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        _handshake_is_answered.set(True)

        if self._origins is not None and not await self._origins.admit(scope, receive, send):
            return

        handshake = _Handshake(scope, receive, send)

        try:
            await self._app(scope, receive, handshake.send)
        except WebSocketDisconnect as left:
            _mark(left)  # the handler met a peer that has left: nothing failed, and there is nobody to close
            raise
        except Exception as error:
            if (bad := bad_message(error)) is not None and handshake.state is WebSocketState.CONNECTED:
                await self._refuse_message(scope, bad, send)
                return

            is_reply = isinstance(error, HTTPException)

            if not is_reply:
                log_failure(scope, error)

            try:
                await self._answer_socket(handshake, error)
            except asyncio.CancelledError:
                # The failure came first: it is what servers and test clients are told.
                if is_reply:
                    raise

            if not is_reply:
                raise
        else:
            await self._answer_silence(handshake)
            _handshake_is_answered.set(handshake.state is not WebSocketState.CONNECTING)

    async def _answer_silence(self, handshake: _Handshake) -> None:
        """Answer a handshake whose handler has returned without a word, which is a mistake of it."""
        if not handshake.can_be_answered:
            return

        scope = handshake.scope
        message = "WEBSOCKET %r returned without accepting the handshake, and without closing it"
        logger.error(message, scope["path"], extra=_where(scope))

        with contextlib.suppress(RuntimeError, OSError):
            await HTTPExceptionResponse(500)(scope, handshake.receive, handshake.send)

    async def _answer_socket(self, handshake: _Handshake, error: Exception) -> None:
        """Answer the handshake of a handler that failed, or close its conversation."""
        scope, send = handshake.scope, handshake.to_server

        if handshake.can_be_answered:
            reply = await self._reply(HTTPConnection(scope), error)
            await reply(scope, handshake.receive, send)
        elif handshake.state is not WebSocketState.DISCONNECTED:
            await _close_quietly(send, status.WS_1011_INTERNAL_ERROR)

    async def _refuse_message(self, scope: Scope, bad: BadMessage, send: Send) -> None:
        """End a conversation whose peer sent what its handler does not read; its mistake, in one line."""
        self._bad_messages += 1
        logger.warning(
            "WEBSOCKET %r was sent %s: closed with %d (%d bad messages so far)",
            scope["path"],
            bad.what,
            bad.code,
            self._bad_messages,
            extra={"request_id": scope.get(ID_KEY, "")},
        )
        await _close_quietly(send, bad.code, bad.what)

    async def _reply(self, connection: HTTPConnection, error: Exception) -> StarletteResponse:
        reply = self._handler(connection, error)
        return await reply if isawaitable(reply) else reply


class _Reply(Body):
    """The body of a request, and its reply: errors that are written as plain text get the envelope."""

    __slots__ = ("_held", "_is_over", "_send", "begun")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive)
        self._send = send
        self._held: Message | None = None
        self._is_over = False
        self.begun = False

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; the start of an error in plain text waits for the text, which decides."""
        # A coroutine of its own only for errors: each costs every request.
        if message["type"] == "http.response.start":
            self.begun = True

            if message["status"] < _ERRORS:
                return self._send(message)
        elif not self._is_over and self._held is None:
            return self._send(message)

        return self._send_error(message)

    async def _send_error(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if await self._takes_over(message):
                return
        elif self._is_over:
            return
        elif self._held is not None:
            start, self._held = self._held, None

            if _is_phrase(message, start["status"]):
                await self._answer(_rewritten(start))
                return

            await self._send(start)

        await self._send(message)

    async def _takes_over(self, start: Message) -> bool:
        """Return whether an error is not, or not yet, sent as it is."""
        is_plain = has_content_type(start, b"text/plain")

        # FastAPI says that a body could not be parsed when a middleware has put our refusal into an
        # exception group.
        if self.refused and start["status"] == _BAD_REQUEST:
            await self._answer(HTTPExceptionResponse(_TOO_LARGE, TOO_LARGE))
            return True

        if is_plain:
            self._held = start

        return is_plain

    async def _answer(self, reply: StarletteResponse) -> None:
        self._is_over = True
        await reply(self._scope, self.receive, self._send)


class _Handshake:
    """The messages of an application to a WebSocket; refusals become replies as HTTP has them."""

    __slots__ = ("_is_over", "receive", "scope", "state", "to_server")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.to_server = send
        self._is_over = False
        self.state = WebSocketState.CONNECTING

    @property
    def can_be_answered(self) -> bool:
        """Whether the peer still waits for the reply to its handshake, and the server can send one."""
        return self.state is WebSocketState.CONNECTING and DENIAL in self.scope.get("extensions", ())

    async def send(self, message: Message) -> None:
        """Pass a message on; after an end that we have sent, nothing."""
        kind = message["type"]

        if kind == "websocket.send" and not self._is_over:
            try:
                await self.to_server(message)
            except UnicodeEncodeError:
                await self.to_server({**message, "text": escape(message["text"])})

            return

        if self._is_over:
            return

        if kind == "websocket.close" and self.can_be_answered:
            await self._refuse(message)
            return

        if kind == f"{DENIAL}.start" and self.state is WebSocketState.CONNECTED:
            # A handler answers what was raised, but the conversation has begun: it ends.
            is_ours = message["status"] >= 500
            code = status.WS_1011_INTERNAL_ERROR if is_ours else status.WS_1008_POLICY_VIOLATION
            self._is_over = True
            message = {"type": "websocket.close", "code": code, "reason": phrase(message["status"])}

        if kind == "websocket.accept":
            self.state = WebSocketState.CONNECTED
        elif kind in ("websocket.close", f"{DENIAL}.start"):
            self.state = WebSocketState.DISCONNECTED

        await self.to_server(message)

    async def _refuse(self, message: Message) -> None:
        """Answer a handshake that the application closes before it accepts: 404 without a route, or 403."""
        self._is_over = True
        self.state = WebSocketState.DISCONNECTED
        code = 404 if isinstance(self.scope.get("endpoint"), Starlette | None) else 403
        extra = {"close_code": message.get("code", status.WS_1000_NORMAL_CLOSURE)}
        reply = Response(None, code, code, extra, msg=message.get("reason") or None)
        await reply(self.scope, self.receive, self.to_server)


def _is_phrase(message: Message, code: int) -> bool:
    """Return whether a whole body is nothing but the phrase of a status, as Starlette writes errors."""
    body = message.get("body", b"")
    return not message.get("more_body", False) and bytes(body) == _phrase(code).encode()


def _phrase(code: int) -> str:
    # Starlette has the newer phrase for this one, whatever Python has.
    return TOO_LARGE if code == _TOO_LARGE else phrase(code)


def _rewritten(start: Message) -> Response:
    """Return an error in the envelope with the headers of one in plain text."""
    own = (b"content-length", b"content-type")
    reply = HTTPExceptionResponse(start["status"], _phrase(start["status"]))
    reply.raw_headers += [pair for pair in start["headers"] if pair[0] not in own]
    return reply


async def _close_quietly(send: Send, code: int, reason: str = "") -> None:
    """Close a WebSocket whose handler failed; the peer may be gone already."""
    try:
        await send({"type": "websocket.close", "code": code, "reason": reason})
    except (RuntimeError, OSError):
        logger.debug("the WebSocket was closed by the peer before its handler failed")


def log_failure(scope: Scope, error: Exception, when: str = "") -> None:
    """Log a failed handler with its route and request id, once; `repr` keeps control characters out."""
    if is_logged(error):
        return

    method, kind = scope.get("method", "WEBSOCKET"), type(error).__name__
    logger.error("%s %r failed%s: %s", method, scope["path"], when, kind, exc_info=error, extra=_where(scope))
    _mark(error)


def _where(scope: Scope) -> dict[str, str | None]:
    """Return which request a line in the log is about."""
    return {"request_id": scope.get(ID_KEY, ""), "route": getattr(scope.get("route"), "path", None)}


def _mark(error: Exception) -> None:
    """Let servers' logs and test clients know that everything is said about this exception."""
    error.__ws_web_logged__ = True  # type: ignore[attr-defined]  # every exception has a dict


def is_logged(error: BaseException | None) -> bool:
    """Return whether the boundary has logged this exception."""
    return getattr(error, "__ws_web_logged__", False)


def is_news(record: logging.LogRecord) -> bool:
    """
    Drop a server's lines about exceptions that the boundary has logged, and handshakes that it has answered.

    A filter for the server's logger. uvicorn takes an answer to a handshake for none.
    """
    if record.msg == _UNANSWERED:
        return not _handshake_is_answered.get()

    return not (record.exc_info and is_logged(record.exc_info[1]))
