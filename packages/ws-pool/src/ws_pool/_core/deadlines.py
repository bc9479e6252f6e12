"""Who waits for a connection is told when his time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ws_pool._core.background import Timers
from ws_pool._core.pool_state import PoolState, Waiter

__all__ = ("AcquireDeadlines",)

T = TypeVar("T")

_NEVER = float("inf")
_PACE = 2e-6  # seconds per waiter between two looks at the queue: a long one costs a tenth of a core at most


class AcquireDeadlines(Generic[T]):
    """
    Ends waits. One timer serves the whole queue: it is set for the waiter whose time ends first.

    Args:
        state: Has the queue.
        timers: Where the timer is set.
        explain: Makes the error for a waiter, given how many were waiting.
    """

    __slots__ = ("_explain", "_state", "_timers", "at")

    def __init__(
        self, state: PoolState[T], timers: Timers, explain: Callable[[Waiter[T], int], Exception]
    ) -> None:
        self.at: float = _NEVER
        self._state = state
        self._timers = timers
        self._explain = explain

    def expect(self, waiter: Waiter[T]) -> None:
        """
        Have a waiter told when its time is over.

        Args:
            waiter: It is in the queue.
        """
        deadline = waiter.since + waiter.timeout

        if deadline < self.at:
            self._set(deadline)

    def _set(self, deadline: float) -> None:
        self.at = deadline
        self._timers.set("deadlines", max(0.0, deadline - self._timers.now()), self._expire)

    def _expire(self) -> None:
        self.at = _NEVER
        state, now = self._state, self._timers.now()
        waiting = len(state.waiters)

        for waiter in state.expired_waiters(now):
            state.totals.timeouts += 1
            waiter.set_exception(self._explain(waiter, waiting))

        if state.waiters:
            first = min(waiter.since + waiter.timeout for waiter in state.waiters)
            self._set(max(first, now + len(state.waiters) * _PACE))
