"""Report how a pool's connections are used: who holds them, for how long, and when few are left."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Generic, TypeVar

from ws_pool._core.pool_state import PoolEntry, PoolState

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_WARN_EVERY = 60.0  # seconds between two warnings of a nearly exhausted pool


class LeakDetector(Generic[T]):
    """Warns about leases longer than ``leak_threshold`` seconds; with None no stack is recorded."""

    def __init__(self, name: str, state: PoolState[T], leak_threshold: float | None) -> None:
        self.warn_at: int = 0
        self.quiet_until: float = 0.0
        self._name = name
        self._state = state
        self._threshold = leak_threshold
        self.resize()

    def resize(self) -> None:
        """Take the pool's size from its state."""
        most = self._state.max_size
        # Nearly exhausted: two thirds are in use. A pool of one or two is always nearly exhausted
        # or idle, so it never warns.
        self.warn_at = most - (most - 1) // 3
        self.quiet_until = float("-inf") if most > 2 else float("inf")

    def record_acquire(self, entry: PoolEntry[T]) -> None:
        """Record where a connection was acquired, and warn when it was one of the last."""
        state, now = self._state, entry.taken_at

        if len(state.leased) >= self.warn_at and now >= self.quiet_until:
            self.quiet_until = now + _WARN_EVERY
            used, limit, waiting = len(state.leased), state.max_size, len(state.waiters)
            logger.warning(
                "pool %r is nearly exhausted: %d of %d connections in use, %d waiting",
                self._name,
                used,
                limit,
                waiting,
            )

        if self._threshold is not None:
            entry.warned = False
            # Frames only, no source lines: they are looked up if there is something to report. The first two
            # are this method and its caller, which are the pool's own.
            frames = traceback.walk_stack(sys._getframe(2))
            entry.stack = traceback.StackSummary.extract(frames, limit=16, lookup_lines=False)
            entry.stack.reverse()  # the innermost call last, as in a traceback

    def warn_leaks(self, now: float) -> None:
        """Warn about connections that are held for too long, once about each lease."""
        if self._threshold is None:
            return

        for entry in self._state.leased:
            held = now - entry.taken_at

            if not entry.warned and held >= self._threshold:
                entry.warned = True
                place = "".join(entry.stack.format()) if entry.stack else "(no stack)"
                text = "pool %r: a connection is held for %.1f s, acquired at\n%s"
                logger.warning(text, self._name, held, place)

    def holders(self, now: float, count: int = 3) -> tuple[str, ...]:
        """Return the tasks that hold connections as text, the longest first."""
        oldest = sorted(self._state.leased, key=lambda entry: entry.taken_at)[:count]
        return tuple(f"task {entry.holder_name!r} for {now - entry.taken_at:.1f} s" for entry in oldest)

    def abandoned(self, entry: PoolEntry[T]) -> str:
        """Return the warning about a lease that was dropped without a release."""
        place = (
            f"acquired at\n{''.join(entry.stack.format())}"
            if entry.stack
            else "leak_threshold= records where it was acquired"
        )
        holder = f"task {entry.holder_name!r}"
        return f"pool {self._name!r}: a connection of {holder} was dropped without being released; {place}"
