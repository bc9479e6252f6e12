"""The tasks and timers of a pool, and how tasks are cancelled for certain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, cast

from ws_pool._core.pool_state import PoolEntry
from ws_pool._core.tracing import background

logger: Final = logging.getLogger("ws_pool")

T = TypeVar("T")

_AGAIN: Final = 0.2  # seconds after which a task that has not ended is cancelled once more
_TRIES: Final = 25


class TaskSet(set["asyncio.Task[Any]"]):  # Any: whatever the tasks return
    """Tasks beside everything else. A loop holds its tasks weakly, so the set holds them until they end."""

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Begin a task in the running loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.add(task)
        task.add_done_callback(self.discard)
        return task


class BackgroundTasks(Generic[T]):
    """
    The tasks in which one pool does its I/O. They run in a context of their own, not in a user's.

    ``lost`` is called with the connection of a task that was cancelled before its first step.
    """

    def __init__(self, timers: Timers, lost: Callable[[PoolEntry[T]], None]) -> None:
        self._timers = timers
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[None]] = set()  # those of them that open a connection
        self._hooks: set[asyncio.Task[Any]] = set()
        self._unstarted: dict[PoolEntry[T], object] = {}  # connections whose task has not begun yet

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, object, None], entry: PoolEntry[T] | None = None) -> None:
        """Begin a task that works on ``entry``, and calls `started` first, or that opens a connection."""
        # A task that is cancelled before its first step never runs its `finally`: its connection
        # would be lost. The mark shows whether it has begun; it is an object of this very call,
        # because the same connection may have a new task by the time this one is done.
        mark = object()

        if entry is not None:
            self._unstarted[entry] = mark  # before the task exists: an eager one begins at once

        task = self._timers.loop.create_task(work, context=background())
        self._tasks.add(task)

        if entry is None:
            self._connects.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connects.discard(task)

            if entry is not None and self._unstarted.get(entry) is mark:
                del self._unstarted[entry]
                self._lost(entry)

        task.add_done_callback(done)

    def spawn_hook(self, work: Coroutine[object, object, object]) -> None:
        """Begin a task that no connection depends on."""
        if self._timers.loop.is_closed():
            work.close()
            return

        task = self._timers.loop.create_task(work, context=background())
        self._hooks.add(task)
        task.add_done_callback(self._hooks.discard)

    def started(self, entry: PoolEntry[T]) -> None:
        """Record that the task of a connection has begun, and takes care of it from now on."""
        self._unstarted.pop(entry, None)

    def cancel_connects(self) -> None:
        """Cancel the tasks that open a connection."""
        self._cancel(self._connects)

    def cancel_all(self) -> list[asyncio.Task[Any]]:
        """Cancel all tasks, but not those of hooks, and return both to be waited for."""
        tasks = [*self._tasks, *self._hooks]
        self._cancel(self._tasks)
        return tasks

    def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        if not self._timers.loop.is_closed():
            for task in tasks:
                self._timers.loop.call_soon(task.cancel)  # each has begun by then, and cleans up


class Timers:
    """Named timers of one loop, and the clock of the pool."""

    def __init__(self) -> None:
        self.loop = cast("asyncio.AbstractEventLoop", None)  # set by start, before anything else runs
        self.now: Callable[[], float] = float
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def start(self, clock: Callable[[], float] | None) -> None:
        """Belong to the running loop from now on; the clock is `time.monotonic` by default."""
        self.loop = asyncio.get_running_loop()
        self.now = clock or time.monotonic

    def set(self, name: str, delay: float, action: Callable[[], None]) -> None:
        """Call ``action`` in ``delay`` seconds, in place of an earlier timer of that name."""

        def run() -> None:
            del self._handles[name]  # first, so that the action can set its timer again
            action()

        if (earlier := self._handles.pop(name, None)) is not None:
            earlier.cancel()

        self._handles[name] = self.loop.call_later(delay, run)

    def stop(self) -> None:
        """Cancel all timers."""
        for handle in self._handles.values():
            handle.cancel()

        self._handles.clear()


def is_cancelled(error: BaseException) -> bool:
    """Return whether the running task itself is cancelled, not something that it awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:  # Any: whatever a task returns
    """
    Cancel tasks, other than the running one, and wait until they have ended.

    A task may miss a cancellation: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    one that comes in the moment in which it is done. Such a task is cancelled again. One that still
    goes on after five seconds swallows cancellations on purpose: it is left alone, with an error in the log.
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
                task.exception()  # retrieved here, or asyncio would log it

    for task in left:
        logger.error("%s swallows its cancellation: it is left running", task.get_name())
