"""
Jobs: functions declared once, handed to an engine by a call, run by whichever engine is open.

A `task` is declared with how it is to be run; ``enqueue`` hands a call to the engine of the running
loop. `LocalEngine` runs jobs in this process. Arguments must be JSON and arrive as JSON makes them
(tuples as lists), so that nothing changes when an engine in other processes takes over.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, Self

import anyio

from ws_core.errors import UsageError
from ws_tasks._clock import Clock
from ws_tasks._declaring import task
from ws_tasks._definitions import (
    Call,
    Declaration,
    Engine,
    Group,
    Priority,
    TaskDefinition,
    current_engine,
    group,
)
from ws_tasks._engine_base import EngineBase
from ws_tasks._instance import current_instance
from ws_tasks._job_handles import Job, JobGroup, JobStatus
from ws_tasks._jobs import JobQueue, LocalJob
from ws_tasks._options import TaskOptions
from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.interface import Guard, RunStore, TaskEvent
from ws_tasks.observe import enqueuing
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import OnceTask

__all__ = (
    "Call",
    "Declaration",
    "Engine",
    "Group",
    "Job",
    "JobGroup",
    "JobStatus",
    "LocalEngine",
    "Priority",
    "TaskDefinition",
    "group",
    "task",
)

logger: logging.Logger = logging.getLogger("ws_tasks")

_SCHEDULE = "schedule"
_MANY = 1_000_000  # jobs of a schedule that are waited for; the queue bounds them much earlier

for _public in (Call, Declaration, Engine, Group, Job, JobGroup, TaskDefinition, group, task):
    _public.__module__ = __name__


class LocalEngine(EngineBase):
    """
    Runs jobs in this process, so many at once; the others wait in a queue.

    Results are JSON like arguments, as when another process had made them. A job may enqueue others,
    which have room beside the bound, and may wait for their results, which lets another job run in
    its place: neither waits for itself.

    Leaving the block stops taking jobs, cancels those that are not due yet, waits up to
    ``drain_timeout`` for those that are queued and running, then cancels them. Results are kept with
    the job that ``enqueue`` returned, whatever the task's ``result_ttl``.

    Args:
        tasks: The tasks whose schedules are to be followed; others may be enqueued too.
        concurrency: How many jobs run at once.
        max_queued: How many may wait; ``enqueue`` then waits for room, but for jobs that enqueue.
        drain_timeout: Seconds to wait for jobs at the end.
        guard: Decides which of several processes makes a scheduled run; see `Guard`. The claim is
            kept while the job is queued and runs.
        run_store: Notes the last run of scheduled tasks with ``catch_up``; see `RunStore`.
        on_event: Called with each `TaskEvent`.
        clock: The time; only tests need another.

    Raises:
        ScheduleError: An option is wrong, or two tasks have one name.

    Example:
        ```python
        from ws_tasks import LocalEngine, task

        @task("price")
        async def price(item: str) -> str:
            return f"{item}: 5"

        async with LocalEngine(concurrency=4) as engine:
            jobs = [await price.enqueue(item) for item in ("tea", "rice")]
            assert [await job.result() for job in jobs] == ["tea: 5", "rice: 5"]
            assert engine.statistics()["price"].succeeded == 2
        ```
    """

    def __init__(
        self,
        tasks: Iterable[TaskDefinition[Any, Any]] = (),
        *,
        concurrency: int = 10,
        max_queued: int = 10_000,
        drain_timeout: float = 10.0,
        guard: Guard | None = None,
        run_store: RunStore | None = None,
        on_event: Callable[[TaskEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._concurrency = check_whole("concurrency", concurrency, 1)
        check_whole("max_queued", max_queued, 1)
        self._drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
        super().__init__(guard, run_store)
        self._scheduler = Scheduler(
            name="engine", drain_timeout=drain_timeout, on_event=on_event, clock=clock
        )
        self._queue = JobQueue(self._scheduler.runs.begin, concurrency, max_queued)
        self._unique: dict[str, LocalJob] = {}  # the jobs of unique tasks that have not ended
        self._delayed: dict[LocalJob, OnceTask] = {}
        self._open = False

        for definition in tasks:
            self._bind(definition)

    def __repr__(self) -> str:
        return f"<LocalEngine {self._queue.running} running, {self._queue.waiting} queued>"

    async def __aenter__(self) -> Self:
        if current_engine.get(None) is not None:
            raise UsageError("an engine is open in this loop already: a loop has one engine")

        await self._scheduler.__aenter__()
        current_engine.set(self)
        self._open = True

        for definition, job_task in self._known.values():
            self._scheduler.add(job_task)

            if definition.declaration.schedule is not None:
                self._enqueue_when_due(definition)

        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._scheduler.stop(_SCHEDULE)
        self._queue.refuse_more()
        self._drop_delayed()

        try:
            # Open for the jobs that run: what they enqueue is drained like them.
            await self._queue.drain(self._drain_timeout)
        finally:
            self._drop_delayed()
            current_engine.set(None)
            self._open = False
            await self._scheduler.close(0.0)
            await self._scheduler.__aexit__()

    async def submit(self, call: Call[Any], *, delay: float = 0.0) -> Job[Any]:
        """
        Take a job, when there is room; one that is due later takes none until then.

        Raises:
            ClosedError: The engine is closing.
        """
        return await self._submit(call, delay)

    async def _submit(self, call: Call[Any], delay: float = 0.0) -> LocalJob:
        self._scheduler.check_loop()
        name, key = call.definition.name, call.unique_key()

        for step in (call, *call.following):
            self._bind(step.definition)

        await self._queue.wait_for_room(name)

        if key and (twin := self._unique.get(key)) is not None:
            return twin

        with enqueuing(name) as headers:
            first = last = self._make(call, None)
            first.headers = headers

            for step in call.following:
                last = self._make(step, last)
                last.headers = headers

        if key:
            self._unique[key] = first
            first.on_end = functools.partial(self._unique.pop, key, None)

        if delay:
            self._hold_back(first, delay)
        else:
            self._queue.add(first)

        return last

    def _make(self, call: Call[Any], previous: LocalJob | None) -> LocalJob:
        definition = call.definition
        priority = definition.declaration.priority
        job_task = self._known[definition.name][1]
        kwargs = dict(call.kwargs)  # a call may be enqueued again
        return LocalJob(job_task, call.args, kwargs, self._queue, priority=priority, previous=previous)

    def _hold_back(self, job: LocalJob, delay: float) -> None:
        async def due() -> None:
            self._delayed.pop(job, None)

            if not job.ended:
                self._queue.add(job)

        job.state = "delayed"
        timer = OnceTask(delay, due, name=f"delay of {job.task.name}")
        self._delayed[job] = timer
        self._scheduler.add(timer)

    def _drop_delayed(self) -> None:
        """Cancel the jobs that are not due yet: nobody would make them."""
        delayed, self._delayed = self._delayed, {}
        left = [job for job in delayed if not job.ended]

        for timer in delayed.values():
            timer.stop()

        for job in left:
            job.drop()

        if left:
            names = ", ".join(sorted({job.task.name for job in left}))
            logger.warning("the engine ends before %d delayed jobs are due, of: %s", len(left), names)

    def _bind(self, definition: TaskDefinition[Any, Any]) -> None:
        self.check(definition)

        if definition.name not in self._known:
            # A failure is raised by the job's `result`, and logged like that of any run.
            job_task = self._learn(definition, {"max_instances": self._concurrency})

            if self._open:
                self._scheduler.add(job_task)

    def _enqueue_when_due(self, definition: TaskDefinition[Any, Any]) -> None:
        """Enqueue a task whenever its schedule says so."""
        # The claim, or the note that the run was made, stands for the job, not for its place in a queue
        # that dies with the process.
        held = self._guard is not None or definition.declaration.catch_up is not None

        async def due() -> None:
            job = await self._submit(definition.bind())

            if held:
                await job.wait()

                if job.cancelled:
                    # The engine closes before the job has been made: that ends this run too, whose
                    # claim then goes back.
                    current_instance.get().interrupt()
                    await anyio.sleep_forever()

        # The jobs are bounded, the waiting for them is not.
        options: TaskOptions = {"tag": _SCHEDULE, "max_instances": _MANY if held else 1}
        self._follow(self._scheduler, definition, due, options)
