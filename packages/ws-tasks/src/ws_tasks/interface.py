"""The interface of every task, and the frozen records that describe runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

__all__ = ("EventKind", "Guard", "Run", "TaskEvent", "TaskInterface", "TaskStatistics")

EventKind = Literal[
    "failed",  # a run raised; detail says whether it will be tried again
    "timed_out",  # a run took too long
    "overdue",  # a thread is over its timeout and cannot be interrupted
    "skipped_overlap",  # a run was due while another one had not ended
    "skipped_late",  # a run was later than misfire_grace
    "coalesced",  # several runs were due and only the latest one is made
    "claimed_elsewhere",  # another process has claimed the run
    "cancelled",  # a run was cancelled by shutdown, stop(cancel=True) or cancel_previous
    "clock_step",  # the wall clock was set
    "broken",  # the task's trigger failed; the task has ended
]


@dataclass(frozen=True, slots=True)
class Run:
    """
    One run of a task, as `current_run()` returns it to the running function.

    Args:
        name: The task's name.
        scheduled_at: The nominal time, not the time at which the run really began.
        attempt: 1 for the first attempt, 2 for the first retry, and so on.
    """

    name: str
    scheduled_at: datetime
    attempt: int = 1

    @property
    def id(self) -> str:
        """The identity of the nominal run: the same in every process and for every attempt."""
        return f"{self.name}@{self.scheduled_at.isoformat()}"


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """
    Something that happened to a task or to its scheduler.

    Args:
        kind: What happened.
        task: The task's name; empty for events of the scheduler itself.
        detail: One line for people.
        scheduled_at: The nominal time of the run concerned, if there is one.
        error: The exception, if there is one.
    """

    kind: EventKind
    task: str
    detail: str
    scheduled_at: datetime | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """
    Counters of a task since it was created, and its state now.

    Args:
        started: Runs begun. Each ends as succeeded, failed, cancelled or claimed_elsewhere.
        succeeded: Runs that returned.
        failed: Runs whose last attempt raised or timed out.
        retried: Attempts after the first.
        timed_out: Attempts that took longer than the timeout.
        cancelled: Runs cancelled.
        claimed_elsewhere: Runs that another process had claimed.
        skipped: Nominal times without a run, by reason: overlap, late, coalesced.
        running: Runs that have begun and not ended.
        queued: Runs waiting for an earlier one to end.
        next_run_time: The next nominal time, or None.
        last_duration: Seconds that the last ended run took, or None.
        last_error: The last failure as text, or None.
    """

    started: int
    succeeded: int
    failed: int
    retried: int
    timed_out: int
    cancelled: int
    claimed_elsewhere: int
    running: int
    queued: int
    next_run_time: datetime | None
    last_duration: float | None
    last_error: str | None
    skipped: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Guard(Protocol):
    """
    Decides which process makes a nominal run.

    ws-redislock provides one; any object with this method works.
    """

    async def claim(self, run_id: str, ttl: float) -> bool:
        """Return True to exactly one caller per run id within ``ttl`` seconds."""
        ...


class TaskInterface(ABC):
    """The verbs of every task. Derive from it to let other things stand in for a task."""

    __slots__ = ()

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the task has been started and has not ended."""

    @property
    @abstractmethod
    def next_run_time(self) -> datetime | None:
        """The next nominal time, or None when paused, stopped or exhausted."""

    @abstractmethod
    def start(self) -> None:
        """Begin to make runs."""

    @abstractmethod
    def stop(self) -> Awaitable[None]:
        """Make no more runs; await the result to wait for those under way."""

    @abstractmethod
    def pause(self) -> None:
        """Make no runs until resumed."""

    @abstractmethod
    def resume(self) -> None:
        """Make runs again; those whose time came in between are not made up for."""

    @abstractmethod
    def run_now(self) -> Awaitable[None]:
        """Make a run beside the schedule; await the result to wait for its end."""

    @abstractmethod
    def statistics(self) -> TaskStatistics:
        """Return the counters and the state now."""
