"""What engines have in common: the tasks that they know by name, and the schedules of these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from ws_tasks._definitions import TaskDefinition
from ws_tasks._jobs import JobTask
from ws_tasks._options import TaskOptions
from ws_tasks.errors import ScheduleError
from ws_tasks.interface import Guard, RunStore, TaskStatistics
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import CrontabTask, IntervalTask


class EngineBase:
    """The tasks of an engine, with what their jobs in this process share."""

    def __init__(self, guard: Guard | None, run_store: RunStore | None) -> None:
        self._guard = guard
        self._run_store = run_store
        self._known: dict[str, tuple[TaskDefinition[Any, Any], JobTask]] = {}

    @property
    def tasks(self) -> Mapping[str, TaskDefinition[Any, Any]]:
        """The tasks by name."""
        return {name: definition for name, (definition, _) in self._known.items()}

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse two tasks of one name, and a schedule whose missed runs nobody would know."""
        name = definition.name
        known = self._known.get(name)

        if known is not None and known[0] is not definition:
            raise ScheduleError(f"two tasks are named {name!r}: rename one", task=name)

        if definition.declaration.catch_up is not None and self._run_store is None:
            message = f"task {name!r} has catch_up: give its engine a run_store too"
            raise ScheduleError(message, task=name, option="run_store")

    def statistics(self) -> dict[str, TaskStatistics]:
        """Return the `TaskStatistics` of each task's jobs in this process, with the schedule's next time."""
        return {name: job_task.statistics() for name, (_, job_task) in self._known.items()}

    def _learn(self, definition: TaskDefinition[Any, Any], options: TaskOptions) -> JobTask:
        """Know a task from now on; its jobs have these options beside those of the declaration."""
        declaration = definition.declaration
        options |= {"name": declaration.name, "timeout": declaration.timeout}
        options |= {"retries": declaration.retries, "retry_on": declaration.retry_on}
        job_task = JobTask(definition.func, (), options)
        self._known[definition.name] = definition, job_task
        return job_task

    def _follow(
        self,
        scheduler: Scheduler,
        definition: TaskDefinition[Any, Any],
        due: Callable[[], Awaitable[None]],
        options: TaskOptions,
    ) -> None:
        """Have a scheduler call a function at the times of a task's schedule."""
        declaration = definition.declaration
        options |= {"name": f"schedule of {definition.name}", "guard": self._guard}

        if declaration.catch_up is not None:
            options |= {"catch_up": declaration.catch_up, "run_store": self._run_store}

            if declaration.catch_up == "all":
                options["overlap"] = "queue"

        schedule: CrontabTask | IntervalTask

        if isinstance(declaration.schedule, str):
            schedule = CrontabTask(declaration.schedule, due, tz=declaration.tz, **options)
        else:
            schedule = IntervalTask(cast("float", declaration.schedule), due, **options)

        self._known[definition.name][1].schedule = schedule
        scheduler.add(schedule)
