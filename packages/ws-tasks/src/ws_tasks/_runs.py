"""The runs under way: beginning, queueing, looking after, draining."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from ws_tasks._execution import Instance, execute
from ws_tasks.interface import Run, TaskEvent

if TYPE_CHECKING:
    from ws_tasks._task import ScheduledTask
    from ws_tasks.scheduler import Scheduler

__all__ = ("Runs",)


class Runs:
    """
    The runs under way of one scheduler.

    Args:
        scheduler: Whose they are.
    """

    __slots__ = ("_backlog", "_group", "_idle", "_instances", "_scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._instances: set[Instance] = set()
        self._backlog: list[tuple[ScheduledTask, Instance]] = []
        self._group: anyio.abc.TaskGroup | None = None
        self._idle: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._instances)

    def open(self, group: anyio.abc.TaskGroup) -> None:
        """Begin what was launched before the scheduler's first turn."""
        self._group = group

        for task, instance in self._backlog:
            group.start_soon(self._look_after, task, instance)

        self._backlog.clear()

    def launch(self, task: ScheduledTask, scheduled_at: datetime) -> Instance | None:
        """Begin a run, or do what the task's overlap rule says when it cannot begin."""
        instance = Instance(Run(task.name, scheduled_at), task.args, task.kwargs)
        options = task.options

        if len(task.active) < options.max_instances:
            self.begin(task, instance)
            return instance

        if task.queue is None:
            task.queue = deque()

        if options.overlap == "cancel_previous":
            self.drop_queue(task)

            for previous in task.active:
                previous.scope.cancel()
        elif options.overlap == "skip" or len(task.queue) >= options.max_queued:
            task.counters.overlap += 1
            detail = "the run before has not ended"
            self._scheduler.emit(TaskEvent("skipped_overlap", task.name, detail, scheduled_at))
            return None

        task.queue.append(instance)
        return instance

    def drop_queue(self, task: ScheduledTask) -> None:
        """Cancel the runs that wait for an earlier one to end."""
        while task.queue:
            self._cancelled(task, task.queue.popleft())

    def cancel_all(self) -> None:
        """Cancel the runs under way."""
        for instance in list(self._instances):
            instance.scope.cancel()

    def ids(self) -> set[str]:
        """Return the ids of the runs under way."""
        return {instance.run.id for instance in self._instances}

    async def wait_idle(self, patience: float) -> None:
        """Wait until no run is under way, for some seconds at most."""
        if self._instances:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()

            with anyio.move_on_after(patience):
                await self._idle.wait()

    def begin(self, task: ScheduledTask, instance: Instance) -> None:
        """Begin a run now, whatever else is under way."""
        task.active.append(instance)
        self._instances.add(instance)

        if self._group is None:
            self._backlog.append((task, instance))
        else:
            self._group.start_soon(self._look_after, task, instance)

    async def _look_after(self, task: ScheduledTask, instance: Instance) -> None:
        scheduler, counters = self._scheduler, task.counters
        began = scheduler.clock.monotonic()
        counters.started += 1
        completed = False

        try:
            with instance.scope:
                await execute(scheduler, task, instance)
                completed = True
        finally:
            counters.last_duration = scheduler.clock.monotonic() - began
            task.active.remove(instance)
            self._instances.discard(instance)

            if completed:
                instance.finish()
            else:
                self._cancelled(task, instance)

            if task.queue and len(task.active) < task.options.max_instances:
                self.begin(task, task.queue.popleft())

            scheduler.end_if_done(task)

            if not self._instances and self._idle is not None:
                self._idle.set()

    def _cancelled(self, task: ScheduledTask, instance: Instance) -> None:
        task.counters.cancelled += 1
        instance.cancelled = True
        detail = "the run was cancelled"
        self._scheduler.emit(TaskEvent("cancelled", task.name, detail, instance.run.scheduled_at))
        instance.finish()
