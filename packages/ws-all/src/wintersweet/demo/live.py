"""What happens in the shop, sent to every open page: event bus between processes, WebSocket to browsers.

A worker publishes each event once; every worker, this one too, receives it from the bus and passes it on to
its own pages. Pages get what gathered in a twentieth of a second as one JSON array, so that hundreds of
sales in a second do not slow them down.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from types import TracebackType
from typing import Self

from fastapi import WebSocket

from ws_pool.events import RedisEventBus
from ws_pool.redis import RedisPool
from ws_web import MessageHandler, WsChatConnectionManager
from ws_web.errors import SocketLimitError

__all__ = ("TAGS", "Board")

TAGS = ("sold", "paid", "released", "worker", "totals", "report")
"""The kinds of events, which the page knows under the same names."""

_BEAT = 0.05
_GATHER = 2000
"""Events kept for one beat; older ones are dropped, since the totals correct the page anyway."""
_PAGES = 1000
"""How many pages one worker serves at the same time."""

_logger = logging.getLogger("wintersweet.demo")


class Board:
    """The notice board of one worker; the pool's server carries the bus."""

    def __init__(self, redis: RedisPool, channel: str = "wintersweet-demo") -> None:
        self._bus = RedisEventBus(redis, channel)
        # Pages give a sign of life every 20 seconds.
        self._pages = WsChatConnectionManager(
            _PAGES, heartbeat_timeout=30, timeout_count=2, overflow="drop_oldest"
        )
        self._handler = MessageHandler()
        self._gathered: deque[dict[str, object]] = deque(maxlen=_GATHER)
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for tag in TAGS:
            self._bus.add_listener(tag, self._receive)

        await self._bus.start()
        await self._pages.start()
        self._beat = asyncio.create_task(self._forward(), name="demo board")

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending = [*self._tasks, *([self._beat] if self._beat else [])]

        for task in pending:
            task.cancel()

        await asyncio.gather(*pending, return_exceptions=True)
        await self._pages.close()
        await self._bus.close()

    def publish(self, tag: str, **event: object) -> None:
        """Publish an event, one of `TAGS`, without waiting: a sale does not depend on who looks on."""
        task = asyncio.create_task(self._send(tag, event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def watch(self, socket: WebSocket) -> None:
        """Serve one page, whose socket is not accepted yet, until it leaves."""
        key = uuid.uuid4().hex

        try:
            await self._pages.append(key, socket, self._handler)
        except SocketLimitError:
            await socket.close(1013)
            return

        await self._pages.handle_message(key)

    async def _send(self, tag: str, event: dict[str, object]) -> None:
        try:
            await self._bus.publish(tag, tag, **event)
        except Exception:
            _logger.warning("could not publish %s", tag, exc_info=True)

    async def _receive(self, tag: str, **event: object) -> None:
        if len(self._pages):
            self._gathered.append({"type": tag, **event})

    async def _forward(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)

            if self._gathered:
                news = list(self._gathered)
                self._gathered.clear()
                await self._pages.broadcast(news)
