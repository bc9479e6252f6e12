"""A heap of items by due time, in which removal only marks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

_next_ticket = itertools.count(1).__next__
_MANY_STALE = 64  # entries from which on a heap is cleaned


class Ticketed(Protocol):
    """What can be in a heap."""

    ticket: int
    """The item's only valid entry; 0 when it is in no heap."""


_T = TypeVar("_T", bound=Ticketed)


class TaskHeap(Generic[_T]):
    """Items by the moment at which they are due, on one clock."""

    __slots__ = ("_heap", "_stale")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _T]] = []
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap) - self._stale

    def __iter__(self) -> Iterator[_T]:
        return (item for _, ticket, item in self._heap if item.ticket == ticket)

    def push(self, when: float, item: _T) -> bool:
        """Add an item that is not in here; return whether it is now the first one due."""
        ticket = item.ticket = _next_ticket()
        heapq.heappush(self._heap, (when, ticket, item))
        return self._heap[0][1] == ticket

    def discard(self, item: _T) -> None:
        """Remove an item, if it is in here."""
        if not item.ticket:
            return

        # Searching the heap would be O(n). The entry stays behind with a ticket that is not valid
        # any more, and is dropped when it comes up, or with all others once they are the majority.
        item.ticket = 0
        self._stale += 1

        if self._stale > _MANY_STALE and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].ticket == entry[1]]
            heapq.heapify(self._heap)
            self._stale = 0

    def first(self) -> float | None:
        """Return when the first item is due, or None when there is none."""
        heap = self._heap

        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
            self._stale -= 1

        return heap[0][0] if heap else None

    def pop(self) -> _T:
        """Remove and return the first item; call `first` before, which drops stale entries."""
        item = heapq.heappop(self._heap)[2]
        item.ticket = 0
        return item
