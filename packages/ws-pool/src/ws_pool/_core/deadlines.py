"""Fail waiters whose acquire timeout has expired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ws_pool._core.background import Timers
from ws_pool._core.pool_state import PoolState, Waiter

T = TypeVar("T")

_NEVER = float("inf")
# Seconds per waiter between two passes over the queue: a long queue costs a tenth of a core at most.
_PACE = 2e-6


class AcquireDeadlines(Generic[T]):
    """
    Fails waiters with the error that ``explain`` returns for a waiter and the length of the queue.

    One timer serves the whole queue, set for the earliest deadline. A timer for each waiter would
    cost every acquire that waits more than the wait's own bookkeeping.
    """

    def __init__(
        self, state: PoolState[T], timers: Timers, explain: Callable[[Waiter[T], int], Exception]
    ) -> None:
        self.next_at: float = _NEVER
        self._state = state
        self._timers = timers
        self._explain = explain

    def add(self, waiter: Waiter[T]) -> None:
        """Watch the deadline of a waiter in the queue."""
        deadline = waiter.since + waiter.timeout

        if deadline < self.next_at:
            self._set(deadline)

    def _set(self, deadline: float) -> None:
        self.next_at = deadline
        self._timers.set("acquire deadline", max(0.0, deadline - self._timers.now()), self._expire)

    def _expire(self) -> None:
        self.next_at = _NEVER
        state, now = self._state, self._timers.now()
        waiting = len(state.waiters)

        for waiter in state.expired_waiters(now):
            state.totals.timeouts += 1
            waiter.set_exception(self._explain(waiter, waiting))

        if state.waiters:
            # Thousands of waiters may expire one after the other: each pass looks at the whole
            # queue, so the next one waits until that is worth it.
            first = min(waiter.since + waiter.timeout for waiter in state.waiters)
            self._set(max(first, now + len(state.waiters) * _PACE))
