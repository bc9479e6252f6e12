"""What a failing Redis may cost a call: a time for each operation, and after failures nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PAUSE: Final = 1.0  # seconds that a failing store is left alone, before one operation tries again
_TIMEOUTS: Final = 3  # in a row, after which it is left alone: one may be due to a busy event loop
_UNREACHABLE: Final = frozenset({"ConnectionError", "TimeoutError", "OSError"})


class StoreGuard:
    """A circuit breaker for a store, with a timeout for each operation."""

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = budget
        self._budgets: dict[int, Budget] = {}  # by event loop
        self._clock = clock
        self._failures = 0
        self._paused_until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last operation has failed."""
        return self._failures > 0

    def admit(self) -> bool:
        """Return whether an operation may be tried now."""
        if self._failures < _TIMEOUTS:
            return True

        if (now := self._clock()) < self._paused_until:
            return False

        # This one tries; the others go on without the store until it is known what came of it.
        self._paused_until = now + _PAUSE
        return True

    async def run(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation within its time, and learn from what came of it."""
        try:
            if self._seconds is None:
                result = await operation(*args, **kwargs)
            else:
                result = await self._budget(self._seconds).run(operation(*args, **kwargs))
        except Exception as error:
            # A driver's class is known by its name: this module imports none. Other errors come from a
            # server that answers, such as one that is out of memory.
            if isinstance(error, TimeoutError):
                self._failures += 1
            elif any(base.__name__ in _UNREACHABLE for base in type(error).__mro__):
                self._failures = _TIMEOUTS

            if self._failures >= _TIMEOUTS:
                self._paused_until = self._clock() + _PAUSE

            raise

        self._failures = 0
        return result

    def _budget(self, seconds: float) -> Budget:
        """Return the budget of the running loop."""
        loop = asyncio.get_running_loop()
        budget = self._budgets.get(id(loop))

        if budget is None or budget.loop is not loop:
            for known, old in list(self._budgets.items()):  # another loop may have had this number
                if old.loop.is_closed():
                    del self._budgets[known]

            budget = self._budgets[id(loop)] = Budget(seconds, loop)

        return budget


@dataclass(slots=True, eq=False)
class _Run:
    """An operation under way."""

    task: asyncio.Task[Any]
    deadline: float
    cancelling: int  # of the task, when it began
    expired: bool = False


class Budget:
    """
    One timeout for many operations, like `asyncio.timeout` for each of them.

    All have the same time, so they expire in the order in which they began, and one timer is enough: it
    goes off for the oldest one, and is set again for the next. An operation that ends sets none.
    """

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._seconds = seconds
        self._runs: dict[_Run, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, operation: Awaitable[T]) -> T:
        """Wait for an operation; raise `TimeoutError` when its time is over."""
        task = asyncio.current_task()
        assert task is not None
        run = _Run(task, self.loop.time() + self._seconds, task.cancelling())
        self._runs[run] = None

        if self._timer is None:
            self._timer = self.loop.call_at(run.deadline, self._expire)

        try:
            return await operation
        except asyncio.CancelledError:
            if run.expired:
                run.expired = False

                # Cancelled by this timeout alone, or by somebody else as well, who goes first.
                if task.uncancel() <= run.cancelling:
                    raise TimeoutError from None

            raise
        finally:
            self._runs.pop(run, None)

            if run.expired:  # the operation has swallowed it
                task.uncancel()

    def _expire(self) -> None:
        """Cancel what is overdue, and wait for the next."""
        self._timer = None
        now = self.loop.time()

        for run in list(self._runs):
            if run.deadline > now:
                self._timer = self.loop.call_at(run.deadline, self._expire)
                return

            run.expired = True
            run.task.cancel()
            del self._runs[run]
