"""What the caller has of a job that it has handed to an engine."""

from __future__ import annotations

from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import anyio

from ws_tasks._validation import check_wait

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JobStatus: TypeAlias = Literal[
    "delayed",  # it is not due yet
    "waiting",  # a step of a chain that has not been reached
    "queued",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "unknown",  # it has ended, and its result is not kept any more
]


class Job(Protocol[T_co]):
    """A call handed to an engine."""

    @property
    def id(self) -> str:
        """The job's identity."""
        ...

    @property
    def done(self) -> bool:
        """Whether its end is known here, in one way or another."""
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

    async def status(self) -> JobStatus:
        """Return where the job is now."""
        ...

    async def cancel(self) -> bool:
        """
        Cancel the job: one that has not begun never does, and a coroutine is interrupted.

        A function in a thread cannot be interrupted: it goes on, and what it returns is dropped.

        Returns:
            Whether the job was cancelled; False when it had ended before.
        """
        ...


class JobGroup(Generic[T]):
    """The jobs of a `Group`, in its order."""

    __slots__ = ("jobs",)

    def __init__(self, jobs: tuple[Job[T], ...]) -> None:
        self.jobs: tuple[Job[T], ...] = jobs

    @property
    def done(self) -> bool:
        """Whether the end of each job is known here."""
        return all(job.done for job in self.jobs)

    async def result(self, timeout: float | None = None) -> list[T]:
        """
        Wait for all results, in the order of the calls.

        Args:
            timeout: Seconds to wait for all of them together.

        Raises:
            Exception: What the first job in that order that failed has raised. The others go on.
        """
        with anyio.fail_after(check_wait("timeout", timeout)):
            return [await job.result() for job in self.jobs]

    async def status(self) -> list[JobStatus]:
        """Return where each job is now."""
        return [await job.status() for job in self.jobs]

    async def cancel(self) -> int:
        """Cancel the jobs; return how many were."""
        return sum([await job.cancel() for job in self.jobs])
