"""One look at each request and WebSocket, for the access log, metrics, traces and the ops page."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web._route_template import route_template

__all__ = ("CLIENT_LEFT", "Exchange", "Observation", "ObservationMiddleware")

CLIENT_LEFT = 499
"""The status, in log and metrics, of a request whose client went away before the reply began."""

_KINDS = ("http", "websocket")
_LEFT = ("http.disconnect", "websocket.disconnect")


class Exchange:
    """A request, or a WebSocket, from its first to its last byte."""

    __slots__ = ("began", "client_left", "ended", "error", "scope", "size", "status")

    def __init__(self, scope: Scope, began: float) -> None:
        self.scope = scope
        self.began = began
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


class Observation:
    """What is called when an exchange begins and ends, and the exchanges that are under way."""

    def __init__(self) -> None:
        self.begins: list[Callable[[Exchange], None]] = []
        self.ends: list[Callable[[Exchange], None]] = []
        self.in_flight: set[Exchange] = set()


class ObservationMiddleware:
    """
    Measure each request and WebSocket once, and pass it on when it begins and when it ends.

    An exchange ends with the last byte of its reply; background tasks that follow are not a part of it.
    What mounted applications of ours answer is observed once, by the outermost.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        observation: Observation,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._begins = observation.begins
        self._ends = observation.ends
        self._in_flight = observation.in_flight
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        if scope["type"] not in _KINDS or "ws_web.app" in scope:
            await self._app(scope, receive, send)
            return

        exchange = self._begin(scope)

        async def observed_receive() -> Message:
            message = await receive()

            # Servers report the end of the connection also after a complete reply.
            if message["type"] in _LEFT and not exchange.ended:
                exchange.client_left = True

            return message

        async def observed_send(message: Message) -> None:
            kind = message["type"]

            if kind == "http.response.start":
                exchange.status = CLIENT_LEFT if exchange.client_left else message["status"]
                await send(message)
            elif kind == "http.response.body":
                exchange.size += len(message.get("body", b""))
                await send(message)

                if not message.get("more_body", False):
                    self._end(exchange)
            else:
                _note_socket(exchange, message)
                await send(message)

        try:
            await self._app(scope, observed_receive, observed_send)
        except BaseException as error:
            exchange.error = error
            raise
        finally:
            if not exchange.ended:
                self._end(exchange)

    def _begin(self, scope: Scope) -> Exchange:
        exchange = Exchange(scope, self._clock())
        scope["ws_web.app"] = scope.get("app")
        self._in_flight.add(exchange)

        for begin in self._begins:
            begin(exchange)

        return exchange

    def _end(self, exchange: Exchange) -> None:
        if exchange.ended:  # an application sent a second last part
            return

        exchange.ended = self._clock()
        self._in_flight.discard(exchange)

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
