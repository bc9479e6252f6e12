"""The decorator that declares a function as a task, and what its options may be."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from ws_tasks._definitions import Declaration, Priority, TaskDefinition
from ws_tasks._options import CatchUp, check_exceptions
from ws_tasks._validation import check_function, check_name, check_seconds, check_whole
from ws_tasks.errors import ScheduleError
from ws_tasks.triggers import CronTrigger

P = ParamSpec("P")
T = TypeVar("T")


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
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    schedule: str | float | None = None,
    priority: Priority = "normal",
    unique: bool | Callable[..., str] = False,
    result_ttl: float | None = None,
    tags: Iterable[str] = (),
    tz: str | None = None,
    catch_up: CatchUp | None = None,
) -> Declare:
    """
    Declare a function as a task that an engine can run.

    Args:
        name: The task's name, by which engines know it; it must be unique.
        timeout: Seconds for each attempt; None for any.
        retries: How often to try again when an attempt raises.
        retry_on: The exception, or a tuple of them, worth a retry.
        schedule: A crontab expression, or seconds between runs; a scheduled task must be callable
            without arguments.
        priority: ``"high"``, ``"normal"`` or ``"low"``: no job begins while one of a higher priority
            waits.
        unique: True when no second job with the same arguments is to be queued or run at the same time,
            or a function of the arguments that returns the text that must not be twice. Enqueuing
            returns the job that is there already.
        result_ttl: Seconds for which results are kept; None for the engine's own number.
        tags: Names of groups, for those who list tasks.
        tz: The time zone of a crontab expression; see `CrontabTask`.
        catch_up: What to make up for of a schedule that was missed while no process was there: the
            ``"latest"`` job or ``"all"`` of them. Its engine needs a ``run_store``.

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
    if isinstance(tags, str):
        raise ScheduleError(f"tags={tags!r} is wrong: use a list of names", option="tags")

    declaration = Declaration(
        name, timeout, retries, retry_on, schedule, priority, unique, result_ttl, tuple(tags), tz, catch_up
    )
    _check(declaration)

    def declare(func: Callable[P, Any]) -> TaskDefinition[P, Any]:
        check_function(func, name)

        if schedule is not None:
            try:
                inspect.signature(func).bind()
            except TypeError as error:
                message = f"task {name!r} has a schedule, so it must be callable without arguments: {error}"
                raise ScheduleError(message, task=name) from error

        return TaskDefinition(func, declaration)

    return cast("Declare", declare)


def _check(declaration: Declaration) -> None:
    """Refuse options of `task` that cannot work."""
    check_name("name", declaration.name)
    schedule, catch_up, tz = declaration.schedule, declaration.catch_up, declaration.tz
    priority: object = declaration.priority
    unique: object = declaration.unique

    for option in ("timeout", "result_ttl"):
        if (value := getattr(declaration, option)) is not None:
            check_seconds(option, value)

    check_whole("retries", declaration.retries, 0)
    check_exceptions("retry_on", declaration.retry_on)

    if priority not in ("high", "normal", "low"):
        raise ScheduleError(f"priority={priority!r} is wrong: use high, normal or low", option="priority")

    if not isinstance(unique, bool) and (not callable(unique) or inspect.iscoroutinefunction(unique)):
        raise ScheduleError(f"unique={unique!r} is wrong: use True, or a plain function", option="unique")

    if tz is not None and not isinstance(schedule, str):
        raise ScheduleError(f"tz={tz!r} needs a crontab expression as schedule", option="tz")

    for tag in declaration.tags:
        check_name("tags", tag)

    if isinstance(schedule, str):
        CronTrigger(schedule, tz=tz)
    elif schedule is not None:
        check_seconds("schedule", schedule)

    if catch_up is not None and (catch_up not in {"latest", "all"} or schedule is None):
        message = f'catch_up={catch_up!r} is wrong: use "latest" or "all", with a schedule'
        raise ScheduleError(message, option="catch_up")
