"""What a failing Redis may cost a call: a time for each operation, and after failures nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

__all__ = ("StoreGuard",)

T = TypeVar("T")

_PAUSE: Final = 1.0  # seconds that a failing store is left alone, before one operation tries again
_TIMEOUTS: Final = 3  # in a row, after which it is left alone: one may be due to a busy event loop
_UNREACHABLE: Final = frozenset({"ConnectionError", "TimeoutError", "OSError"})


class StoreGuard:
    """A circuit breaker for a store, with a timeout for each operation."""

    __slots__ = ("_budget", "_clock", "_failures", "_paused_until")

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
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

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation within its time, and learn from what came of it."""
        try:
            async with asyncio.timeout(self._budget):
                result = await operation()
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
