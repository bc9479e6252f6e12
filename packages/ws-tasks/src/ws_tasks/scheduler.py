"""The scheduler: its life, its tasks, and what its parts need of it.

When a task is due is decided by `ws_tasks._timer`, how a run begins and ends by `ws_tasks._runner`,
and what happens in a run by `ws_tasks._run`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextvars import Context
from datetime import datetime
from typing import Protocol, Self, TypeVar

import anyio
import anyio.abc
from anyio.lowlevel import RunVar

from ws_core.errors import ClosedError, UsageError
from ws_tasks._clock import Clock, SystemClock
from ws_tasks._event_loop import asyncio_loop, loop_marker, running_loop
from ws_tasks._instance import Instance, ManagedTask, Watched
from ws_tasks._report import Report, ReportedTask
from ws_tasks._runner import Runner
from ws_tasks._threads import ThreadPool
from ws_tasks._timer import Timer
from ws_tasks._validation import check_seconds
from ws_tasks.interface import TaskEvent

__all__ = ("Scheduler", "current_scheduler")

logger: logging.Logger = logging.getLogger("ws_tasks")

_CLEAN_UP = 5.0  # seconds for cancelled runs to end
_QUIET = frozenset({"claimed_elsewhere", "failed", "timed_out"})
_LOOK_AGAIN = 0.05  # seconds after the end of another process's claim

_default: RunVar[Scheduler | None] = RunVar("ws_tasks_default_scheduler", None)


class SchedulableTask(ManagedTask, ReportedTask, Protocol):
    """A task that can be added to a scheduler; `ws_tasks.tasks` has the classes."""

    @property
    def running(self) -> bool:
        """Whether the task has been started and has not ended."""
        ...

    @property
    def next_run_time(self) -> datetime | None:
        """The next nominal time, or None when paused, stopped or exhausted."""
        ...

    def start(self, scheduler: Scheduler) -> None:
        """Begin to make runs."""

    def stop(self) -> Awaitable[None]:
        """Make no more runs; await the result to wait for those under way."""
        ...

    def pause(self) -> None:
        """Make no runs until resumed."""

    def resume(self) -> None:
        """Make runs again."""

    def run_now(self) -> Awaitable[None]:
        """Make a run beside the schedule; await the result to wait for its end."""
        ...


_T = TypeVar("_T", bound=SchedulableTask)


class Scheduler:
    """
    Makes the runs of tasks when they are due.

    There is one per event loop without any doing: ``task.start()`` finds or begins it. Open one
    yourself to decide when it ends: leaving the block stops all tasks, waits up to
    ``drain_timeout`` for the runs under way, then cancels them. On its loop, the first scheduler
    opened is also the one that ``task.start()`` finds.

    Args:
        name: For messages.
        drain_timeout: Seconds that `close` waits for runs before it cancels them.
        max_threads: How many plain functions may run at once.
        on_event: Called with each `TaskEvent`, in the loop; must not block.
        clock: The time; only tests need another.

    Example:
        ```python
        from ws_tasks import IntervalTask, Scheduler

        async with Scheduler() as scheduler:
            task = scheduler.add(IntervalTask(60, print, "tick"))
            await task.run_now()
            assert task.statistics().succeeded == 1
        ```
    """

    def __init__(
        self,
        *,
        name: str = "default",
        drain_timeout: float = 10.0,
        max_threads: int = 40,
        on_event: Callable[[TaskEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.clock: Clock = SystemClock() if clock is None else clock
        self.threads: set[Instance] = set()
        self._drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
        self.pool: ThreadPool = ThreadPool(max_threads)
        self._on_event = on_event
        self._tasks: dict[ManagedTask, SchedulableTask] = {}
        self._report = Report(self._tasks)
        self._claimers: dict[str, tuple[ManagedTask, str]] = {}  # guarded tasks by name
        self.runs: Runner = Runner(self)
        self.timer: Timer = Timer(self)
        self._group: anyio.abc.TaskGroup | None = None
        self._loop: object = None
        self._host: asyncio.Task[None] | None = None  # the reference keeps it alive
        self._closing = False

    def __repr__(self) -> str:
        state = "closed" if self._closing else "new" if self._loop is None else "open"
        return f"<Scheduler {self.name!r} {state}, {len(self._tasks)} tasks>"

    async def __aenter__(self) -> Self:
        self._check_new()
        group = await self._open()
        group.start_soon(self._follow_timer, name=f"ws_tasks scheduler {self.name}")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        group = self._group
        assert group is not None

        try:
            await self.close()
        finally:
            # Nothing of the body's error goes to the group, which would wrap it into another.
            group.cancel_scope.shield = True
            await group.__aexit__(None, None, None)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closing

    def start(self) -> None:
        """
        Open without a block, in a background task of the running loop, until `close` is called.

        Raises:
            UsageError: It is open already, or no event loop is running.
            ClosedError: It was closed.
        """
        self._check_new()
        loop_id = loop_marker()

        if loop_id is None:
            raise UsageError("a scheduler is started from a coroutine: no event loop is running here")

        self._loop = loop_id  # tasks may be added before the first turn

        if _default.get(None) is None:
            _default.set(self)

        # The background task gets no context, rather than that of whoever happened to come first.
        loop = asyncio_loop()

        if loop is None:
            import trio  # noqa: PLC0415 - the running loop is trio's

            trio.lowlevel.spawn_system_task(self._serve, name="ws_tasks", context=Context())
        else:
            self._host = loop.create_task(self._serve(), name="ws_tasks", context=Context())
            self._host.add_done_callback(_report_end)

    def add(self, task: _T) -> _T:
        """Start a task here and return it."""
        task.start(self)
        return task

    def tasks(self, tag: str | None = None) -> list[SchedulableTask]:
        """List the tasks that have not ended, all or those with a tag."""
        return [task for task in self._tasks.values() if tag is None or task.tag == tag]

    def stop(self, tag: str | None = None) -> None:
        """Stop all tasks, or those with a tag."""
        for task in self.tasks(tag):
            task.stop()

    def pause(self, tag: str | None = None) -> None:
        """Pause all tasks, or those with a tag."""
        for task in self.tasks(tag):
            task.pause()

    def resume(self, tag: str | None = None) -> None:
        """Resume all paused tasks, or those with a tag."""
        for task in self.tasks(tag):
            task.resume()

    async def close(self, timeout: float | None = None) -> tuple[str, ...]:
        """
        Stop all tasks, wait for the runs under way, then cancel those that are left.

        Args:
            timeout: Seconds to wait before cancelling; by default ``drain_timeout``.

        Returns:
            The ids of runs that did not end even so: functions in threads, which cannot be
            interrupted, and coroutines that refuse to be cancelled.
        """
        if self._loop is not None:
            self.check_loop()

        self._closing = True
        drain_timeout = self._drain_timeout if timeout is None else timeout

        for task in self.tasks():
            task.stop()

        if _default.get(None) is self:
            _default.set(None)

        self.timer.wake()

        with anyio.CancelScope(shield=True):
            await self.runs.wait_idle(drain_timeout)
            self.runs.cancel_all()
            await self.runs.wait_idle(_CLEAN_UP)

            if self._host is not None and self._host is not asyncio.current_task():
                await asyncio.wait([self._host])

        self.pool.close()
        leftovers = tuple(sorted(self.runs.ids() | {instance.run.id for instance in self.threads}))

        if leftovers:
            logger.warning("scheduler %r closed, but these runs go on: %s", self.name, ", ".join(leftovers))

        return leftovers

    # For tasks and runs.

    def check_loop(self) -> None:
        """Refuse the use from another event loop, another thread or no loop at all."""
        # A trio that is a guest in asyncio has a marker of its own, and callbacks of asyncio run
        # beside any task: either of the two may be the scheduler's.
        if self._loop is not running_loop() and self._loop is not loop_marker():
            message = f"scheduler {self.name!r} belongs to another event loop: use it from its own"
            raise UsageError(message, scheduler=self.name)

    def check_usable(self, task: ManagedTask | None = None) -> None:
        """Refuse the use before opening, after closing or from another event loop, and a name twice."""
        if self._loop is None:
            message = f"scheduler {self.name!r} is not open: enter it with `async with`"
            raise UsageError(message, scheduler=self.name)

        self.check_loop()

        if self._closing:
            raise ClosedError(f"scheduler {self.name!r} is closed", scheduler=self.name)

        if task is not None and task.options.guard is not None:
            known = self._claimers.get(task.name)

            if known is not None and known[0] is not task:
                # Each would take the other's runs for its own, made by another process.
                message = f"scheduler {self.name!r} has a guarded task named {task.name!r} already"
                raise UsageError(f"{message}: give each its own name", task=task.name)

    def register(self, task: _T, nominal: float | None) -> None:
        """Add a task and wait for its first nominal time."""
        self._tasks[task] = task

        if task.options.guard is not None:
            # Another one after each start: what the task did before is not what it does now.
            self._claimers[task.name] = task, secrets.token_hex(8)

        if task.options.catch_up is not None:
            self.runs.catch_up(task, self.clock.time())  # first: a task with nothing else to do would end

        self.timer.schedule(task, nominal)

        if task.options.leased:
            self.runs.adopt(task)

    def remove(self, task: ManagedTask) -> None:
        """Stop a task's schedule and cancel the runs in its queue."""
        self.timer.unschedule(task)
        self.runs.drop_queue(task)
        self.runs.forget_watched(task)
        self.remove_if_finished(task)

    def remove_if_finished(self, task: ManagedTask) -> None:
        """Remove a task that has nothing left to do."""
        if task.nominal is not None or task.active or task.queue or task.state == "paused":
            return

        if self.runs.watches(task):
            return

        task.state = "stopped"
        self._tasks.pop(task, None)

        if task.options.guard is not None and self._claimers.get(task.name, (None,))[0] is task:
            del self._claimers[task.name]

    def launch(self, task: ManagedTask, timestamp: float) -> Instance | None:
        """Make a run for a nominal time, by the task's rule for overlap."""
        return self.runs.launch(task, timestamp)

    def claimer_of(self, task: ManagedTask) -> str:
        """Return the name under which a guarded task claims its runs since it was started."""
        known = self._claimers.get(task.name)
        return "" if known is None or known[0] is not task else known[1]

    def watch(self, watched: Watched, seconds: float) -> None:
        """Look again after a while whether a run that another process has claimed was made."""
        if not self._closing and watched.task.state != "stopped" and self.runs.watch(watched):
            self.timer.watch(watched, seconds + _LOOK_AGAIN)

    def look_again(self, watched: Watched) -> None:
        """Take over a run that another process has claimed, if its claim has ended."""
        if watched.task.state == "paused":
            self.timer.watch(watched, watched.task.options.claim_ttl)
            return

        self.runs.look_again(watched)
        self.remove_if_finished(watched.task)

    def emit(self, event: TaskEvent) -> None:
        """Report an event to `on_event` and to the log."""
        # Failures are logged in full, with their traceback, where they are reported.
        level = logging.DEBUG if event.kind in _QUIET else logging.WARNING
        logger.log(level, "task %r: %s: %s", event.task, event.kind, event.detail)

        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event of scheduler %r failed", self.name)

    def _check_new(self) -> None:
        if self._closing:
            raise ClosedError(f"scheduler {self.name!r} was closed: make a new one", scheduler=self.name)

        if self._loop is not None:
            raise UsageError(f"scheduler {self.name!r} is open already", scheduler=self.name)

    async def _open(self) -> anyio.abc.TaskGroup:
        self._loop = loop_marker()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.runs.open(self._group)

        if _default.get(None) is None:
            _default.set(self)

        return self._group

    async def _follow_timer(self) -> None:
        while not self._closing:
            await self.timer.turn()

    async def _serve(self) -> None:
        """Run until `close` is called from elsewhere, or the loop ends."""
        await self._open()

        try:
            await self._follow_timer()
        finally:
            await self.__aexit__()

    def statistics(self) -> dict[str, int]:
        """Count tasks, runs under way and busy threads."""
        return {"tasks": len(self._tasks), "running": len(self.runs), "threads": len(self.threads)}


def _report_end(host: asyncio.Task[None]) -> None:
    if not host.cancelled() and (error := host.exception()) is not None:
        logger.critical("the scheduler of this loop has died, no task runs any more", exc_info=error)


def current_scheduler() -> Scheduler:
    """
    Return the running event loop's scheduler, and begin it when there is none.

    Raises:
        UsageError: No event loop is running.
    """
    if loop_marker() is None:
        raise UsageError("a task is started from a coroutine: no event loop is running here")

    found = _default.get(None)

    if found is None:
        found = Scheduler()
        found.start()

    return found
