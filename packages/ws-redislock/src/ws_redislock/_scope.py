"""Cancelling the body of a ``hold()`` when its lock is lost, by the protocol of `asyncio.timeout`."""

from __future__ import annotations

import asyncio

__all__ = ("BodyScope", "current_flow")


def current_flow() -> object:
    """Return what a reentrant lock belongs to: the running task."""
    return asyncio.current_task()


class BodyScope:
    """The body of one ``hold()``: can be cancelled once, and tells that apart from other cancels."""

    __slots__ = ("_before", "_fired", "_task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task = task
        self._before = task.cancelling()
        self._fired = False

    def cancel(self, reason: str) -> None:
        """Cancel the body, once."""
        if not self._fired:
            self._fired = True
            self._task.cancel(reason)

    async def leave(self, error: BaseException | None) -> bool:
        """
        Leave the body.

        Args:
            error: What the body ended with.

        Returns:
            Whether the `CancelledError` it ended with is ours alone, and is to be replaced. A
            cancel from outside that came as well is never taken away.
        """
        if not self._fired:
            return False

        if error is None:
            # The body ended before our cancel reached it: take the cancel back.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if self._task.uncancel() > self._before:
                    raise

                return True

        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)
