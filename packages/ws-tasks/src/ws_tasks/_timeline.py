"""A heap of tasks by due time, in which removal only marks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws_tasks._task import ScheduledTask

__all__ = ("Timeline",)

_ticket = itertools.count(1).__next__


class Timeline:
    """
    Tasks by the moment at which they are due, on one clock.

    A task carries the ticket of its only valid entry; entries with another ticket are stale and
    are dropped when they come up, or all at once when they are the majority.
    """

    __slots__ = ("_heap", "_stale")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ScheduledTask]] = []
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap) - self._stale

    def __iter__(self) -> Iterator[ScheduledTask]:
        return (task for _, ticket, task in self._heap if task.ticket == ticket)

    def push(self, when: float, task: ScheduledTask) -> bool:
        """Add a task that is not in here; tell whether it is the first one due now."""
        ticket = task.ticket = _ticket()
        heapq.heappush(self._heap, (when, ticket, task))
        return self._heap[0][1] == ticket

    def discard(self, task: ScheduledTask) -> None:
        """Take a task out, if it is in here."""
        if not task.ticket:
            return

        task.ticket = 0
        self._stale += 1

        if self._stale > 64 and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].ticket == entry[1]]
            heapq.heapify(self._heap)
            self._stale = 0

    def first(self) -> float | None:
        """Return when the first task is due, or None when there is none."""
        heap = self._heap

        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
            self._stale -= 1

        return heap[0][0] if heap else None

    def pop(self) -> ScheduledTask:
        """Take out the first task; call `first` before."""
        task = heapq.heappop(self._heap)[2]
        task.ticket = 0
        return task
