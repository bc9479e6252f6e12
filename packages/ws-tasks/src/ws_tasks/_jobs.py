"""The jobs of a local engine: one call each, and the queue that bounds how many run at once."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import anyio

from ws_core.errors import ClosedError, UsageError
from ws_tasks._clock import Clock
from ws_tasks._definitions import Priority
from ws_tasks._instance import Instance, current_instance
from ws_tasks._job_handles import JobStatus
from ws_tasks._task import ScheduledTask
from ws_tasks._validation import check_wait, to_json
from ws_tasks.errors import JobCancelled, JobFailed
from ws_tasks.triggers import OnceTrigger, Trigger

_NEVER = math.inf


class JobTask(ScheduledTask):
    """What the jobs of one declared task share: name, function, options, counters."""

    __slots__ = ("schedule",)

    schedule: ScheduledTask | None

    @property
    def next_run_time(self) -> datetime | None:
        """The schedule's next nominal time; without a schedule jobs are due when they are enqueued."""
        return None if self.schedule is None else self.schedule.next_run_time

    def _check_arguments(self) -> None:
        """Accept any function: each job has its own arguments, checked when it is enqueued."""
        self.schedule = None

    def _make_trigger(self, clock: Clock) -> Trigger:
        return OnceTrigger(_NEVER)


class JobCall(Instance):
    """A run with arguments of its own, and a result that is JSON."""

    __slots__ = ("_args", "_kwargs", "id")

    def __init__(self, task: JobTask, args: Sequence[Any], kwargs: dict[str, Any], job_id: str) -> None:
        super().__init__(task, time.time())
        self._args: list[Any] = [*args]
        self._kwargs: dict[str, Any] = kwargs
        self.id: str = job_id

    def call(self) -> Any:  # whatever the function returns
        """Call the function with the job's own arguments."""
        return self.task.func(*self._args, **self._kwargs)

    def accept(self, value: object) -> None:
        """Take what the function returned, as JSON makes it: so it arrives from another process too."""
        try:
            super().accept(json.loads(to_json(value)))
        except (TypeError, ValueError) as error:
            message = f"the result of task {self.task.name!r} is not JSON: {error}"
            raise UsageError(message, task=self.task.name, job=self.id) from error


class LocalJob(JobCall):
    """A call that runs in this process."""

    __slots__ = ("_previous", "following", "jobs", "on_end", "priority", "state")

    def __init__(
        self,
        task: JobTask,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        queue: JobQueue,
        *,
        priority: Priority = "normal",
        previous: LocalJob | None = None,
    ) -> None:
        super().__init__(task, args, kwargs, secrets.token_hex(8))
        self._previous = previous  # the step of a chain whose result is this one's first argument
        self.following: LocalJob | None = None
        self.jobs: JobQueue = queue
        self.priority: Priority = priority
        self.state: JobStatus = "queued" if previous is None else "waiting"
        self.on_end: Callable[[], object] | None = None

        if previous is not None:
            previous.following = self

    @property
    def done(self) -> bool:
        """Whether the job has ended, in one way or another."""
        return self.ended

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its value, or raise its failure."""
        with anyio.fail_after(check_wait("timeout", timeout)), self.jobs.make_room():
            await self.wait()

        if isinstance(self.failure, Exception):
            raise self.failure

        if self.failure is not None:
            # SystemExit and KeyboardInterrupt would end the event loop of a waiter that is a task.
            raise JobFailed.of(self.failure) from self.failure

        if self.cancelled:
            message = f"job {self.id} of task {self.task.name!r} was cancelled before it ended"
            raise JobCancelled(message, task=self.task.name, job=self.id)

        return self.value

    async def status(self) -> JobStatus:
        """Return where the job is now."""
        if not self.ended:
            return self.state

        return "cancelled" if self.cancelled else "succeeded" if self.failure is None else "failed"

    async def cancel(self) -> bool:
        """Cancel the job; of a chain the step that it has come to, which ends those behind it."""
        job = self

        while job._previous is not None and not job._previous.ended:
            job = job._previous

        if job.ended:
            return False

        if self.jobs.discard(job):
            job.drop()
            return True

        job.interrupt()

        if current_instance.get(None) is not job:
            await job.wait()

        return job.cancelled or not job.ended

    def drop(self) -> None:
        """End a job that has not begun."""
        self.task.counters.cancelled += 1
        self.cancelled = True
        self.finish()

    def finish(self) -> None:
        """Mark the job as ended; the next step of its chain, and the next job, may begin."""
        super().finish()

        if self.on_end is not None:
            self.on_end()

        following = self.following

        if following is not None:
            following.failure, following.cancelled = self.failure, self.cancelled

            if self.failure is None and not self.cancelled:
                following._args.insert(0, self.value)  # noqa: SLF001 - another job of the chain
                self.jobs.add(following)
            else:
                following.finish()

        self.jobs.ended(self)


class JobQueue:
    """Jobs that wait and jobs that run, both bounded."""

    __slots__ = (
        "_begin", "_change", "_closing", "_concurrency", "_max_queued", "_running", "_suspended", "_waiting",
    )  # fmt: skip

    def __init__(self, begin: Callable[[LocalJob], None], concurrency: int, max_queued: int) -> None:
        self._begin = begin
        self._concurrency = concurrency
        self._max_queued = max_queued
        # In the order in which they are served.
        self._waiting: dict[Priority, deque[LocalJob]] = {"high": deque(), "normal": deque(), "low": deque()}
        self._running: set[LocalJob] = set()
        self._suspended = 0  # running jobs that wait for the result of another one
        self._change: anyio.Event | None = None
        self._closing = False

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(map(len, self._waiting.values()))

    async def wait_for_room(self, task: str) -> None:
        """Return when a job may be added."""
        # A job that waited here for room would wait for itself: the room comes when jobs end. So what
        # jobs enqueue has room beside the bound, which holds back everybody else.
        # While the engine drains, too: their jobs are part of what is drained.
        if self._in_job():
            return

        while self.waiting >= self._max_queued and not self._closing:
            await self._changed()

        if self._closing:
            raise ClosedError("the engine is closing and takes no more jobs", task=task)

    @contextmanager
    def make_room(self) -> Iterator[None]:
        """Let another job run while the calling one waits for a result, which would never come else."""
        if not self._in_job():
            yield
            return

        self._suspended += 1
        self._fill()

        try:
            yield
        finally:
            self._suspended -= 1

    def add(self, job: LocalJob) -> None:
        """Add a job; it begins at once when not too many run."""
        job.state = "queued"
        self._waiting[job.priority].append(job)
        self._fill()

    def discard(self, job: LocalJob) -> bool:
        """Remove a job that waits; return whether it has not begun."""
        if job in self._running:
            return False

        if job in self._waiting[job.priority]:
            self._waiting[job.priority].remove(job)

        return True

    def ended(self, job: LocalJob) -> None:
        """Note the end of a job, and begin the next."""
        self._running.discard(job)
        self._fill()
        self._notify()

    def refuse_more(self) -> None:
        """Take no more jobs; those that wait for room are refused."""
        self._closing = True
        self._notify()

    async def drain(self, seconds: float) -> None:
        """Wait until no job is left, for some seconds at most, then cancel those that wait."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(seconds):
            while self.waiting or self._running:
                await self._changed()

        left = [job for waiting in self._waiting.values() for job in waiting]

        for waiting in self._waiting.values():
            waiting.clear()

        for job in left:
            job.drop()

    def _in_job(self) -> bool:
        """Return whether the caller is part of a job of this queue that has not ended."""
        instance = current_instance.get(None)
        return isinstance(instance, LocalJob) and instance.jobs is self and not instance.ended

    def _fill(self) -> None:
        for waiting in self._waiting.values():
            while waiting and len(self._running) - self._suspended < self._concurrency:
                job = waiting.popleft()
                job.state = "running"
                self._running.add(job)
                self._begin(job)

    def _notify(self) -> None:
        if self._change is not None:
            self._change.set()

    async def _changed(self) -> None:
        if self._change is None or self._change.is_set():
            self._change = anyio.Event()

        await self._change.wait()
