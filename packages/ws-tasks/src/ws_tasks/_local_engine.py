"""An engine that runs jobs in this process."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Self, cast

import anyio

from ws_core.errors import ClosedError, UsageError
from ws_tasks._clock import Clock
from ws_tasks._definition import Job, TaskDefinition, current_engine
from ws_tasks._instance import Instance
from ws_tasks._options import TaskOptions
from ws_tasks._task import ScheduledTask
from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.errors import JobCancelled, ScheduleError
from ws_tasks.interface import Guard, TaskEvent
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import CrontabTask, IntervalTask
from ws_tasks.triggers import OnceTrigger, Trigger

__all__ = ("LocalEngine",)

_NEVER = math.inf
_SCHEDULE = "schedule"


class _LocalJob(Instance):
    """A job of a `LocalEngine`."""

    __slots__ = ("_args", "_engine", "_kwargs", "id")

    def __init__(self, engine: LocalEngine, task: _JobTask, args: list[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(task, time.time())
        self._engine = engine
        self._args = args
        self._kwargs = kwargs
        self.id: str = secrets.token_hex(8)

    def call(self) -> Any:
        return self.task.func(*self._args, **self._kwargs)

    @property
    def done(self) -> bool:
        return self.ended

    def finish(self) -> None:
        super().finish()
        self._engine.ended(self)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the caller's patience
        with anyio.fail_after(timeout):
            await self.wait()

        if self.failure is not None:
            raise self.failure

        if self.cancelled:
            message = f"job {self.id} of task {self.task.name!r} was cancelled before it ended"
            raise JobCancelled(message, task=self.task.name, job=self.id)

        return self.value


class _JobTask(ScheduledTask):
    """What the runs of a definition's jobs have in common: name, function, options, counters."""

    __slots__ = ()

    @property
    def next_run_time(self) -> datetime | None:
        return None

    def _make_trigger(self, clock: Clock) -> Trigger:  # noqa: ARG002 - jobs are not due by themselves
        return OnceTrigger(_NEVER)


class LocalEngine:
    """
    Runs jobs in this process, so many at once; the others wait in a queue.

    Leaving the block stops taking jobs, waits up to ``drain_timeout`` for those that are queued
    and running, then cancels them.

    Args:
        tasks: The tasks whose schedules are to be followed; others may be enqueued too.
        concurrency: How many jobs run at once.
        max_queued: How many may wait; ``enqueue`` then waits for room.
        drain_timeout: Seconds to wait for jobs at the end.
        guard: Decides which of several processes makes a scheduled run; see `Guard`.
        on_event: Called with each `TaskEvent`.
        clock: The time; only tests need another.

    Raises:
        ScheduleError: An option is wrong, or two tasks have one name.

    Example:
        ```python
        from ws_tasks import LocalEngine, task

        @task("greet")
        async def greet(name: str) -> str:
            return f"hello {name}"

        async with LocalEngine(concurrency=4) as engine:
            jobs = [await greet.enqueue(name) for name in ("you", "me")]
            assert [await job.result() for job in jobs] == ["hello you", "hello me"]
            assert engine.statistics()["greet"].succeeded == 2
        ```
    """

    def __init__(  # noqa: PLR0913 - all are optional
        self,
        tasks: Iterable[TaskDefinition[Any, Any]] = (),
        *,
        concurrency: int = 10,
        max_queued: int = 10_000,
        drain_timeout: float = 10.0,
        guard: Guard | None = None,
        on_event: Callable[[TaskEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._concurrency = check_whole("concurrency", concurrency, 1)
        self._max_queued = check_whole("max_queued", max_queued, 1)
        self._drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
        self._guard = guard
        self._scheduler = Scheduler(
            name="engine", drain_timeout=drain_timeout, on_event=on_event, clock=clock
        )
        self._scheduled: list[TaskDefinition[Any, Any]] = []
        self._known: dict[str, tuple[TaskDefinition[Any, Any], _JobTask]] = {}
        self._queue: deque[_LocalJob] = deque()
        self._running: set[_LocalJob] = set()
        self._change: anyio.Event | None = None
        self._closing = False

        for definition in tasks:
            self._bind(definition)

    def __repr__(self) -> str:
        return f"<LocalEngine {len(self._running)} running, {len(self._queue)} queued>"

    async def __aenter__(self) -> Self:
        if current_engine.get(None) is not None:
            raise UsageError("an engine is open in this loop already: a loop has one engine")

        await self._scheduler.__aenter__()
        current_engine.set(self)

        for definition, job_task in self._known.values():
            self._scheduler.add(job_task)

            if definition.declaration.schedule is not None:
                self._follow(definition)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        current_engine.set(None)
        self._scheduler.stop(_SCHEDULE)

        if self._change is not None:
            self._change.set()

        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(self._drain_timeout):
                while self._queue or self._running:
                    await self._changed()

            # What is left in the queue is not begun any more.
            left, self._queue = self._queue, deque()

            for job in left:
                job.cancelled = True
                job.finish()
        finally:
            await self._scheduler.close(0.0)
            await self._scheduler.__aexit__(kind, error, trace)

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse two tasks of one name; all else this engine can do."""
        known = self._known.get(definition.name)

        if known is not None and known[0] is not definition:
            raise ScheduleError(f"two tasks are named {definition.name!r}: rename one", task=definition.name)

    async def submit(
        self, definition: TaskDefinition[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> Job[Any]:
        """
        Take a job, when there is room.

        Raises:
            ClosedError: The engine is closing.
        """
        self._scheduler.check_loop()

        while len(self._queue) >= self._max_queued and not self._closing:
            await self._changed()

        if self._closing:
            raise ClosedError("the engine is closing and takes no more jobs", task=definition.name)

        self._bind(definition)
        job = _LocalJob(self, self._known[definition.name][1], args, kwargs)
        self._queue.append(job)
        self._pump()
        return job

    def ended(self, job: _LocalJob) -> None:
        """Note the end of a job, and begin the next."""
        self._running.discard(job)
        self._pump()

        if self._change is not None:
            self._change.set()

    def statistics(self) -> dict[str, Any]:
        """Return the `TaskStatistics` of each task's jobs."""
        return {name: job_task.statistics() for name, (_, job_task) in self._known.items()}

    def _bind(self, definition: TaskDefinition[Any, Any]) -> None:
        self.check(definition)

        if definition.name not in self._known:
            options: TaskOptions = {
                "name": definition.name,
                "timeout": definition.declaration.timeout,
                "retries": definition.declaration.retries,
                "max_instances": self._concurrency,
                # Errors go to whoever asks for the result; without asking, to the log like all others.
            }
            job_task = _JobTask(definition.func, (), options)
            self._known[definition.name] = (definition, job_task)

            if current_engine.get(None) is self:
                self._scheduler.add(job_task)

    def _follow(self, definition: TaskDefinition[Any, Any]) -> None:
        """Enqueue a task whenever its schedule says so."""

        async def due() -> None:
            await self.submit(definition, [], {})

        options: TaskOptions = {
            "name": f"schedule of {definition.name}",
            "tag": _SCHEDULE,
            "guard": self._guard,
        }

        if isinstance(definition.declaration.schedule, str):
            self._scheduler.add(
                CrontabTask(definition.declaration.schedule, due, tz=definition.declaration.tz, **options)
            )
        else:
            self._scheduler.add(IntervalTask(cast("float", definition.declaration.schedule), due, **options))

    def _pump(self) -> None:
        while self._queue and len(self._running) < self._concurrency:
            job = self._queue.popleft()
            self._running.add(job)
            self._scheduler.runs.begin(job)

    async def _changed(self) -> None:
        if self._change is None or self._change.is_set():
            self._change = anyio.Event()

        await self._change.wait()
