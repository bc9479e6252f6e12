"""uvicorn's server, with a drain that fails no request and with timeouts for slow clients."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web._acceptor import Acceptor, Board
from ws_web._negotiation import has_content_type

# Any below: uvicorn's protocols differ by the parser, and have no common type.

_IDLE_LINGER = 1.0  # seconds in which a kept connection may still send a request, while we drain
_FRESH_LINGER = 3.0  # the same for a connection that has not sent one yet
_MAX_HEAD = 64 * 1024  # bytes of a request's head; h11 has its own limit
_CLOSE = (b"connection", b"close")
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_SWEEP = 10  # ticks of a tenth of a second between two looks for slow clients


class Guard:
    """The application as the server sees it: failed starts are noted, and event streams can be ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.failure: str | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                # The reason goes into our one line; uvicorn would log it a second time.
                self.failure = message.get("message") or "the application did not start"
                message = {**message, "message": ""}

            await send(message)

        await self.app(scope, receive, watch)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The task of the request, not the one inside a task group that may be sending.
        task = asyncio.current_task()
        assert task is not None

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and has_content_type(message, b"text/event-stream"):
                self._streams.add(task)

            await send(message)

        try:
            await self.app(scope, receive, watch)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise

            # We have ended the stream: the client gets a proper end, and connects to another worker.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.discard(task)
            self._ended.discard(task)

    def end_streams(self) -> None:
        """End all Server-Sent Events, which would never end by themselves."""
        self._ended |= self._streams

        for task in self._streams:
            task.cancel()


class Server(uvicorn.Server):
    """
    uvicorn's server for one process.

    SIGTERM: ``/readyz`` fails while everything is still served, for the drain delay; then as SIGINT. SIGINT:
    nothing more is accepted, WebSockets are closed with 1012, event streams end, accepted connections are
    answered and closed, and the lifespan ends. A second SIGINT stops the waiting.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        guard: Guard,
        *,
        ready: Callable[[], None] | None,
        drain_delay: float,
        read_timeout: float,
        board: Board | None = None,
    ) -> None:
        super().__init__(config)
        self.draining = False
        self._guard = guard
        self._board = board
        self._acceptor: Acceptor | None = None
        self._ready = ready
        self._drain_delay = drain_delay
        self._read_timeout = read_timeout
        self._exit_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and report that requests are served."""
        protocol: Any = self.config.http_protocol_class
        self.config.http_protocol_class = type(protocol.__name__, (_Timed, protocol), {"owner": self})

        if self._board is None or not sockets:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._acceptor = Acceptor(
                sockets[0],
                self._make_protocol,
                count=lambda: len(self.server_state.connections),
                board=self._board,
                ssl_context=self.config.ssl,
            )
            self._acceptor.start()

        if self._ready is not None and self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once, or after the drain delay."""
        monitor: Any = getattr(getattr(self._guard.app, "state", None), "health", None)
        may_drain = self.started and self._drain_delay > 0 and monitor is not None

        if sig != signal.SIGTERM or not may_drain or self._exit_at is not None:
            super().handle_exit(sig, frame)
            return

        # Load balancers notice before connections are refused.
        monitor.draining = True
        self._exit_at = time.monotonic() + self._drain_delay

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does each tenth of a second, and end connections that have been silent too long."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True

        if counter % _SWEEP == 0:
            self._end_slow_requests()

        if self._board is not None:
            self._board.write(len(self.server_state.connections))

        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and then stop as uvicorn does."""
        if self._acceptor is not None:
            await self._acceptor.stop()

        for server in self.servers:
            server.close()

        for listener in sockets or []:
            listener.close()

        self.draining = True
        self._guard.end_streams()
        await self._answer_accepted()
        await super().shutdown(sockets)

    async def _answer_accepted(self) -> None:
        """Close WebSockets, and give idle connections the time to send what may be under way."""
        began = time.monotonic()

        for connection in self._connections():
            if not isinstance(connection, _Timed):
                connection.shutdown()  # a WebSocket: 1012, the client comes back to another worker
            elif connection.is_busy:
                connection.end_after_reply()

        # A connection that is idle may carry a request this very moment: it is answered, and then closed. One
        # that was never used was accepted a moment ago, and has more time.
        while not self.force_exit:
            waited = time.monotonic() - began
            idle = [c for c in self._connections() if isinstance(c, _Timed) and not c.is_busy]

            for connection in idle:
                if waited >= (_FRESH_LINGER if connection.cycle is None else _IDLE_LINGER):
                    connection.transport.close()

            if not idle or waited >= _FRESH_LINGER:
                break

            await asyncio.sleep(0.02)

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _connections(self) -> list[Any]:
        return list(self.server_state.connections)

    def _end_slow_requests(self) -> None:
        """Close connections whose request has begun, and not gone on for the read timeout."""
        now = time.monotonic()

        for connection in self._connections():
            if isinstance(connection, _Timed) and connection.is_overdue(now - self._read_timeout):
                connection.transport.close()


class _Timed:
    """What is mixed into uvicorn's HTTP protocols: when data came, and no keep-alive while we drain."""

    owner: Server
    cycle: Any
    flow: Any
    transport: Any
    timeout_keep_alive_task: Any
    _head_at: float = 0.0
    _data_at: float = 0.0
    _head_size: int = 0

    def connection_made(self, transport: Any) -> None:
        """Note when the connection was made."""
        self._head_at = self._data_at = time.monotonic()
        super().connection_made(transport)  # type: ignore[misc]  # uvicorn's

    def data_received(self, data: bytes) -> None:
        """Note when data came."""
        self._data_at = time.monotonic()

        if self.timeout_keep_alive_task is not None:
            self._head_at = self._data_at  # the first byte of a further request

        super().data_received(data)  # type: ignore[misc]  # uvicorn's

        if not self.is_busy:
            self._head_size += len(data)

            if self._head_size > _MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

            return

        self._head_size = 0

        if self.owner.draining:
            self.end_after_reply()

    def end_after_reply(self) -> None:
        """Let the reply say that it is the last one of this connection."""
        # uvicorn < 0.53 does not say so by itself.
        self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]
        self.cycle.keep_alive = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def is_overdue(self, limit: float) -> bool:
        """Return whether a head begun, or a body's last part came, before this time."""
        if not self.is_busy:
            # The head as a whole has one timeout, so that single bytes do not prolong it.
            return self.timeout_keep_alive_task is None and self._head_at < limit

        # While reading is paused, the client waits for us.
        return bool(self.cycle.more_body) and self._data_at < limit and not self.flow.read_paused
