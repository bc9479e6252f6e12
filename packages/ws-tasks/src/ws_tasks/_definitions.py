"""Declared tasks, calls of them, and what an engine is to both."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import RunVar

from ws_core.errors import UsageError
from ws_tasks._job_handles import Job, JobGroup
from ws_tasks._options import CatchUp
from ws_tasks._validation import check_seconds, to_json
from ws_tasks.errors import ScheduleError

_UNDO = 5.0  # seconds for the jobs of a group that could not be enqueued as a whole

P = ParamSpec("P")
T = TypeVar("T")

Priority: TypeAlias = Literal["high", "normal", "low"]


class Engine(Protocol):
    """An object that runs jobs."""

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse a definition that asks for what this engine cannot do."""

    async def submit(self, call: Call[Any], *, delay: float = 0.0) -> Job[Any]:
        """Accept a job, which is due after some seconds, and return that of the call's last step."""
        ...


current_engine: RunVar[Engine | None] = RunVar("ws_tasks_engine", None)
"""The engine that is open in the running event loop."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """How a task is to be run: the options of `task`, under the same names."""

    name: str
    timeout: float | None = None
    retries: int = 0
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception
    schedule: str | float | None = None
    priority: Priority = "normal"
    unique: bool | Callable[..., str] = False
    result_ttl: float | None = None
    tags: tuple[str, ...] = ()
    tz: str | None = None
    catch_up: CatchUp | None = None


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

        Waits for room when the engine's queue is full, unless a job is the caller. Of a task that is
        ``unique`` the job that is queued or running already is returned.

        Raises:
            TypeError: The arguments do not fit the function.
            UsageError: An argument is not JSON, or no engine is open here.
        """
        return await self.bind(*args, **kwargs).enqueue()

    async def enqueue_in(self, seconds: float, /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Hand over a call that is due after some seconds, 0 or more; see `enqueue`."""
        return await self.bind(*args, **kwargs).enqueue_in(seconds)

    async def enqueue_at(self, when: datetime, /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Hand over a call that is due at a moment; one in the past is due at once. See `enqueue`."""
        return await self.bind(*args, **kwargs).enqueue_at(when)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """
        Return a call with arguments, for chains, groups and later.

        Raises:
            TypeError: The arguments do not fit the function.
            UsageError: An argument is not JSON.
        """
        sent, named = self.encode(args, kwargs)
        return Call(self, sent, named)

    def encode(
        self, args: tuple[object, ...], kwargs: Mapping[str, object], *, before: int = 0
    ) -> tuple[list[Any], dict[str, Any]]:
        """
        Check a call's arguments and make of them what JSON makes of them.

        Args:
            args: The arguments by position.
            kwargs: Those by name.
            before: How many arguments will be put before them.

        Raises:
            TypeError: They do not fit the function.
            UsageError: One of them is not JSON; the message names it.
        """
        bound = self._signature.bind(*([None] * before), *args, **kwargs)

        for name, value in bound.arguments.items():
            try:
                to_json(value)
            except (TypeError, ValueError) as error:
                message = f"argument {name!r} of task {self.name!r} is not JSON: {error}"
                raise UsageError(message, task=self.name, argument=name) from error

        return json.loads(json.dumps(args)), json.loads(json.dumps(dict(kwargs)))


class Call(Generic[T]):
    """
    A task with its arguments, and the calls that follow it; `TaskDefinition.bind` makes it.

    Example:
        ```python
        from ws_tasks import LocalEngine, task

        @task("double")
        async def double(number: int) -> int:
            return number * 2

        @task("add")
        async def add(number: int, other: int) -> int:
            return number + other

        async with LocalEngine():
            job = await double.bind(4).then(add, other=1).then(double).enqueue()
            assert await job.result() == 18
        ```
    """

    __slots__ = ("args", "definition", "following", "kwargs")

    def __init__(
        self,
        definition: TaskDefinition[Any, Any],
        args: list[Any],
        kwargs: dict[str, Any],
        following: tuple[Call[Any], ...] = (),
    ) -> None:
        self.definition: TaskDefinition[Any, Any] = definition
        self.args: list[Any] = args
        self.kwargs: dict[str, Any] = kwargs
        self.following: tuple[Call[Any], ...] = following

    def __repr__(self) -> str:
        names = " → ".join(call.definition.name for call in (self, *self.following))
        return f"<Call of {names}>"

    def then(self, definition: TaskDefinition[Any, T], *args: object, **kwargs: object) -> Call[T]:
        """
        Return a chain: the result of this call is the first argument of the next one.

        When a step fails or is cancelled, no later one is made, and the chain's result is that error.

        Args:
            definition: The task that follows.
            *args: Its further arguments.
            **kwargs: Its further arguments by name.

        Raises:
            TypeError: The arguments do not fit the function.
            UsageError: An argument is not JSON, or a task of the chain is ``unique``.
        """
        for found in (self.definition, definition):
            if found.declaration.unique:
                message = f"task {found.name!r} is unique, so it cannot be a step of a chain: its job may be"
                raise UsageError(f"{message} another's", task=found.name)

        sent, named = definition.encode(args, kwargs, before=1)
        step: Call[T] = Call(definition, sent, named)
        return Call(self.definition, self.args, self.kwargs, (*self.following, step))

    async def enqueue(self) -> Job[T]:
        """
        Hand the call to the running loop's engine; of a chain the last step's job is returned.

        Raises:
            UsageError: No engine is open here.
        """
        return await self._submit(0.0)

    async def enqueue_in(self, seconds: float) -> Job[T]:
        """Hand the call over; it is due after some seconds, 0 or more."""
        return await self._submit(check_seconds("seconds", seconds, zero=True))

    async def enqueue_at(self, when: datetime) -> Job[T]:
        """
        Hand the call over; it is due at a moment, at once when that has passed.

        Raises:
            ScheduleError: The moment has no time zone.
        """
        moment: object = when

        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ScheduleError(f"when={when!r} is wrong: use a datetime with a time zone", option="when")

        return await self._submit(max(0.0, (when - datetime.now(UTC)) / timedelta(seconds=1)))

    async def _submit(self, delay: float) -> Job[T]:
        engine = current_engine.get(None)

        if engine is None:
            name = self.definition.name
            message = f"task {name!r} has no engine to run it: open one, `async with LocalEngine():`"
            raise UsageError(message, task=name)

        return await engine.submit(self, delay=delay)

    def unique_key(self) -> str:
        """Return what no other job may have at the same time, or nothing."""
        unique = self.definition.declaration.unique

        if not unique:
            return ""

        arguments: object = [self.args, self.kwargs] if unique is True else unique(*self.args, **self.kwargs)

        if unique is not True and not isinstance(arguments, str):
            message = f"unique= of task {self.definition.name!r} must return text, not {arguments!r:.50}"
            raise UsageError(message, task=self.definition.name)

        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:32]
        return f"{self.definition.name}:{digest}"


class Group(Generic[T]):
    """Calls to be made beside each other; `group` makes it."""

    __slots__ = ("calls",)

    def __init__(self, calls: tuple[Call[T], ...]) -> None:
        self.calls: tuple[Call[T], ...] = calls

    async def enqueue(self) -> JobGroup[T]:
        """Hand the calls to the running loop's engine."""
        jobs: list[Job[T]] = []

        try:
            for call in self.calls:
                job = await call.enqueue()
                jobs.append(job)
        except BaseException:
            # Nobody would have those that were enqueued so far in hand.
            with anyio.CancelScope(shield=True), anyio.move_on_after(_UNDO):
                for job in jobs:
                    await job.cancel()

            raise

        return JobGroup(tuple(jobs))

    def then(self, definition: TaskDefinition[Any, Any], *_: object, **__: object) -> Any:  # refused
        """
        Refuse a step after a whole group, which no engine can do.

        Raises:
            UsageError: Always; the message has the remedy.
        """
        message = f"no engine makes {definition.name!r} after a whole group: write a task that enqueues the"
        raise UsageError(f"{message} group, waits for its result and enqueues {definition.name!r}")


def group(*calls: Call[T]) -> Group[T]:
    """
    Return calls to be made beside each other.

    Args:
        *calls: The calls; chains too.

    Example:
        ```python
        from ws_tasks import LocalEngine, group, task

        @task("double")
        async def double(number: int) -> int:
            return number * 2

        async with LocalEngine():
            jobs = await group(double.bind(1), double.bind(2)).enqueue()
            assert await jobs.result(timeout=10) == [2, 4]
        ```
    """
    return Group(calls)
