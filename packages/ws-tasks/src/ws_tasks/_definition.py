"""Tasks declared for engines, and what an engine has to offer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from anyio.lowlevel import RunVar

from ws_core.errors import UsageError
from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.errors import ScheduleError
from ws_tasks.triggers import CronTrigger

__all__ = ("Declaration", "Engine", "Job", "TaskDefinition", "current_engine", "task")

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

    async def result(self, timeout: float | None = None) -> T_co:  # noqa: ASYNC109 - the caller's patience
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
    """What runs jobs."""

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse a definition that asks for what this engine cannot do."""

    async def submit(
        self, definition: TaskDefinition[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> Job[Any]:
        """Take a job."""
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

        Waits for room when the engine's queue is full.

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


def task(  # noqa: PLR0913 - all but the name are optional and by name
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
        raise ScheduleError("name='' is wrong: give the task a name", option="name")

    if timeout is not None:
        check_seconds("timeout", timeout)

    check_whole("retries", retries, 0)

    if isinstance(schedule, str):
        CronTrigger(schedule, tz=tz)
    elif schedule is not None:
        check_seconds("schedule", schedule)

    def declare(func: Callable[P, Any]) -> TaskDefinition[P, Any]:
        if not callable(func):
            raise ScheduleError(f"a task needs a function to call, not {func!r}", func=func)

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
