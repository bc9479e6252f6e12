"""Who wakes up when a task is due, and who looks after the runs.

All due times are in two heaps, one per clock: intervals follow the monotonic clock, crontabs and
dates the wall clock. One timer waits for the earlier of both, for 30 seconds at most, so that
a suspended machine or a clock that is set is noticed soon.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextvars import Context
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
import anyio.abc
from anyio.lowlevel import RunVar, checkpoint

from ws_core.errors import ClosedError, UsageError
from ws_tasks._checks import check_seconds
from ws_tasks._clock import Clock, SystemClock
from ws_tasks._execution import Instance
from ws_tasks._home import asyncio_loop, loop_marker, running_loop
from ws_tasks._plan import plan
from ws_tasks._runs import Runs
from ws_tasks._timeline import Timeline
from ws_tasks.interface import TaskEvent
from ws_tasks.triggers import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_tasks._task import ScheduledTask

__all__ = ("Scheduler", "current_scheduler")

logger: logging.Logger = logging.getLogger("ws_tasks")

_LONGEST_SLEEP = 30.0
_BATCH = 500
_CLEAN_UP = 5.0  # seconds for cancelled runs to end
_STEP = 1.0  # seconds by which the wall clock must jump to count as set
_CORRECTION = 3 * 3600.0  # Debian's cron: a larger step is a correction, all times start anew

_LEVELS = {  # failures are logged where they are reported, with their traceback
    "claimed_elsewhere": logging.DEBUG,
    "failed": logging.DEBUG,
    "timed_out": logging.DEBUG,
}

_default: RunVar[Scheduler | None] = RunVar("ws_tasks_default_scheduler", None)

_T = TypeVar("_T", bound="ScheduledTask")


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
        self.limiter: anyio.CapacityLimiter | None = None
        self.threads: set[Instance] = set()
        self._drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
        self._max_threads = max_threads
        self._on_event = on_event
        self._monotonic = Timeline()
        self._wall = Timeline()
        self._tasks: dict[ScheduledTask, None] = {}
        self.runs: Runs = Runs(self)
        self._group: anyio.abc.TaskGroup | None = None
        self._home: object = None
        self._wake: anyio.Event | None = None
        self._offset: float | None = None
        self._host: asyncio.Task[None] | None = None  # the reference keeps it alive
        self._closing = False

    def __repr__(self) -> str:
        state = "closed" if self._closing else "new" if self._home is None else "open"
        return f"<Scheduler {self.name!r} {state}, {len(self._tasks)} tasks>"

    async def __aenter__(self) -> Self:
        self._check_new()
        group = await self._open()
        group.start_soon(self._run, name=f"ws_tasks scheduler {self.name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        group = self._group
        assert group is not None  # noqa: S101 - __aenter__ has made it

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

    def add(self, task: _T) -> _T:
        """Start a task here and return it."""
        task.start(self)
        return task

    def tasks(self, tag: str | None = None) -> list[ScheduledTask]:
        """List the tasks that have not ended, all or those with a tag."""
        return [task for task in self._tasks if tag is None or task.tag == tag]

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

    async def close(self, timeout: float | None = None) -> tuple[str, ...]:  # noqa: ASYNC109 - a deadline for others
        """
        Stop all tasks, wait for the runs under way, then cancel those that are left.

        Args:
            timeout: Seconds to wait before cancelling; by default ``drain_timeout``.

        Returns:
            The ids of runs that did not end even so: functions in threads, which cannot be
            interrupted, and coroutines that refuse to be cancelled.
        """
        if self._home is not None:
            self.check_loop()

        self._closing = True
        patience = self._drain_timeout if timeout is None else timeout

        for task in list(self._tasks):
            task.stop()

        if _default.get(None) is self:
            _default.set(None)

        if self._wake is not None:
            self._wake.set()

        with anyio.CancelScope(shield=True):
            await self.runs.wait_idle(patience)
            self.runs.cancel_all()
            await self.runs.wait_idle(_CLEAN_UP)

            if self._host is not None and self._host is not asyncio.current_task():
                await asyncio.wait([self._host])

        leftovers = tuple(sorted(self.runs.ids() | {instance.run.id for instance in self.threads}))

        if leftovers:
            logger.warning("scheduler %r closed, but these runs go on: %s", self.name, ", ".join(leftovers))

        return leftovers

    # For tasks: check, enrol, schedule, launch.

    def check_loop(self) -> None:
        """Refuse the use from another event loop, thread or no loop at all."""
        if self._home is not running_loop() and self._home is not loop_marker():
            message = f"scheduler {self.name!r} belongs to another event loop: use it from its own"
            raise UsageError(message, scheduler=self.name)

    def check_usable(self) -> None:
        """Refuse the use before opening, after closing or from another event loop."""
        if self._home is None:
            message = f"scheduler {self.name!r} is not open: enter it with `async with`"
            raise UsageError(message, scheduler=self.name)

        self.check_loop()

        if self._closing:
            raise ClosedError(f"scheduler {self.name!r} is closed", scheduler=self.name)

    def now(self, trigger: Trigger) -> float:
        """Return the current moment on the trigger's clock."""
        return self.clock.time() if trigger.wall else self.clock.monotonic()

    def timestamp(self, trigger: Trigger, nominal: float) -> float:
        """Express a nominal time in seconds since the epoch."""
        return nominal if trigger.wall else nominal + self.clock.time() - self.clock.monotonic()

    def enrol(self, task: ScheduledTask, nominal: float | None) -> None:
        """Take a task in."""
        self._tasks[task] = None
        self.schedule(task, nominal)

    def schedule(self, task: ScheduledTask, nominal: float | None) -> None:
        """Wait for a task's next nominal time, or let it end."""
        task.nominal = nominal

        if nominal is None:
            self.end_if_done(task)
            return

        jitter = task.options.jitter
        task.shift = random.random() * jitter if jitter else 0.0
        timeline = self._timeline(task)

        if timeline.push(nominal + task.shift, task) and self._wake is not None:
            self._wake.set()

    def suspend(self, task: ScheduledTask) -> None:
        """Do not wait for a task any more; it stays a member."""
        self._timeline(task).discard(task)

    def dismiss(self, task: ScheduledTask) -> None:
        """Let a task go, with the runs in its queue."""
        self.suspend(task)

        self.runs.drop_queue(task)
        self.end_if_done(task)

    def end_if_done(self, task: ScheduledTask) -> None:
        """Let a task go that has nothing left to do."""
        if task.nominal is None and not task.active and not task.queue and task.state != "paused":
            task.state = "stopped"
            self._tasks.pop(task, None)

    def emit(self, event: TaskEvent) -> None:
        """Tell the watcher, or the log."""
        level = (
            logging.DEBUG if event.kind in {"claimed_elsewhere", "failed", "timed_out"} else logging.WARNING
        )
        logger.log(level, "task %r: %s: %s", event.task, event.kind, event.detail)

        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event of scheduler %r failed", self.name)

    # The timer.

    async def _run(self) -> None:
        while not self._closing:
            self._wake = anyio.Event()
            self._look_at_clock()

            if self._fire_due(_BATCH):
                await checkpoint()
            else:
                await self.clock.wait(self._wake, self._delay())

    def _delay(self) -> float:
        delay = _LONGEST_SLEEP

        if (due := self._monotonic.first()) is not None:
            delay = min(delay, due - self.clock.monotonic())

        if (due := self._wall.first()) is not None:
            delay = min(delay, due - self.clock.time())

        return max(delay, 0.0)

    def _fire_due(self, budget: int) -> bool:
        """Fire what is due, within a budget; tell whether something is left."""
        for timeline, read in ((self._monotonic, self.clock.monotonic), (self._wall, self.clock.time)):
            now = read()

            while (due := timeline.first()) is not None and due <= now:
                if not budget:
                    return True

                budget -= 1
                task = timeline.pop()

                try:
                    self._fire(task, now)
                except Exception as error:
                    # A trigger made by somebody else. It would fail again at once: end the task.
                    logger.exception("the trigger of task %r failed, the task has ended", task.name)
                    self.emit(TaskEvent("broken", task.name, repr(error), error=error))
                    task.state = "stopped"
                    task.nominal = None
                    self.end_if_done(task)

        return False

    def _fire(self, task: ScheduledTask, now: float) -> None:
        trigger, nominal, options = task.trigger, task.nominal, task.options
        assert trigger is not None and nominal is not None  # noqa: S101, PT018 - only such tasks are in a heap

        decision = plan(
            trigger,
            nominal,
            now - task.shift,
            latest=options.coalesce == "latest",
            grace=options.misfire_grace,
        )
        timestamp = self.timestamp(trigger, nominal if decision.nominal is None else decision.nominal)

        if decision.coalesced:
            task.counters.coalesced += decision.coalesced
            detail = f"{decision.coalesced} earlier runs were due too and are passed over"
            scheduled_at = datetime.fromtimestamp(timestamp, UTC)
            self.emit(TaskEvent("coalesced", task.name, detail, scheduled_at))

        if decision.nominal is None:
            task.counters.late += 1
            detail = f"{decision.late:.3g} s late, more than misfire_grace={options.misfire_grace}"
            scheduled_at = datetime.fromtimestamp(timestamp, UTC)
            self.emit(TaskEvent("skipped_late", task.name, detail, scheduled_at))
        else:
            self.runs.launch(task, timestamp)

        self.schedule(task, decision.following)

    def _look_at_clock(self) -> None:
        """
        Notice when the wall clock was set.

        Set forward, what became due is late and runs. Set back, tasks that follow elapsed time
        go on from the new time, and fixed times that ran already do not run again, unless the
        step is so large that it corrects a wrong date.
        """
        offset = self.clock.time() - self.clock.monotonic()
        step = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset

        if abs(step) < _STEP:
            return

        self.emit(TaskEvent("clock_step", "", f"the wall clock went {step:+.3f} s"))

        if step > 0:
            return

        now = self.clock.time()

        for task in list(self._wall):
            trigger = task.trigger

            if trigger is not None and (trigger.elapsed or step <= -_CORRECTION):
                self._wall.discard(task)
                self.schedule(task, trigger.after(now))

    def _timeline(self, task: ScheduledTask) -> Timeline:
        return self._wall if task.trigger is not None and task.trigger.wall else self._monotonic

    def statistics(self) -> dict[str, int]:
        """Count tasks, runs under way and busy threads."""
        return {"tasks": len(self._tasks), "running": len(self.runs), "threads": len(self.threads)}

    def start(self) -> None:
        """
        Open without a block, in a background task of the running loop, until `close` is called.

        Raises:
            UsageError: It is open already, or no event loop is running.
            ClosedError: It was closed.
        """
        self._check_new()
        home = loop_marker()

        if home is None:
            raise UsageError("a scheduler is started from a coroutine: no event loop is running here")

        self._home = home  # tasks may be added before the first turn

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

    def _check_new(self) -> None:
        if self._closing:
            raise ClosedError(f"scheduler {self.name!r} was closed: make a new one", scheduler=self.name)

        if self._home is not None:
            raise UsageError(f"scheduler {self.name!r} is open already", scheduler=self.name)

    async def _open(self) -> anyio.abc.TaskGroup:
        self._home = loop_marker()
        self._wake = anyio.Event()
        self.limiter = anyio.CapacityLimiter(self._max_threads)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.runs.open(self._group)

        if _default.get(None) is None:
            _default.set(self)

        return self._group

    async def _serve(self) -> None:
        """Run until `close` is called from elsewhere, or the loop ends."""
        await self._open()

        try:
            await self._run()
        finally:
            await self.__aexit__(None, None, None)


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
