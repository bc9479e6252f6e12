"""Loops in time: ``async for`` with a pause, a deadline or the loop's turns between the rounds.

All three are iterators that keep a position, not generators: breaking out of one leaves nothing
behind that has to be closed. The first index is 0, and the first round begins at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from ws_tasks._validation import check_seconds, check_whole

__all__ = ("AsyncCircularForFrame", "AsyncCircularForSecond", "AsyncCircularForTimeout")


class _Rounds:
    """Counts rounds; what is between two of them is a subclass's."""

    def __init__(self, max_times: int | None = None) -> None:
        self._rounds = math.inf if max_times is None else check_whole("max_times", max_times, 0)
        self._index = -1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        if self._index + 1 >= self._rounds:
            raise StopAsyncIteration

        if self._index < 0:
            self._begin()
            await checkpoint()
        else:
            await self._pause()

        self._index += 1
        return self._index

    def _begin(self) -> None:
        """Note when the first round begins."""

    async def _pause(self) -> None:
        """Wait for the next round."""
        raise NotImplementedError


class AsyncCircularForSecond(_Rounds):
    """
    Counts, once every ``interval`` seconds.

    The rounds are due at start + n·interval, so that the time a round takes does not add up.
    When a round takes longer than the interval, the next begins at once and the pace starts anew
    from there: lost rounds are not made up for.

    Args:
        max_times: How many rounds; None for endless.
        interval: Seconds between the starts of two rounds; 0 only lets others run.

    Raises:
        ScheduleError: An argument is out of range.

    Example:
        ```python
        from ws_tasks import AsyncCircularForSecond

        assert [index async for index in AsyncCircularForSecond(3, interval=0.01)] == [0, 1, 2]
        ```
    """

    def __init__(
        self,
        max_times: int | None = None,
        interval: float = 1.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(max_times)
        self._interval = check_seconds("interval", interval, zero=True)
        self._clock = clock
        self._due = -math.inf

    def _begin(self) -> None:
        self._due = self._clock()

    async def _pause(self) -> None:
        now = self._clock()
        self._due = max(self._due + self._interval, now)
        await anyio.sleep(self._due - now)


class AsyncCircularForTimeout(_Rounds):
    """
    Counts every ``interval`` seconds until ``timeout`` seconds have passed.

    It ends at the deadline, never later: a pause that would go beyond it is shortened, and
    then no further round begins. There is always at least one round.

    Args:
        timeout: Seconds from the first round to the end.
        interval: Seconds between the starts of two rounds; 0 only lets others run.

    Raises:
        ScheduleError: An argument is out of range.

    Example:
        ```python
        from ws_tasks import AsyncCircularForTimeout

        ready = False

        async for index in AsyncCircularForTimeout(timeout=5, interval=0.01):
            if ready := index == 3:
                break

        assert ready
        ```
    """

    def __init__(
        self, timeout: float, interval: float = 1.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._timeout = check_seconds("timeout", timeout, zero=True)
        self._interval = check_seconds("interval", interval, zero=True)
        self._clock = clock
        self._due = self._deadline = -math.inf

    def _begin(self) -> None:
        self._due = self._clock()
        self._deadline = self._due + self._timeout

    async def _pause(self) -> None:
        now = self._clock()
        self._due = max(self._due + self._interval, now)
        await anyio.sleep(max(0.0, min(self._due, self._deadline) - now))

        if self._due >= self._deadline:
            raise StopAsyncIteration


class AsyncCircularForFrame(_Rounds):
    """
    Counts, once every ``interval`` turns of the event loop.

    A frame is one turn of the loop. Turns without a pause would keep a core busy, so that each
    wait also takes ``pause`` seconds, a millisecond by default.

    Args:
        max_times: How many rounds; None for endless.
        interval: Turns between two rounds; at least 1.
        pause: Seconds to sleep with each wait; 0 to spin, for waits known to be short.

    Raises:
        ScheduleError: An argument is out of range.

    Example:
        ```python
        from ws_tasks import AsyncCircularForFrame

        assert [index async for index in AsyncCircularForFrame(3)] == [0, 1, 2]
        ```
    """

    def __init__(self, max_times: int | None = None, interval: int = 1, *, pause: float = 0.001) -> None:
        super().__init__(max_times)
        self._seconds = check_seconds("pause", pause, zero=True)
        self._frames = check_whole("interval", interval, 1)

    async def _pause(self) -> None:
        if self._seconds:
            await anyio.sleep(self._seconds)  # which is one turn

        for _ in range(self._frames - 1 if self._seconds else self._frames):
            await checkpoint()
