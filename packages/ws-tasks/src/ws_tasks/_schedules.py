"""The scheduler's task that enqueues a task of an engine whenever its schedule says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from ws_tasks._definitions import TaskDefinition
from ws_tasks._options import TaskOptions
from ws_tasks.errors import ScheduleError
from ws_tasks.interface import Guard, RunStore
from ws_tasks.tasks import CrontabTask, IntervalTask

__all__ = ("check_schedule", "schedule_of")


def check_schedule(definition: TaskDefinition[Any, Any], run_store: RunStore | None) -> None:
    """Refuse a schedule whose missed runs nobody would know."""
    if definition.declaration.catch_up is not None and run_store is None:
        message = f"task {definition.name!r} has catch_up: give its engine a run_store too"
        raise ScheduleError(message, task=definition.name, option="run_store")


def schedule_of(
    definition: TaskDefinition[Any, Any],
    due: Callable[[], Awaitable[None]],
    *,
    guard: Guard | None,
    run_store: RunStore | None,
    **options: Any,  # of the scheduler's task
) -> CrontabTask | IntervalTask:
    """Return a scheduler's task that calls a function at the times of a definition's schedule."""
    declaration = definition.declaration
    found: TaskOptions = {"name": f"schedule of {definition.name}", "guard": guard, **options}  # type: ignore[typeddict-item]

    if declaration.catch_up is not None:
        found |= {"catch_up": declaration.catch_up, "run_store": run_store}

        if declaration.catch_up == "all":
            found["overlap"] = "queue"

    if isinstance(declaration.schedule, str):
        return CrontabTask(declaration.schedule, due, tz=declaration.tz, **found)

    return IntervalTask(cast("float", declaration.schedule), due, **found)
