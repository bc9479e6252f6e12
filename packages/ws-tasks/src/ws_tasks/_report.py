"""What a scheduler shows of its tasks: for metrics, and for whoever inspects the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ws_core.inspection import publish
from ws_core.metrics import Sample, register, sample
from ws_tasks.interface import TaskStatistics

_NAME = "wintersweet.task.name"


class ReportedTask(Protocol):
    """A task, as far as it is shown."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def state(self) -> str:
        """What it does."""
        ...

    def run_now(self) -> object:
        """Make a run."""
        ...

    def statistics(self) -> TaskStatistics:
        """Return its counters."""
        ...


class Report:
    """Tasks and their counters; it is its own snapshot."""

    def __init__(
        self, tasks: Mapping[Any, ReportedTask], kind: str = "tasks"
    ) -> None:  # Any: of the scheduler
        self._tasks = tasks
        register(self)
        publish(kind, self)

    def statistics(self) -> Report:
        """Return the counters up to now."""
        return self

    def samples(self) -> Iterable[Sample]:
        """Return them as samples of the metrics in `ws_core.metrics`."""
        for task in list(self._tasks.values()):
            found, name = task.statistics(), {_NAME: task.name}
            outcomes = {
                "succeeded": found.succeeded,
                "failed": found.failed,
                "cancelled": found.cancelled,
                "claimed_elsewhere": found.claimed_elsewhere,
            }
            yield sample("wintersweet.task.running", found.running, attributes=name)
            yield sample("wintersweet.task.queued", found.queued, attributes=name)

            # Without buckets: a service may have a hundred thousand tasks.
            yield sample("wintersweet.task.lateness", found.lateness, count=found.started, attributes=name)

            for outcome, count in outcomes.items():
                labels = {**name, "wintersweet.task.outcome": outcome}
                yield sample("wintersweet.task.runs", count, attributes=labels)

            for reason, count in found.skipped.items():
                labels = {**name, "wintersweet.reason": reason}
                yield sample("wintersweet.task.misfires", count, attributes=labels)

    def inspect(self) -> Sequence[Mapping[str, object]]:
        """Return the tasks with their next runs and last errors."""
        return [_row(task) for task in list(self._tasks.values())]

    def act(self, action: str, name: str) -> bool:
        """Make a run of a task now."""
        for task in list(self._tasks.values()):
            if action == "run" and task.name == name:
                task.run_now()
                return True

        return False


def _row(task: ReportedTask) -> Mapping[str, object]:
    found = task.statistics()
    return {
        "name": task.name,
        "state": task.state,
        "next_run": None if found.next_run_time is None else found.next_run_time.isoformat(),
        "running": found.running,
        "queued": found.queued,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "last_duration": found.last_duration,
        "last_error": found.last_error,
    }
