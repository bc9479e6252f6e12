"""Many timers on one of the loop's: made for those that are nearly always cancelled.

Every call has a timeout and every lease a renewal, and hardly any of them ever comes. Here one is
a place in a heap; the event loop knows the next one only, and a cancelled one costs nothing more
until its time comes or the heap is cleared of them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable


class Timer:
    """One timer; `function` is None when it was cancelled or has fired."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self.function: Callable[[], object] | None = function


class Timers:
    """Timers of one event loop."""

    __slots__ = ("_cancelled", "_handle", "_heap", "_loop", "_next", "_serial")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._next = float("inf")

    def __len__(self) -> int:
        return len(self._heap)

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call a function after so many seconds."""
        when = self._loop.time() + seconds
        timer = Timer(function)
        heapq.heappush(self._heap, (when, next(self._serial), timer))

        if when < self._next:
            self._wake_at(when)

        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call it."""
        if timer.function is not None:
            timer.function = None
            self._cancelled += 1

            if self._cancelled > 100 and 2 * self._cancelled > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].function is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _wake_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()

        self._next = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._next = float("inf")
        now = self._loop.time()
        due = []

        while self._heap and (self._heap[0][2].function is None or self._heap[0][0] <= now):
            timer = heapq.heappop(self._heap)[2]

            if timer.function is None:
                self._cancelled -= 1
            else:
                due.append(timer)

        if self._heap:
            self._wake_at(self._heap[0][0])

        for timer in due:
            # Called here and not later, so that a timer has either fired or can still be cancelled.
            function, timer.function = timer.function, None

            if function is None:
                self._cancelled -= 1  # one that was due at the same time has cancelled it
            else:
                self._call(function)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - as the loop does with its own timers
            self._loop.call_exception_handler({"message": f"timer {function!r} failed", "exception": error})
