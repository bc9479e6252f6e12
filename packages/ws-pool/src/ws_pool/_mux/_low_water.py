"""Telling in time that a shared connection is about to refuse commands. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ("LowWater",)

_EVERY: Final = 60.0  # seconds between two warnings


class LowWater:
    """
    Decides when to warn of a queue that fills up.

    Args:
        most: How many the queue holds.

    Example:
        >>> low = LowWater(9)
        >>> [low.due(queued, now=0.0) for queued in (5, 6, 7)]
        [False, True, False]
        >>> low.due(8, now=60.0)
        True
    """

    def __init__(self, most: int) -> None:
        self._threshold = max(1, most - most // 3)
        self._next = float("-inf")

    def due(self, queued: int, *, now: float) -> bool:
        """
        Tell whether to warn; a yes counts as a warning.

        Args:
            queued: How many wait.
            now: The loop's time in seconds.

        Returns:
            Whether two thirds are taken and no warning was due in the last minute.
        """
        if queued < self._threshold or now < self._next:
            return False

        self._next = now + _EVERY
        return True
