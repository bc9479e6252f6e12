"""Values that would arrive as others, and options that would mean something else, are refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from ws_core.errors import UsageError
from ws_tasks import IntervalTask, LocalEngine, OnceTask, Scheduler, task
from ws_tasks.errors import ScheduleError


async def nothing() -> None:
    """Do nothing."""


@task("echo")
async def echo(value: Any) -> Any:
    """Return the argument."""
    return value


KEYS: list[Any] = [
    {1: "a", "1": "b"},
    {True: 1, "true": 2},
    {None: 1, "null": 2},
    [{"a": ({2.5: 3, "2.5": 4},)}],
]


@pytest.mark.parametrize("value", KEYS)
async def test_keys_that_are_written_alike(value: Any) -> None:
    """JSON makes one key of 1 and "1", and a value is lost: they are refused."""

    @task("make")
    async def make() -> Any:
        return value

    async with LocalEngine():
        with pytest.raises(UsageError, match="written alike"):
            await echo.enqueue(value)

        job = await make.enqueue()

        with pytest.raises(UsageError, match="written alike"):
            await job.result(30)


async def test_a_coroutine_that_nobody_awaits() -> None:
    """A coroutine function that returns another coroutine has not run it: that is a failure."""
    ran = []
    errors: list[BaseException] = []

    def note(error: BaseException, _: object) -> None:
        errors.append(error)

    async def inner() -> None:
        ran.append(1)

    async def outer() -> Any:
        return inner()

    def made() -> Any:
        return outer()

    async with Scheduler() as scheduler:
        for number, function in enumerate((outer, made)):
            added = scheduler.add(OnceTask(3600, function, name=f"n{number}", on_error=note))
            await added.run_now()
            assert added.statistics().failed == 1

    assert ["await it in the function" in str(error) for error in errors] == [True, True]
    assert ran == []


@pytest.mark.parametrize("when", [None, "2030-01-01", date(2030, 1, 1), 5, datetime(2030, 1, 1)])  # noqa: DTZ001
async def test_a_moment_that_is_none(when: Any) -> None:
    """Only a date and time with a zone is a moment."""
    async with LocalEngine():
        with pytest.raises(ScheduleError, match="datetime with a time zone"):
            await echo.enqueue_at(when, 1)

        assert await (await echo.enqueue_at(datetime(2020, 1, 1, tzinfo=UTC), 1)).result(30) == 1


@pytest.mark.parametrize("timeout", ["5", float("nan"), True])
async def test_a_timeout_of_a_result(timeout: Any) -> None:
    """It is a number of seconds or None, and not an error of arithmetic."""
    async with LocalEngine():
        job = await echo.enqueue(1)

        with pytest.raises(ScheduleError, match="timeout="):
            await job.result(timeout)

        assert await job.result(30) == 1


async def test_a_unique_key_that_is_not_text() -> None:
    """Of a function that returns None all jobs would be one; a coroutine is another one each time."""

    async def later(number: int) -> str:
        return str(number)

    with pytest.raises(ScheduleError, match="plain function"):
        task("u", unique=later)  # type: ignore[arg-type]

    def key(number: int) -> Any:
        return None if number else "k"

    one = task("u", unique=key)(later)

    async with LocalEngine():
        with pytest.raises(UsageError, match="must return text"):
            await one.enqueue(1)

        assert await (await one.enqueue(0)).result(30) == "0"


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": "5"},
        {"jitter": None},
        {"name": 5},
        {"name": " "},
        {"tag": None},
        {"kwargs": [1]},
        {"immediate": "no"},
    ],
)
def test_options_of_tasks(options: dict[str, Any]) -> None:
    """A wrong one is a ScheduleError that names it."""
    with pytest.raises(ScheduleError, match=next(iter(options))):
        IntervalTask(10, nothing, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"name": 5},
        {"name": " "},
        {"tags": "abc"},
        {"tags": [1]},
        {"tz": "Nowhere/Land"},
        {"schedule": 5, "tz": "Europe/Riga"},
        {"priority": []},
    ],
)
def test_options_of_declarations(options: dict[str, Any]) -> None:
    """A wrong one is refused, and not taken for a list of letters or left unread."""
    with pytest.raises(ScheduleError, match=next(reversed(options))):
        task(**{"name": "n", **options})
