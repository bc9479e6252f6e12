"""Virtual time: a clock that is set, and an event loop that sets it. Published by `ws_core.testing`."""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, tzinfo
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

from ws_core.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_EPOCH = 1_735_689_600.0  # 2025-01-01T00:00:00Z


class StuckError(AssertionError):
    """Every task waits and no timer is set: in real time, the test would hang for ever."""


class VirtualClock:
    """
    A clock that only a test moves, for everything that takes a ``clock``.

    Called, it returns monotonic seconds; `time` and `now` are its time of day.

    Args:
        start: The monotonic seconds to begin with.
        epoch: The time of day to begin with, in seconds since the epoch; 2025-01-01 UTC by default.

    Example:
        >>> clock = VirtualClock()
        >>> clock.advance(90)
        >>> clock(), clock.now().isoformat()
        (90.0, '2025-01-01T00:01:30+00:00')
    """

    def __init__(self, start: float = 0.0, *, epoch: float = _EPOCH) -> None:
        self._now = start
        self._offset = epoch - start

    def __call__(self) -> float:
        """Return the monotonic seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"<VirtualClock {self._now:g} s, {self.now().isoformat()}>"

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return self._now + self._offset

    def now(self, timezone: tzinfo = UTC) -> datetime:
        """Return the time of day, aware."""
        return datetime.fromtimestamp(self.time(), timezone)

    def advance(self, seconds: float) -> None:
        """
        Move on.

        Args:
            seconds: How far; not negative, for monotonic time never goes back.
        """
        if seconds < 0:
            raise ValueError(f"monotonic time cannot go back by {-seconds:g} s: step() sets the time of day")

        # A small step vanishes beside a large time; it must not, or a loop would wait for ever.
        self._now = max(self._now + seconds, math.nextafter(self._now, math.inf)) if seconds else self._now

    def step(self, seconds: float) -> None:
        """
        Set the time of day, as an operator or NTP does; monotonic time is not moved.

        Args:
            seconds: How far; negative to set it back.
        """
        self._offset += seconds


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop in virtual time.

    Threads of ``asyncio.to_thread`` are waited for in real time while the clock stands still.
    Sockets, pipes and subprocesses are refused: how long they take cannot be known.

    Args:
        clock: The clock that it reads and sets; a new one by default.
    """

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock: VirtualClock = VirtualClock() if clock is None else clock
        self._threads = 0
        self._idle: list[asyncio.Future[None]] = []
        super().__init__(_Selector(self._wait))

    def time(self) -> float:
        """Return the clock's monotonic seconds."""
        now = self.clock()
        # asyncio fires what is due before now + resolution. Beside a large time its nanosecond
        # vanishes, and what is due exactly now would never fire, for here time waits for it.
        self._clock_resolution = max(1e-9, 2 * math.ulp(now))
        return now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], R], *args: *Ts
    ) -> asyncio.Future[R]:
        """Run a function in a thread; time stands still until it has ended."""
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for all threads in real time."""
        # As if for one more thread, and without the timeout, which would be of virtual time.
        self._threads += 1

        try:
            await super().shutdown_default_executor()
        finally:
            self._threads -= 1

    async def settle(self) -> None:
        """Wait until everything else waits, for whatever it may be; time does not move."""
        future = self.create_future()
        self._idle.append(future)
        await future

    def _thread_ended(self, _future: asyncio.Future[Any]) -> None:  # Any: of no interest
        self._threads -= 1

    def _wait(self, timeout: float | None) -> bool:
        """Decide what to do when nothing is ready; True to wait for a thread in real time."""
        if self._threads:
            return True

        if self._idle:
            idle, self._idle = self._idle, []

            for future in idle:
                if not future.done():
                    future.set_result(None)
        elif timeout is None:
            waiting = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self)))
            raise StuckError(f"every task waits and no timer is set, so this would hang for ever: {waiting}")
        else:
            self.clock.advance(timeout)

        return False


class _Selector(selectors.SelectSelector):
    """Knows of the loop's own wake-up pipe and of nothing else."""

    def __init__(self, wait: Callable[[float | None], bool]) -> None:
        super().__init__()
        self._wait = wait

    def register(
        self, fileobj: Any, events: int, data: Any = None
    ) -> selectors.SelectorKey:  # Any: of the base class
        if self.get_map():
            raise UsageError(
                "virtual time and real input and output do not go together:"
                " use a fake here, or asyncio's own loop"
            )

        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)

        if ready or timeout == 0 or not self._wait(timeout):
            return ready

        return super().select(None)


def run_virtual(main: Coroutine[Any, Any, R], *, clock: VirtualClock | None = None) -> R:
    """
    Run a coroutine in virtual time, as `asyncio.run` does in real time.

    Args:
        main: The coroutine.
        clock: The clock to use; a new one by default.

    Returns:
        The coroutine's result.

    Raises:
        StuckError: Every task waits, and nothing would ever wake one.

    Example:
        >>> async def nap() -> float:
        ...     await asyncio.sleep(3600)
        ...     return virtual_clock()()
        >>> run_virtual(nap())
        3600.0
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """
    Decorate an asynchronous test to run in virtual time.

    What is returned is a plain function with the same parameters, so that test runners treat it as
    a synchronous test. Asynchronous fixtures do not work with it, for they live in another loop.

    Example:
        >>> @virtual_time
        ... async def test_timeout() -> None:
        ...     async with asyncio.timeout(60) as scope:
        ...         scope.reschedule(virtual_clock()() + 1)
        ...     assert not scope.expired()
        >>> test_timeout()
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return run_virtual(test(*args, **kwargs))

    return run


def virtual_clock() -> VirtualClock:
    """
    Return the clock of the running loop.

    Raises:
        UsageError: The running loop is not in virtual time.
    """
    return _virtual_loop().clock


async def settle() -> None:
    """
    Wait until every other task waits, for whatever it may be; time does not move.

    Raises:
        UsageError: The running loop is not in virtual time.

    Example:
        >>> async def main() -> bool:
        ...     task = asyncio.create_task(asyncio.sleep(0, "done"))
        ...     await settle()
        ...     return task.done()
        >>> run_virtual(main())
        True
    """
    await _virtual_loop().settle()


def _virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()

    if not isinstance(loop, VirtualLoop):
        raise UsageError(f"{type(loop).__name__} is not in virtual time: use @virtual_time or run_virtual()")

    return loop
