"""
Jobs: functions declared once, handed to an engine by a call, run by whichever engine is open.

A `task` is declared with how it is to be run; ``enqueue`` hands a call to the engine of the running
loop. `LocalEngine` runs jobs in this process. Arguments must be JSON and arrive as JSON makes them
(tuples as lists), so that nothing changes when an engine in other processes takes over.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

import anyio
from anyio.lowlevel import RunVar

from ws_core.errors import UsageError
from ws_tasks._clock import Clock
from ws_tasks._instance import current_instance
from ws_tasks._jobs import JobQueue, JobTask, LocalJob
from ws_tasks._options import TaskOptions
from ws_tasks._validation import check_function, check_seconds, check_whole
from ws_tasks.errors import ScheduleError
from ws_tasks.interface import Guard, TaskEvent
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import CrontabTask, IntervalTask
from ws_tasks.triggers import CronTrigger

__all__ = ("Declaration", "Engine", "Job", "LocalEngine", "TaskDefinition", "task")

_SCHEDULE = "schedule"
_MANY = 1_000_000

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """A call handed to an engine."""

    @property
    def id(self) -> str:
        """The job's identity."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has ended, in one way or another."""
        ...

    async def result(self, timeout: float | None = None) -> T_co:
        """
        Wait for the job's result.

        Args:
            timeout: Seconds to wait; None for as long as it takes. The job goes on all the same.

        Returns:
            What the function returned.

        Raises:
            JobCancelled: It was cancelled before it ended.
            TimeoutError: It has not ended in time.
            Exception: What its last attempt raised.
        """
        ...


class Engine(Protocol):
    """An object that runs jobs."""

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse a definition that asks for what this engine cannot do."""

    async def submit(
        self, definition: TaskDefinition[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> Job[Any]:
        """Accept a job."""
        ...


@dataclass(frozen=True, slots=True)
class Declaration:
    """
    How a task is to be run; see `task`.

    Args:
        name: Its name.
        timeout: Seconds for each attempt.
        retries: Attempts after the first.
        schedule: A crontab expression or seconds.
        tags: Names of groups.
        tz: The time zone of the expression.
    """

    name: str
    timeout: float | None = None
    retries: int = 0
    schedule: str | float | None = None
    tags: tuple[str, ...] = ()
    tz: str | None = None


class TaskDefinition(Generic[P, T]):
    """
    A function that can be run as a job; `task` makes it.

    Calling it runs the function here and now, as ever.
    """

    def __init__(
        self,
        func: Callable[P, Any],  # the function returns T, or an awaitable of it
        declaration: Declaration,
    ) -> None:
        self.func = func
        self.declaration = declaration
        self.name: str = declaration.name
        self._signature = inspect.signature(func)
        self.__doc__ = func.__doc__

    def __repr__(self) -> str:
        return f"<TaskDefinition {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:  # as the function itself
        """Run the function here and now."""
        return self.func(*args, **kwargs)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """
        Hand a call to the running loop's engine.

        Waits for room when the engine's queue is full, unless a job is the caller.

        Raises:
            TypeError: The arguments do not fit the function.
            UsageError: An argument is not JSON, or no engine is open here.
        """
        sent, named = self.encode(args, kwargs)
        engine = current_engine.get(None)

        if engine is None:
            message = f"task {self.name!r} has no engine to run it: open one, `async with LocalEngine():`"
            raise UsageError(message, task=self.name)

        return await engine.submit(self, sent, named)

    def encode(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> tuple[list[Any], dict[str, Any]]:
        """
        Check a call's arguments and make of them what JSON makes of them.

        Raises:
            TypeError: They do not fit the function.
            UsageError: One of them is not JSON; the message names it.
        """
        bound = self._signature.bind(*args, **kwargs)

        for name, value in bound.arguments.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                message = f"argument {name!r} of task {self.name!r} is not JSON: {error}"
                raise UsageError(message, task=self.name, argument=name) from error

        return json.loads(json.dumps(args)), json.loads(json.dumps(dict(kwargs)))


class Declare(Protocol):
    """The decorator that `task` returns."""

    @overload
    def __call__(self, func: Callable[P, Awaitable[T]], /) -> TaskDefinition[P, T]: ...

    @overload
    def __call__(self, func: Callable[P, T], /) -> TaskDefinition[P, T]: ...


def task(
    name: str,
    *,
    timeout: float | None = None,
    retries: int = 0,
    schedule: str | float | None = None,
    tags: Iterable[str] = (),
    tz: str | None = None,
) -> Declare:
    """
    Declare a function as a task that an engine can run.

    Args:
        name: The task's name, by which engines know it; it must be unique.
        timeout: Seconds for each attempt; None for any.
        retries: How often to try again when an attempt raises.
        schedule: A crontab expression, or seconds between runs; a scheduled task must be callable
            without arguments.
        tags: Names of groups, for those who list tasks.
        tz: The time zone of a crontab expression; see `CrontabTask`.

    Returns:
        A decorator that makes a `TaskDefinition`.

    Raises:
        ScheduleError: An option is wrong.

    Example:
        ```python
        from ws_tasks import LocalEngine, task

        @task("double", timeout=10, retries=3)
        async def double(number: int) -> int:
            return number * 2

        async with LocalEngine(tasks=[double]):
            job = await double.enqueue(21)
            assert await job.result() == 42
        ```
    """
    if not name:
        raise ScheduleError("name='' is wrong: a task needs a name", option="name")

    if timeout is not None:
        check_seconds("timeout", timeout)

    check_whole("retries", retries, 0)

    if isinstance(schedule, str):
        CronTrigger(schedule, tz=tz)
    elif schedule is not None:
        check_seconds("schedule", schedule)

    def declare(func: Callable[P, Any]) -> TaskDefinition[P, Any]:
        check_function(func, name)

        if schedule is not None:
            try:
                inspect.signature(func).bind()
            except TypeError as error:
                message = f"task {name!r} has a schedule, so it must be callable without arguments: {error}"
                raise ScheduleError(message, task=name) from error

        return TaskDefinition(func, Declaration(name, timeout, retries, schedule, tuple(tags), tz))

    return cast("Declare", declare)


current_engine: RunVar[Engine | None] = RunVar("ws_tasks_engine", None)
"""The engine that is open in the running event loop."""


class LocalEngine:
    """
    Runs jobs in this process, so many at once; the others wait in a queue.

    Results are JSON like arguments, as when another process had made them. A job may enqueue others,
    which have room beside the bound, and may wait for their results, which lets another job run in
    its place: neither waits for itself.

    Leaving the block stops taking jobs, waits up to ``drain_timeout`` for those that are queued
    and running, then cancels them.

    Args:
        tasks: The tasks whose schedules are to be followed; others may be enqueued too.
        concurrency: How many jobs run at once.
        max_queued: How many may wait; ``enqueue`` then waits for room, but for jobs that enqueue.
        drain_timeout: Seconds to wait for jobs at the end.
        guard: Decides which of several processes makes a scheduled run; see `Guard`. The claim is
            kept while the job is queued and runs.
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
        on_event: Callable[[TaskEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._concurrency = check_whole("concurrency", concurrency, 1)
        check_whole("max_queued", max_queued, 1)
        self._drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
        self._guard = guard
        self._scheduler = Scheduler(
            name="engine", drain_timeout=drain_timeout, on_event=on_event, clock=clock
        )
        self._known: dict[str, tuple[TaskDefinition[Any, Any], JobTask]] = {}
        self._queue = JobQueue(self._scheduler.runs.begin, concurrency, max_queued)

        for definition in tasks:
            self._bind(definition)

    def __repr__(self) -> str:
        return f"<LocalEngine {self._queue.running} running, {self._queue.waiting} queued>"

    async def __aenter__(self) -> Self:
        if current_engine.get(None) is not None:
            raise UsageError("an engine is open in this loop already: a loop has one engine")

        await self._scheduler.__aenter__()
        current_engine.set(self)

        for definition, job_task in self._known.values():
            self._scheduler.add(job_task)

            if definition.declaration.schedule is not None:
                self._follow(definition, job_task)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler.stop(_SCHEDULE)
        self._queue.refuse_more()

        try:
            # Open for the jobs that run: what they enqueue is drained like them.
            await self._queue.drain(self._drain_timeout)
        finally:
            current_engine.set(None)
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
        return await self._submit(definition, args, kwargs)

    def statistics(self) -> dict[str, Any]:
        """Return the `TaskStatistics` of each task's jobs, with the next time of its schedule."""
        return {name: job_task.statistics() for name, (_, job_task) in self._known.items()}

    async def _submit(
        self, definition: TaskDefinition[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> LocalJob:
        self._scheduler.check_loop()
        await self._queue.wait_for_room(definition.name)
        self._bind(definition)
        job = LocalJob(self._known[definition.name][1], args, kwargs, self._queue)
        self._queue.add(job)
        return job

    def _bind(self, definition: TaskDefinition[Any, Any]) -> None:
        self.check(definition)

        if definition.name not in self._known:
            options: TaskOptions = {
                "name": definition.name,
                "timeout": definition.declaration.timeout,
                "retries": definition.declaration.retries,
                "max_instances": self._concurrency,
                # A failure is raised by the job's `result`, and logged like that of any run.
            }
            job_task = JobTask(definition.func, (), options)
            self._known[definition.name] = (definition, job_task)

            if current_engine.get(None) is self:
                self._scheduler.add(job_task)

    def _follow(self, definition: TaskDefinition[Any, Any], job_task: JobTask) -> None:
        """Enqueue a task whenever its schedule says so."""
        guarded = self._guard is not None

        async def due() -> None:
            job = await self._submit(definition, [], {})

            if guarded:
                # The claim stands for the job, not for its place in a queue that dies with the process.
                await job.wait()

                if job.cancelled:
                    # The engine closes before the job has been made: that ends this run too, whose
                    # claim then goes back.
                    current_instance.get().cancel()
                    await anyio.sleep_forever()

        options: TaskOptions = {
            "name": f"schedule of {definition.name}",
            "tag": _SCHEDULE,
            "guard": self._guard,
            "max_instances": _MANY if guarded else 1,  # the jobs are bounded, the waiting for them is not
        }
        schedule = definition.declaration.schedule

        if isinstance(schedule, str):
            job_task.schedule = CrontabTask(schedule, due, tz=definition.declaration.tz, **options)
        else:
            job_task.schedule = IntervalTask(cast("float", schedule), due, **options)

        self._scheduler.add(job_task.schedule)
