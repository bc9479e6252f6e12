"""Fakes of the parts that locks stand on: a clock, a coordinator without a server, a subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

from ws_redislock._concurrency import READ_SLICE, Mutex


class FakeClock:
    """Time that passes only when a test says so; also the parts of a loop that report time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        """Return the time, as a clock does."""
        return self.now

    def time(self) -> float:
        """Return the time, as a loop does."""
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        """Return a future of the running loop."""
        return asyncio.get_running_loop().create_future()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Any:  # Any: a fake handle
        """Take note of a timer."""
        entry = (self.now + seconds, function)
        self.timers.append(entry)
        return SimpleNamespace(cancel=lambda: self.timers.remove(entry))

    def cancel(self, timer: Any) -> None:  # Any: as above
        """Cancel a timer, as `Timers` does."""
        timer.cancel()

    def fire(self) -> None:
        """Let the next timer come."""
        when, function = self.timers.pop(0)
        self.now = max(self.now, when)
        function()


class FakeCoordinator:
    """A coordinator without a server."""

    def __init__(self) -> None:
        self.clock = self.loop = self.timers = FakeClock()
        self.mutex = Mutex()
        self.id = "h"
        self.held: dict[str, object] = {}
        self.waiting = False
        self.hints: list[list[bytes]] = []
        self.looked = 0
        self.once: Callable[[], list[int]] = lambda: [1]
        self.pubsub = FakePubSub(self)
        self.tasks: list[asyncio.Task[None]] = []
        self.scripts = SimpleNamespace(timers=self.clock, once=self._once, subscription=lambda: self.pubsub)

    async def _once(self, *_: object) -> list[int]:
        await asyncio.sleep(0)
        return self.once()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run work in a task."""
        task = asyncio.create_task(work())
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """Return the time."""
        return self.clock.now

    def wake(self, tokens: list[bytes]) -> None:
        """Take note of a hint."""
        self.hints.append(tokens)

    def look_at_all(self) -> None:
        """Take note of the wish."""
        self.looked += 1


class FakePubSub:
    """A subscription that reads what a test says; None is a time without a message."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        self.coordinator = coordinator
        self.heard: Iterator[Callable[[], list[Any] | None]] = iter(())
        self.pings = 0
        self.closed = 0
        self.refusal: Exception | None = None

    async def subscribe(self, channel: str) -> None:
        """Subscribe, or fail."""
        assert channel == "wsl:hub:h"

        if self.refusal is not None:
            raise self.refusal

    async def parse_response(self, *, block: bool, timeout: float) -> list[Any] | None:
        """Receive the next thing."""
        assert (block, timeout) == (False, READ_SLICE)
        return next(self.heard)()

    async def ping(self) -> None:
        """Count."""
        self.pings += 1

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1
