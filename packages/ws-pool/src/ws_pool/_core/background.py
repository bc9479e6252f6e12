"""The tasks in which a pool does its I/O, and which connection is in whose hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, Generic, TypeVar, cast

from ws_pool._core.pool_state import PoolEntry

__all__ = (
    "BackgroundTasks",
    "Timers",
    "cancel_and_wait",
    "is_cancelled",
)

T = TypeVar("T")


class BackgroundTasks(Generic[T]):
    """
    The tasks of one pool. No context of a user is theirs.

    Args:
        timers: Knows the loop.
        lost: Called with the connection of a task that was cancelled before it began.
    """

    __slots__ = ("_connects", "_lost", "_tasks", "_timers", "_unstarted")

    def __init__(self, timers: Timers, lost: Callable[[PoolEntry[T]], None]) -> None:
        self._timers = timers
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[None]] = set()  # those of them that open a connection
        self._unstarted: dict[PoolEntry[T], object] = {}  # connections whose task has not begun yet

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, object, None], entry: PoolEntry[T] | None = None) -> None:
        """
        Begin a task.

        Args:
            work: What it does; the first of which is to tell `begun`.
            entry: The connection that it works on; None when it opens one.
        """
        mark = object()

        if entry is not None:
            self._unstarted[entry] = mark  # before there is a task: an eager one begins at once

        task = self._timers.loop.create_task(work, context=Context())
        self._tasks.add(task)

        if entry is None:
            self._connects.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connects.discard(task)

            if entry is not None and self._unstarted.get(entry) is mark:  # cancelled before its first step
                del self._unstarted[entry]
                self._lost(entry)

        task.add_done_callback(done)

    def started(self, entry: PoolEntry[T]) -> None:
        """
        Note that a connection's task has begun, and takes care of it from now on.

        Args:
            entry: The connection.
        """
        self._unstarted.pop(entry, None)

    def cancel_connects(self) -> None:
        """Cancel those who open a connection."""
        self._cancel(self._connects)

    def cancel_all(self) -> list[asyncio.Task[None]]:
        """
        Cancel all.

        Returns:
            The tasks; they end within a few turns of the loop.
        """
        tasks = list(self._tasks)
        self._cancel(self._tasks)
        return tasks

    def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        if not self._timers.loop.is_closed():
            for task in tasks:
                self._timers.loop.call_soon(task.cancel)  # each has begun by then, and cleans up


class Timers:
    """Timers of one loop, each with a name; it also tells the time."""

    __slots__ = ("_handles", "loop", "now")

    def __init__(self) -> None:
        self.loop = cast("asyncio.AbstractEventLoop", None)  # set by start, before anything else runs
        self.now: Callable[[], float] = float
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def start(self, clock: Callable[[], float] | None) -> None:
        """
        Belong to the running loop from now on.

        Args:
            clock: Gives the time in seconds; `time.monotonic` by default.
        """
        self.loop = asyncio.get_running_loop()
        self.now = clock or time.monotonic

    def set(self, name: str, delay: float, action: Callable[[], None]) -> None:
        """
        Set a timer, in place of one that has the same name.

        Args:
            name: Its name, which is free again when the action runs.
            delay: Seconds.
            action: What to do then.
        """

        def run() -> None:
            del self._handles[name]
            action()

        if (earlier := self._handles.pop(name, None)) is not None:
            earlier.cancel()

        self._handles[name] = self.loop.call_later(delay, run)

    def stop(self) -> None:
        """Cancel all timers."""
        for handle in self._handles.values():
            handle.cancel()

        self._handles.clear()


_logger: Final = logging.getLogger("ws_pool")
_AGAIN: Final = 0.2  # seconds after which a task that has not ended is cancelled once more
_TRIES: Final = 25


def is_cancelled(error: BaseException) -> bool:
    """
    Tell the cancellation of the present task from a `CancelledError` that something in it has raised.

    Args:
        error: What was caught.

    Returns:
        Whether the task must end.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:  # Any: whatever a task returns
    """
    Cancel tasks and wait until they have ended.

    A task may miss a cancellation: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    one that comes in the moment in which it is done. Such a task is cancelled again. One that still
    goes on after five seconds swallows cancellations on purpose: it is left alone, with an error in the log.

    Args:
        *tasks: The tasks; the present one is left out.
    """
    left = {task for task in tasks if not task.done() and task is not asyncio.current_task()}

    for _ in range(_TRIES):
        if not left:
            return

        for task in left:
            task.cancel()

        done, left = await asyncio.wait(left, timeout=_AGAIN)

        for task in done:
            if not task.cancelled():
                task.exception()  # nobody else asks for it

    for task in left:
        _logger.error("%s swallows its cancellation: it is left running", task.get_name())
