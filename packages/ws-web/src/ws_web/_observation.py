"""The outermost layer: each request and WebSocket gets its id, and is measured for log, metrics and ops."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web._negotiation import ID_KEY, current_scope
from ws_web._route_template import route_template
from ws_web.middlewares import ReplyHeaders, accepted_id, new_id

CLIENT_LEFT = 499
"""The status, in log and metrics, of a request whose client went away before the reply began."""

_KINDS = ("http", "websocket")
_SOCKET_STARTS = ("websocket.accept", "websocket.http.response.start")
_LEFT = ("http.disconnect", "websocket.disconnect")


class Exchange:
    """A request, or a WebSocket, from its first to its last byte."""

    __slots__ = (
        "_layer", "_receive", "_send", "began", "client_left", "ended", "error", "scope", "size", "status",
    )  # fmt: skip

    def __init__(self, layer: ObservationMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._receive = receive
        self._send = send
        self.scope = scope
        self.began = layer.clock()
        self.ended = 0.0
        self.size = 0
        self.status = 0
        self.client_left = False
        self.error: BaseException | None = None

    @property
    def method(self) -> str:
        """The method, or WEBSOCKET."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method

    @property
    def route(self) -> str | None:
        """The template of the route, or None when no route fits."""
        return route_template(self.scope)

    @property
    def is_quiet(self) -> bool:
        """Whether it is about the service itself, such as a probe: not for the log."""
        return "ws_web.quiet" in self.scope

    async def receive(self) -> Message:
        """Pass a message of the client on."""
        message = await self._receive()

        # Servers report the end of the connection also after a complete reply.
        if message["type"] in _LEFT and not self.ended:
            self.client_left = True

        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on; a reply's start with the headers that every reply has."""
        # A coroutine of its own only where something follows: each costs every request.
        kind = message["type"]

        if kind == "http.response.body":
            self.size += len(message.get("body", b""))
            return self._send(message) if message.get("more_body", False) else self._send_last(message)

        if kind == "http.response.start":
            self.status = CLIENT_LEFT if self.client_left or self._is_unread() else message["status"]
            self._layer.headers.add_to(message, self.scope[ID_KEY])
        else:
            _note_socket(self, message)

            if kind in _SOCKET_STARTS:
                self._layer.headers.add_to(message, self.scope[ID_KEY])

        return self._send(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        self._layer.end(self)

    def _is_unread(self) -> bool:
        """Return whether the client has left, although the application has not asked: uvicorn notes it."""
        return getattr(getattr(self._receive, "__self__", None), "disconnected", False)


class Observation:
    """What is called when an exchange begins and ends."""

    def __init__(self) -> None:
        self.begins: list[Callable[[Exchange], None]] = []
        self.ends: list[Callable[[Exchange], None]] = []

    def track(self) -> set[Exchange]:
        """Return a set that always holds the exchanges under way."""
        in_flight: set[Exchange] = set()
        self.begins.append(in_flight.add)
        self.ends.append(in_flight.discard)
        return in_flight


class ObservationMiddleware:
    """
    Give each request and WebSocket its id, measure it once, and pass it on when it begins and when it ends.

    An exchange ends with the last byte of its reply; background tasks that follow are not a part of it.
    What mounted applications of ours answer is observed once, by the outermost. Id and measures are one
    layer, since each layer costs every request; a `RequestIDMiddleware` around it chooses the id.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        observation: Observation,
        headers: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._begins = observation.begins
        self._ends = observation.ends
        self.headers = ReplyHeaders(defaults=headers)
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        if scope["type"] not in _KINDS or "ws_web.app" in scope:
            await self._app(scope, receive, send)
            return

        if ID_KEY not in scope:
            scope[ID_KEY] = accepted_id(scope) or new_id()

        scope["ws_web.app"] = scope.get("app")
        exchange = Exchange(self, scope, receive, send)
        token = current_scope.set(scope)

        try:
            for begin in self._begins:
                begin(exchange)

            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.error = error
            raise
        finally:
            if not exchange.ended:
                self.end(exchange)

            current_scope.reset(token)

    def end(self, exchange: Exchange) -> None:
        """Report an exchange to all who want to know."""
        if exchange.ended:  # an application sent a second last part
            return

        exchange.ended = self.clock()

        if not exchange.status:
            exchange.status = CLIENT_LEFT if exchange.client_left else 500

        if exchange.scope.get("method") == "HEAD":
            exchange.size = 0

        for end in self._ends:
            end(exchange)


def _note_socket(exchange: Exchange, message: Message) -> None:
    """Take note of a message of a WebSocket, or of the answer to its handshake."""
    kind = message["type"]

    if kind == "websocket.accept":
        exchange.status = 101
    elif kind == "websocket.send":
        text = message.get("text")
        exchange.size += len(
            (message.get("bytes") or b"") if not text else text if text.isascii() else text.encode()
        )
    elif kind == "websocket.close" and not exchange.status:
        exchange.status = 403  # what a server answers to a handshake that is refused so
    elif kind == "websocket.http.response.start":
        exchange.status = message["status"]
    elif kind == "websocket.http.response.body":
        exchange.size += len(message.get("body", b""))
