"""The interface of every task, and the frozen records that describe runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

__all__ = (
    "EventKind",
    "Guard",
    "LeaseGuard",
    "Run",
    "RunClaim",
    "RunStore",
    "TaskEvent",
    "TaskInterface",
    "TaskStatistics",
)

EventKind = Literal[
    "failed",  # a run raised; detail says whether it will be tried again
    "timed_out",  # a run took too long
    "overdue",  # a thread is over its timeout and cannot be interrupted
    "skipped_overlap",  # a run was due while another one had not ended
    "skipped_late",  # a run was later than misfire_grace
    "coalesced",  # several runs were due and only the latest one is made
    "claimed_elsewhere",  # another process has claimed the run, or has made it
    "claim_failed",  # the guard raised; detail says whether it will be asked again
    "claim_lost",  # another process has claimed a run that is under way here
    "taken_over",  # the process that had claimed the run is gone, and it is made here
    "doubled",  # a run that was made here was made by another process too
    "repeated",  # the clock was set back: a run is made for a nominal time that had one
    "cancelled",  # a run was cancelled by shutdown, stop(cancel=True) or cancel_previous
    "clock_step",  # the wall clock was set
    "caught_up",  # runs were missed while no process was there; detail says how many are made now
    "store_failed",  # the store of last runs raised; detail says what becomes of it
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
        fence: With a guard that has fences, a number that is larger than that of every earlier run
            of the task. A store that keeps the largest one it has seen can refuse what a process
            writes that was stopped and has lost its run to another.
        repeat: 2 or more when a clock was set back and the nominal time had a run before.
    """

    name: str
    scheduled_at: datetime
    attempt: int = 1
    fence: int | None = None
    repeat: int = 1

    @property
    def id(self) -> str:
        """The identity of the nominal run: the same in every process and for every attempt."""
        nominal = f"{self.name}@{self.scheduled_at.isoformat()}"
        return nominal if self.repeat == 1 else f"{nominal}~{self.repeat}"


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
        taken_over: Runs made here because the process that had claimed them was gone.
        doubled: Runs made here that another process has made too.
        lateness: Seconds by which the runs that were due began late, all together.
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
    taken_over: int = 0
    doubled: int = 0
    lateness: float = 0.0


@runtime_checkable
class Guard(Protocol):
    """
    Decides which process makes a nominal run.

    ws-redislock provides one; any object with this method works.
    """

    async def claim(self, run_id: str, ttl: float) -> bool:
        """Return True to exactly one caller per run id within ``ttl`` seconds."""
        ...


class RunClaim(Protocol):
    """What a `LeaseGuard` answers; ws-redislock's ``RunClaim`` is one."""

    @property
    def claimed(self) -> bool:
        """Whether the run is the caller's to make."""
        ...

    @property
    def done(self) -> bool:
        """Whether the run has been made already."""
        ...

    @property
    def fence(self) -> int:
        """A number larger than that of every earlier claim of the task."""
        ...

    @property
    def retry_after(self) -> float:
        """Seconds after which another's claim ends unless it is renewed."""
        ...

    @property
    def idle(self) -> float:
        """Seconds since another claimer claimed a run of the task; infinite when none is known."""
        ...

    async def renew(self, ttl: float) -> bool:
        """Keep the claim; return False when another has claimed the run."""
        ...

    async def finish(self, keep: float) -> bool:
        """Mark the run as done; return False when another has claimed it too."""
        ...

    async def give_back(self) -> bool:
        """Let another claim the run at once."""
        ...


@runtime_checkable
class LeaseGuard(Guard, Protocol):
    """
    A guard whose claims are kept alive while the run goes on.

    With it a run whose process dies is made by another one. ws-redislock's ``RunClaims`` is one.
    """

    async def claim_run(
        self, run_id: str, ttl: float, *, task: str, keep: float = 3600.0, claimer: str = ""
    ) -> RunClaim:
        """Claim a run until it is done; see ``ws_redislock.RunClaims.claim_run``."""
        ...

    async def open_runs(self, task: str) -> list[str]:
        """List the ids of the task's runs that were claimed and are not done."""
        ...


class RunStore(Protocol):
    """
    Where the last run of each task is noted, for those missed while no process was there.

    `ws_tasks.stores` has one for Redis and one for SQL.
    """

    async def last_run(self, task: str) -> float | None:
        """Return the nominal time of a task's last run in seconds since the epoch, None without any."""
        ...

    async def note_run(self, task: str, nominal: float) -> None:
        """Note a run, unless a later one is noted."""
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
        """
        Begin to make runs. Call it from a coroutine.

        Interval, crontab and one-shot tasks take the scheduler that makes them as an argument; by
        default it is that of the running loop.

        Raises:
            UsageError: The task runs already, no event loop is running, or the scheduler belongs to
                another loop, is closed, or has a guarded task of this name.
        """

    @abstractmethod
    def stop(self) -> Awaitable[None]:
        """
        Make no more runs. Those under way go on; await the result, or not, to wait for their end.

        Interval, crontab and one-shot tasks take ``cancel=True`` to cancel the runs under way.

        Raises:
            NotStartedError: The task was never started.
            UsageError: The task belongs to another event loop.
        """

    @abstractmethod
    def pause(self) -> None:
        """Make no runs until resumed."""

    @abstractmethod
    def resume(self) -> None:
        """Make runs again; those whose time came in between are not made up for."""

    @abstractmethod
    def run_now(self) -> Awaitable[None]:
        """
        Make a run beside the schedule, under the same rules for overlap.

        Await the result, or not, to wait for the run's end. An error in the run is not raised there:
        it goes where all errors of the task go.

        Raises:
            NotStartedError: The task was never started, or was stopped.
        """

    @abstractmethod
    def statistics(self) -> TaskStatistics:
        """Return the counters and the state now."""
