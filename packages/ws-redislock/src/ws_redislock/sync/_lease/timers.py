"""Timers for threads: one thread that sleeps until the next is due, and ends when there are none."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

__all__ = ("Timer", "call_at")

_serial = itertools.count()


class Timer:
    """One timer, which can be cancelled."""

    __slots__ = ("cancelled", "due", "function")

    def __init__(self, due: float, function: Callable[[], None]) -> None:
        self.due: float = due
        self.function: Callable[[], None] = function
        self.cancelled: bool = False

    def cancel(self) -> None:
        """Do not fire."""
        self.cancelled = True


class _Timers:
    """All timers of a process; each fires in a thread of its own, since it may block."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Timer]] = []
        self._process = 0

    def add(self, timer: Timer) -> None:
        with self._condition:
            if self._process != os.getpid():  # the first timer, or a fork, which has no threads
                self._heap.clear()
                self._process = os.getpid()
                threading.Thread(target=self._run, name="ws_redislock timers", daemon=True).start()

            heapq.heappush(self._heap, (timer.due, next(_serial), timer))
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._heap and self._heap[0][2].cancelled:
                    heapq.heappop(self._heap)

                if not self._heap:
                    if not self._condition.wait(10.0) and not self._heap:
                        self._process = 0
                        return

                    continue

                left = self._heap[0][0] - time.monotonic()

                if left > 0:
                    self._condition.wait(left)
                    continue

                timer = heapq.heappop(self._heap)[2]

            threading.Thread(target=timer.function, name="ws_redislock timer", daemon=True).start()


_timers = _Timers()


def call_at(when: float, function: Callable[[], None]) -> Timer:
    """
    Call a function at a time, in a thread of its own.

    Args:
        when: The time on `time.monotonic`.
        function: What to call.

    Returns:
        The timer.
    """
    timer = Timer(when, function)
    _timers.add(timer)
    return timer
