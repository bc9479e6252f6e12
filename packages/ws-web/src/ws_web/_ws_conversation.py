"""One conversation over a WebSocket: a reader, a writer, and a bounded queue between senders and writer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette import status
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ws_web._ws_limits import Place
from ws_web._ws_messages import BadMessage, Meter, read
from ws_web.errors import SocketLimitError

# Any below: keys and handlers are the application's.

logger: logging.Logger = logging.getLogger("ws_web.ws")

Overflow = Literal["close", "drop_newest", "drop_oldest"]

_LONGEST_CLOSE = 2.0  # seconds that a peer may take to take the close frame


@dataclass(frozen=True, slots=True)
class Rules:
    """What a manager wants of all its conversations; see `ws_web.ws.WsChatConnectionManager`."""

    heartbeat_timeout: float
    timeout_count: int
    queue_size: int
    overflow: Overflow
    send_timeout: float
    max_message_size: int | None
    message_rate: float | None

    @property
    def enough(self) -> int:
        """How many messages in a queue hold its reader back."""
        return max(1, self.queue_size // 2)


@dataclass(slots=True)
class Counters:
    """What all conversations of a manager have come to."""

    sent: int = 0
    dropped: int = 0
    evicted: int = 0
    bad_frames: int = 0


@dataclass(slots=True, eq=False, repr=False)  # its repr, as in a diagnosed traceback, would have the messages
class Conversation:
    """One socket, its queue, and the future that ends it with a close code and a reason."""

    key: Any
    ws: WebSocket
    handler: Any  # hello and on_message are checked when it is appended
    place: Place
    rules: Rules
    counters: Counters
    ended: asyncio.Future[tuple[int, str]]
    queue: deque[Mapping[str, Any]] = field(default_factory=deque)
    sending_since: float | None = None
    rooms: set[str] = field(default_factory=set)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Future[None] | None = None

    def end(self, code: int, reason: str = "") -> None:
        """Request the end of the conversation; only the first request counts."""
        if not self.ended.done():
            self.ended.set_result((code, reason))

    def enqueue(self, frame: Mapping[str, Any]) -> bool:
        """Queue a message, or do what the policy says for a full queue."""
        if self.ended.done():
            return False

        queue = self.queue

        if len(queue) >= self.rules.queue_size:
            if self.rules.overflow == "close":
                self.evict()
                return False

            self.counters.dropped += 1

            if self.rules.overflow == "drop_newest":
                return False

            queue.popleft()

        queue.append(frame)

        if self.news is not None:
            if not self.news.done():
                self.news.set_result(None)

            self.news = None

        return True

    def evict(self) -> None:
        """End the conversation of a peer that does not read what is sent."""
        self.counters.evicted += 1
        self.end(status.WS_1013_TRY_AGAIN_LATER, "too slow")

    async def converse(self, receive_func: str) -> None:
        """Run reader and writer until one of them, or somebody else, ends it; then close the socket."""
        tasks = (
            asyncio.create_task(self._read(receive_func), name=f"reader of {self.key!r}"),
            asyncio.create_task(self._write(), name=f"writer of {self.key!r}"),
        )

        try:
            await asyncio.wait((*tasks, self.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

            results = await asyncio.gather(*tasks, return_exceptions=True)

        await self._hang_up(*self._outcome(results))

    def _outcome(self, results: Iterable[BaseException | None]) -> tuple[int, str]:
        """Return the close code and the reason that the ends of reader and writer make."""
        for result in results:
            if isinstance(result, WebSocketDisconnect):
                return result.code, ""  # a handler that sent by itself met a peer that had left

            if isinstance(result, SocketLimitError):
                return status.WS_1013_TRY_AGAIN_LATER, "the room is full"

            if isinstance(result, Exception):
                logger.error("WebSocket %r failed: %s", self.key, type(result).__name__, exc_info=result)
                return status.WS_1011_INTERNAL_ERROR, ""

        return self.ended.result() if self.ended.done() else (status.WS_1000_NORMAL_CLOSURE, "")

    async def _read(self, receive_func: str) -> None:
        """Pass messages to the handler; count silent heartbeats."""
        ws, handler, key, rules = self.ws, self.handler, self.key, self.rules
        queue, enough = self.queue, rules.enough
        clock = asyncio.get_running_loop().time
        meter = None if rules.message_rate is None else Meter(rules.message_rate, clock)
        silent = 0
        await handler.hello(key, ws, silent)

        while True:
            # A peer that sends many messages at once is read no faster than it takes the answers: its own
            # messages never fill its queue. The pause lets the writers work, of other sockets too.
            await asyncio.sleep(0)

            if len(queue) >= enough:
                self.has_room.clear()
                await self.has_room.wait()

            try:
                async with asyncio.timeout(rules.heartbeat_timeout):
                    event = await ws.receive()
            except TimeoutError:
                silent += 1

                if silent >= rules.timeout_count:
                    self.end(status.WS_1000_NORMAL_CLOSURE, "no sign of life")
                    return

                await handler.hello(key, ws, silent)
                continue

            if event["type"] == "websocket.disconnect":
                self.end(event.get("code") or status.WS_1000_NORMAL_CLOSURE)
                return

            try:
                message = read(event, receive_func, rules.max_message_size)

                if meter is not None:
                    meter.count()
            except BadMessage as bad:
                self._refuse_message(bad)
                return

            silent = 0
            await handler.on_message(key, ws, message)

    async def _write(self) -> None:
        """Hand queued messages to the socket, one after the other."""
        queue, send, enough = self.queue, self.ws.send, self.rules.enough
        loop = asyncio.get_running_loop()

        while True:
            # A plain future: asyncio.Queue would cost half as much as to send a message.
            while not queue:
                self.news = loop.create_future()
                await self.news

            event = queue.popleft()

            if len(queue) < enough:
                self.has_room.set()

            # A timeout for each message would cost as much as sending it: the manager looks at all sockets.
            self.sending_since = loop.time()

            try:
                await send(dict(event))
            except (WebSocketDisconnect, RuntimeError, OSError):
                self.end(status.WS_1000_NORMAL_CLOSURE)  # the peer has left; the reader notices it too
                return

            self.sending_since = None
            self.counters.sent += 1

    def _refuse_message(self, bad: BadMessage) -> None:
        """End a conversation whose peer sends what the handler does not take; its mistake, in one line."""
        self.counters.bad_frames += 1
        self.end(bad.code, bad.what)
        message = "WebSocket %r sent %s: closed with %d (%d bad frames so far)"
        logger.warning(message, self.key, bad.what, bad.code, self.counters.bad_frames)

    async def _hang_up(self, code: int, reason: str) -> None:
        """Close the socket, unless the peer has done so; a peer that does not read cannot delay us."""
        ws = self.ws

        if WebSocketState.DISCONNECTED in (ws.client_state, ws.application_state):
            return

        try:
            async with asyncio.timeout(min(self.rules.send_timeout, _LONGEST_CLOSE)):
                await ws.close(code, reason)
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            logger.debug("WebSocket %r did not take the close frame", self.key)
