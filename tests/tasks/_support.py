"""A clock that tests move, what runs on it, and both event loops to run a test on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ws_tasks import Run, Scheduler, TaskEvent, current_run

START = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()


class VirtualClock:
    """Time that stands still until a test advances it."""

    def __init__(self, wall: float = START) -> None:
        self._now = 1000.0
        self._wall = wall - self._now
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now + self._wall

    def step(self, seconds: float) -> None:
        """Set the wall clock, which sleepers do not notice."""
        self._wall += seconds

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as for a stopped process."""
        self._now += seconds

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        async with anyio.create_task_group() as group:

            async def first_of(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                group.cancel_scope.cancel()

            group.start_soon(first_of, event.wait)
            group.start_soon(first_of, functools.partial(self.sleep, seconds))

    async def sleep(self, seconds: float) -> None:
        entry = (self._now + seconds, anyio.Event())
        self._sleepers.append(entry)

        try:
            await entry[1].wait()
        finally:
            self._sleepers.remove(entry)

    async def advance(self, seconds: float) -> None:
        """Let time pass, stopping at each moment at which a sleeper is due."""
        target = self._now + seconds
        await settle()

        while due := [entry for entry in self._sleepers if entry[0] <= target and not entry[1].is_set()]:
            when = min(entry[0] for entry in due)
            self._now = max(self._now, when)

            for moment, event in due:
                if moment <= self._now:
                    event.set()

            await settle()

        self._now = max(self._now, target)


async def settle() -> None:
    """Let all tasks run as far as they can."""
    for _ in range(30):
        await checkpoint()


class Watcher(list[TaskEvent]):
    """Collects events."""

    def kinds(self) -> list[str]:
        return [event.kind for event in self]


class Calls:
    """An async function that notes when it was called, and for which nominal time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.at: list[float] = []
        self.runs: list[Run] = []
        self.hold: anyio.Event | None = None
        self.fail: BaseException | None = None

    async def __call__(self) -> None:
        """Note the call."""
        self.at.append(self.clock.monotonic() - 1000)
        self.runs.append(current_run())

        if self.hold is not None:
            await self.hold.wait()

        if self.fail is not None:
            raise self.fail


class Claims:
    """A guard that several schedulers share, like a set of keys on a server."""

    def __init__(self, claimed: set[str] | None = None) -> None:
        self.claimed = set() if claimed is None else claimed
        self.fail: Exception | None = None

    async def claim(self, run_id: str, ttl: float) -> bool:
        """Claim a run once."""
        await checkpoint()
        assert ttl == 3600

        if self.fail is not None:
            raise self.fail

        if run_id in self.claimed:
            return False

        self.claimed.add(run_id)
        return True

    def __call__(self) -> None:
        """Be a function as well, for test_names."""


def scheduler(clock: VirtualClock, **options: Any) -> Scheduler:  # any option of the class
    """Make a scheduler on a virtual clock."""
    return Scheduler(clock=clock, **options)


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on asyncio and on trio."""

    @pytest.mark.parametrize("loop", ["asyncio", "trio"])
    @functools.wraps(test)
    def run(loop: str, **fixtures: object) -> None:
        anyio.run(functools.partial(test, **fixtures), backend=loop)

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    parameters = [*signature.parameters.values(), loop]
    run.__signature__ = signature.replace(parameters=parameters)
    result: Callable[..., None] = run
    return result
