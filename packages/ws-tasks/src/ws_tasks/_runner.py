"""The runs under way: begin, queue, supervise, drain."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque

import anyio
import anyio.abc

from ws_tasks._event_loop import asyncio_loop
from ws_tasks._instance import Instance, ManagedTask, RunHost
from ws_tasks._run import execute
from ws_tasks.interface import TaskEvent

__all__ = ("Runner",)


class Runner:
    """
    The runs under way of one scheduler.

    On asyncio each is a plain task, which is several times cheaper than a member of a task group;
    this class does what the group would do. On trio they are members of a group.
    """

    __slots__ = ("_backlog", "_context", "_group", "_host", "_idle", "_instances", "_loop")

    def __init__(self, host: RunHost) -> None:
        self._host = host
        self._instances: set[Instance] = set()
        self._backlog: list[Instance] = []
        self._context: contextvars.Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._idle: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._instances)

    def open(self, group: anyio.abc.TaskGroup) -> None:
        """Begin what was launched before the scheduler's first turn."""
        self._context = contextvars.copy_context()
        self._loop = asyncio_loop()
        self._group = group

        for instance in self._backlog:
            self._spawn(instance)

        self._backlog.clear()

    def launch(self, task: ManagedTask, timestamp: float) -> Instance | None:
        """Begin a run, or do what the task's overlap rule says when it cannot begin."""
        instance = Instance(task, timestamp)
        options = task.options

        if len(task.active) < options.max_instances:
            self.begin(instance)
            return instance

        if task.queue is None:
            task.queue = deque()

        if options.overlap == "cancel_previous":
            self.drop_queue(task)

            for previous in task.active:
                previous.cancel()
        elif options.overlap == "skip" or len(task.queue) >= options.max_queued:
            task.counters.overlap += 1
            detail = "the run before has not ended"
            self._host.emit(TaskEvent("skipped_overlap", task.name, detail, instance.run.scheduled_at))
            return None

        task.queue.append(instance)
        return instance

    def begin(self, instance: Instance) -> None:
        """Begin a run now, whatever else is under way."""
        instance.task.active += (instance,)
        self._instances.add(instance)

        if self._context is None:
            self._backlog.append(instance)
        else:
            self._spawn(instance)

    def drop_queue(self, task: ManagedTask) -> None:
        """Cancel the runs that wait for an earlier one to end."""
        while task.queue:
            self._cancelled(task.queue.popleft())

    def cancel_all(self) -> None:
        """Cancel the runs under way."""
        for instance in self._instances:
            instance.cancel()

    def ids(self) -> set[str]:
        """Return the ids of the runs under way."""
        return {instance.run.id for instance in self._instances}

    async def wait_idle(self, seconds: float) -> None:
        """Wait until no run is under way, for some seconds at most."""
        if self._loop is not None:
            # A task that the loop cancelled before its first step never reaches its `finally`.
            for instance in [i for i in self._instances if i.handle is None or i.handle.done()]:
                self._ended(instance, completed=False)

        if self._instances:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()

            with anyio.move_on_after(seconds):
                await self._idle.wait()

    def _spawn(self, instance: Instance) -> None:
        """Give a run a task, in a copy of the scheduler's own context."""
        assert self._context is not None and self._group is not None  # noqa: S101, PT018 - open() has set both
        context = self._context.copy()

        if self._loop is not None:
            instance.handle = self._loop.create_task(self._supervise(instance), context=context)
        else:
            instance.scope = anyio.CancelScope()
            context.run(self._group.start_soon, self._supervise, instance)

    async def _supervise(self, instance: Instance) -> None:
        clock = self._host.clock
        counters = instance.task.counters
        counters.started += 1
        began = clock.monotonic()
        completed = False

        try:
            if instance.scope is not None:
                with instance.scope:
                    await execute(self._host, instance)
                    completed = True
            elif not instance.cancel_called:
                await execute(self._host, instance)
                completed = True
        except asyncio.CancelledError:
            if not instance.cancel_called:
                raise
        finally:
            counters.last_duration = clock.monotonic() - began
            self._ended(instance, completed=completed)

    def _ended(self, instance: Instance, *, completed: bool) -> None:
        task = instance.task
        task.active = tuple(other for other in task.active if other is not instance)
        self._instances.discard(instance)

        if completed:
            instance.finish()
        else:
            self._cancelled(instance)

        if task.queue and len(task.active) < task.options.max_instances:
            self.begin(task.queue.popleft())

        self._host.remove_if_finished(task)

        if not self._instances and self._idle is not None:
            self._idle.set()

    def _cancelled(self, instance: Instance) -> None:
        task = instance.task
        task.counters.cancelled += 1
        instance.cancelled = True
        detail = "the run was cancelled"
        self._host.emit(TaskEvent("cancelled", task.name, detail, instance.run.scheduled_at))
        instance.finish()
