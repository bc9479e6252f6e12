"""Cancels: of the body of a ``hold()`` by the protocol of `asyncio.timeout`, and those that drivers lose."""

from __future__ import annotations

import asyncio


def cancels_so_far() -> int:
    """Return how many cancels the running task has, for `raise_if_cancelled`."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def raise_if_cancelled(before: int = 0) -> None:
    """
    Raise the cancel that a driver has swallowed.

    `asyncio.wait_for` of Python 3.11, through which redis-py sends, loses a cancel that comes in the
    same turn of the loop as what it waits for (https://github.com/python/cpython/issues/86296).
    """
    if cancels_so_far() > before:
        raise asyncio.CancelledError


class CancelScope:
    """The body of one ``hold()``: can be cancelled once, apart from all other cancels."""

    __slots__ = ("_before", "_fired", "_task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._fired = False

    def cancel(self, reason: str) -> None:
        """Cancel the body, once."""
        if not self._fired:
            self._fired = True
            self._task.cancel(reason)

    async def leave(self, error: BaseException | None) -> bool:
        """Leave the body, which ended with an error; return whether a `LockLost` is to replace that."""
        if not self._fired:
            return False

        # A cancel from outside that came as well is never taken away: its count stays above `before`.
        if isinstance(error, asyncio.CancelledError):
            return self._task.uncancel() <= self._before

        # The body may have ended before our cancel reached it, as when it found the loss itself:
        # uncancel() alone would leave it to strike at the task's next await.
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._task.uncancel() > self._before:
                raise
        else:
            self._task.uncancel()

        return error is None
