"""A clock that tests move, what runs on it, and both event loops to run a test on."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ws_tasks import CrontabTask, IntervalTask, Run, Scheduler, TaskEvent, current_run

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


class PlainClaims:
    """A guard that several schedulers share, with nothing but claims that are kept."""

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


class ClaimServer:
    """What a server of claims keeps; each process has its own `LeaseClaims` for it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.runs: dict[str, tuple[LeaseClaim | None, float]] = {}  # owner, or None when done; its end
        self.last: dict[str, tuple[str, float]] = {}
        self.open: dict[str, dict[str, None]] = {}
        self.fence = 0
        self.fail: Exception | None = None
        self.failures = 0
        self.requests: list[str] = []

    async def request(self, what: str) -> None:
        """Let a request arrive, or fail."""
        await checkpoint()
        self.requests.append(what)

        if self.fail is not None:
            self.failures += 1
            raise self.fail

    def owner(self, run_id: str) -> tuple[LeaseClaim | None, float] | None:
        """Return the owner of a run and the end of its claim, if that has not come."""
        found = self.runs.get(run_id)
        return found if found is not None and found[1] > self.clock.monotonic() else None


class LeaseClaim:
    """A claim as a `LeaseGuard` returns it."""

    def __init__(self, server: ClaimServer, run_id: str, task: str) -> None:
        self.server, self.run_id, self.task = server, run_id, task
        self.claimed = self.done = False
        self.fence, self.retry_after, self.idle = 0, 0.0, math.inf

    async def renew(self, ttl: float) -> bool:
        """Keep it."""
        await self.server.request("renew")
        return self._set(self, ttl)

    async def finish(self, keep: float) -> bool:
        """Mark the run as done."""
        await self.server.request("finish")
        done = self._set(None, keep)

        if done:
            self.server.open[self.task].pop(self.run_id, None)

        return done

    async def give_back(self) -> bool:
        """Release it."""
        await self.server.request("give_back")
        owner = self.server.owner(self.run_id)
        return owner is not None and owner[0] is self and self._set(self, 0)

    def _set(self, owner: LeaseClaim | None, seconds: float) -> bool:
        found = self.server.owner(self.run_id)

        if found is not None and found[0] is not self:
            return False

        self.server.runs[self.run_id] = owner, self.server.clock.monotonic() + seconds
        return True


class LeaseClaims:
    """A `LeaseGuard` of one process."""

    def __init__(self, server: ClaimServer) -> None:
        self.server = server

    async def claim(self, run_id: str, ttl: float) -> bool:
        """Claim a run for good."""
        raise NotImplementedError

    async def claim_run(
        self, run_id: str, ttl: float, *, task: str, keep: float = 3600.0, claimer: str = ""
    ) -> LeaseClaim:
        """Claim a run that is renewed."""
        server = self.server
        await server.request("claim")
        claim, owner = LeaseClaim(server, run_id, task), server.owner(run_id)
        now = server.clock.monotonic()

        if owner is not None:
            by, at = server.last.get(task, (claimer, 0.0))
            claim.done, claim.retry_after = owner[0] is None, owner[1] - now
            claim.idle = math.inf if by == claimer else now - at
            return claim

        server.fence += 1
        claim.claimed, claim.fence = True, server.fence
        server.runs[run_id] = claim, now + ttl
        server.open.setdefault(task, {})[run_id] = None

        if claimer:
            server.last[task] = claimer, now

        return claim

    async def open_runs(self, task: str) -> list[str]:
        """List what was claimed and is not done."""
        await self.server.request("open_runs")
        return list(self.server.open.get(task, ()))


class SkewedClock:
    """The clock of another process: the same time, but its wall clock is set otherwise."""

    def __init__(self, clock: VirtualClock, ahead: float = 0.0) -> None:
        self.clock = clock
        self.ahead = ahead
        self.monotonic, self.wait, self.sleep = clock.monotonic, clock.wait, clock.sleep

    def time(self) -> float:
        return self.clock.time() + self.ahead


class Process:
    """A scheduler that stands for a process, with one guarded task."""

    def __init__(self, server: ClaimServer, clock: Any, calls: Calls, **options: Any) -> None:
        self.watcher = Watcher()
        self.calls = calls
        self.scheduler = Scheduler(clock=clock, drain_timeout=0, on_event=self.watcher.append)
        self.guard = LeaseClaims(server)
        self.options = {"name": "sync", "guard": self.guard, "claim_ttl": 30.0, **options}
        self.task: IntervalTask | CrontabTask | None = None

    async def start(self, stack: AsyncExitStack, interval: float = 10) -> IntervalTask:
        """Enter the scheduler and start the task."""
        await stack.enter_async_context(self.scheduler)
        task = self.scheduler.add(IntervalTask(interval, self.calls, **self.options))
        self.task = task
        await settle()
        return task

    def die(self) -> None:
        """Take the runs under way and the schedule along, as SIGKILL does: nothing is given back."""
        self.guard.server = ClaimServer(VirtualClock())
        assert self.task is not None

        for instance in self.task.active:
            instance.purpose = "adopt"  # its end has no meaning any more

        for found in list(self.task.active):
            found.interrupt()

        self.task.pause()


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
