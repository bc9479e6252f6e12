"""The runs under way: begin, queue, supervise, drain."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque

import anyio
import anyio.abc

from ws_tasks._catch_up import missed_runs, note_run
from ws_tasks._event_loop import asyncio_loop
from ws_tasks._guarded import execute_guarded
from ws_tasks._instance import Instance, ManagedTask, RunHost, Watched
from ws_tasks._run import execute
from ws_tasks.interface import TaskEvent


class Runner:
    """
    The runs under way of one scheduler.

    On asyncio each is a plain task, which is several times cheaper than a member of a task group;
    this class does what the group would do. On trio they are members of a group.
    """

    __slots__ = ("_backlog", "_context", "_group", "_host", "_idle", "_instances", "_loop", "_watched")

    def __init__(self, host: RunHost) -> None:
        self._host = host
        self._instances: set[Instance] = set()
        self._backlog: list[Instance] = []
        self._context: contextvars.Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._idle: anyio.Event | None = None
        self._watched: dict[ManagedTask, set[tuple[float | None, int, str]]] = {}

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

        # A run that waits for its guard does no work yet, and may end as another process's. Those
        # that become due meanwhile, such as while the guard's server restarts, are not skipped.
        waits_for_guard = any(previous.claiming for previous in task.active)

        if options.overlap == "cancel_previous":
            self.drop_queue(task)

            for previous in (found for found in task.active if found.purpose != "catch_up"):
                previous.superseded = True
                previous.interrupt()
        elif (options.overlap == "skip" and not waits_for_guard) or len(
            task.queue or ()
        ) >= options.max_queued:
            task.counters.overlap += 1
            detail = "the run before has not ended"
            self._host.emit(TaskEvent("skipped_overlap", task.name, detail, instance.run.scheduled_at))
            return None

        _put_in_queue(instance)
        return instance

    def adopt(self, task: ManagedTask) -> None:
        """Search for runs of a task that were claimed and left when no process was there."""
        self.begin(Instance(task, self._host.clock.time(), "adopt"))

    def catch_up(self, task: ManagedTask, started: float) -> None:
        """Search for runs of a task that were missed before it was started."""
        self.begin(Instance(task, started, "catch_up"))

    def watch(self, watched: Watched) -> bool:
        """Remember a run that another process has claimed; return whether it is a new one."""
        known = self._watched.setdefault(watched.task, set())
        before = len(known)
        known.add((watched.timestamp, watched.repeat, watched.purpose))
        return len(known) > before

    def watches(self, task: ManagedTask) -> bool:
        """Return whether another process has claimed a run that would be taken over here."""
        return task in self._watched

    def look_again(self, watched: Watched) -> None:
        """Take over a run that another process has claimed, if its claim has ended."""
        task, key = watched.task, (watched.timestamp, watched.repeat, watched.purpose)
        known = self._watched.get(task)

        if known is None or key not in known:
            return  # the task was stopped meanwhile

        known.discard(key)

        if not known:
            del self._watched[task]

        if watched.timestamp is None:
            self.adopt(task)
            return

        if watched.purpose == "catch_up":
            self.catch_up(task, watched.timestamp)
            return

        instance = Instance(task, watched.timestamp, "take_over", watched.repeat)

        if len(task.active) < task.options.max_instances:
            self.begin(instance)
        else:
            # Whatever the rule for overlap: this run was due in time, and nobody else may be left.
            _put_in_queue(instance)

    def begin(self, instance: Instance) -> None:
        """Begin a run now, whatever else is under way."""
        instance.task.active += (instance,)
        self._instances.add(instance)

        if self._context is None:
            self._backlog.append(instance)
        else:
            self._spawn(instance)

    def forget_watched(self, task: ManagedTask) -> None:
        """Leave the runs that other processes have claimed to them."""
        self._watched.pop(task, None)

    def drop_queue(self, task: ManagedTask) -> None:
        """Cancel the runs that wait for an earlier one to end."""
        while task.queue:
            self._cancelled(task.queue.popleft())

    def cancel_all(self) -> None:
        """Cancel the runs under way."""
        for instance in self._instances:
            instance.interrupt()

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
        """Start a task for a run, in a copy of the scheduler's own context."""
        assert self._context is not None and self._group is not None  # open() has set both
        context = self._context.copy()

        if self._loop is not None:
            instance.handle = self._loop.create_task(self._supervise(instance), context=context)
        else:
            instance.scope = anyio.CancelScope()
            context.run(self._group.start_soon, self._supervise, instance)

    async def _supervise(self, instance: Instance) -> None:
        clock = self._host.clock
        task = instance.task
        began = clock.monotonic()

        if instance.purpose == "run":
            task.started += 1

        completed = False

        try:
            if instance.scope is not None:
                with instance.scope:
                    await self._execute(instance)
                    completed = True
            elif not instance.cancel_called:
                await self._execute(instance)
                completed = True
        except asyncio.CancelledError:
            if not instance.cancel_called:
                raise
        finally:
            if instance.purpose == "run":
                task.last_duration = clock.monotonic() - began

            self._ended(instance, completed=completed)

    async def _execute(self, instance: Instance) -> None:
        options = instance.task.options

        if instance.purpose == "catch_up":
            for timestamp in await missed_runs(self._host, instance):
                self.launch(instance.task, timestamp)

            return

        if options.guard is None:
            await execute(self._host, instance)
        else:
            await execute_guarded(self._host, instance)

        # A run that another process makes is noted by that one.
        if options.run_store is not None and instance.purpose == "run" and not instance.claimed_elsewhere:
            await note_run(self._host, instance)

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
        instance.cancelled = True

        if instance.purpose == "run":
            task, detail = instance.task, "the run was cancelled"
            task.counters.cancelled += 1
            self._host.emit(TaskEvent("cancelled", task.name, detail, instance.run.scheduled_at))

        instance.finish()


def _put_in_queue(instance: Instance) -> None:
    task = instance.task
    task.queue = deque() if task.queue is None else task.queue  # most of many tasks never need one
    task.queue.append(instance)
