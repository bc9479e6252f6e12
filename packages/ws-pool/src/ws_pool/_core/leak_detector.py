"""What a pool says about its users: who holds connections, for how long, and when few are left."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Generic, TypeVar

from ws_pool._core.pool_state import PoolEntry, PoolState

__all__ = ("LeakDetector",)

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_LOW_WATER_EVERY = 60.0  # seconds between two low-water warnings


class LeakDetector(Generic[T]):
    """
    Watches over the use of connections.

    Args:
        name: The pool's name.
        ledger: The books.
        leak_threshold: Seconds of one lease after which to warn; None does not record stacks.
    """

    __slots__ = ("_ledger", "_name", "_threshold", "low_water", "quiet_until")

    def __init__(self, name: str, ledger: PoolState[T], leak_threshold: float | None) -> None:
        self.low_water: int = ledger.max_size - (ledger.max_size - 1) // 3
        self.quiet_until: float = float("-inf") if ledger.max_size > 2 else float("inf")
        self._name = name
        self._ledger = ledger
        self._threshold = leak_threshold

    def acquired(self, slot: PoolEntry[T]) -> None:
        """
        Record where a connection was acquired, and warn when it was one of the last; called by the acquire.

        Args:
            slot: The connection.
        """
        ledger, now = self._ledger, slot.taken_at

        if len(ledger.leased) >= self.low_water and now >= self.quiet_until:
            self.quiet_until = now + _LOW_WATER_EVERY
            used, limit, waiting = len(ledger.leased), ledger.max_size, len(ledger.waiters)
            logger.warning(
                "pool %r runs low: %d of %d connections in use, %d waiting", self._name, used, limit, waiting
            )

        if self._threshold is not None:
            slot.warned = False
            frames = traceback.walk_stack(sys._getframe(2))  # noqa: SLF001 - the cheap way to a stack
            slot.stack = traceback.StackSummary.extract(frames, limit=16, lookup_lines=False)
            slot.stack.reverse()  # the innermost call last, as in a traceback

    def warn_leaks(self, now: float) -> None:
        """
        Warn about connections that are held for too long, once about each lease.

        Args:
            now: The time.
        """
        if self._threshold is None:
            return

        for slot in self._ledger.leased:
            held = now - slot.taken_at

            if not slot.warned and held >= self._threshold:
                slot.warned = True
                place = "".join(slot.stack.format()) if slot.stack else "(no stack)"
                text = "pool %r: a connection is held for %.1f s, acquired at\n%s"
                logger.warning(text, self._name, held, place)

    def holders(self, now: float, count: int = 3) -> tuple[str, ...]:
        """
        Name the tasks that hold connections, the longest first.

        Args:
            now: The time.
            count: How many at most.
        """
        oldest = sorted(self._ledger.leased, key=lambda slot: slot.taken_at)[:count]
        return tuple(
            f"task {slot.holder.get_name() if slot.holder else '?'!r} for {now - slot.taken_at:.1f} s"
            for slot in oldest
        )

    def dropped(self, slot: PoolEntry[T]) -> str:
        """
        Say that a lease was dropped without a release.

        Args:
            slot: Its connection.
        """
        place = (
            "".join(slot.stack.format()) if slot.stack else "leak_threshold= records where it was acquired"
        )
        return f"pool {self._name!r}: a connection was dropped without being released ({place})"
