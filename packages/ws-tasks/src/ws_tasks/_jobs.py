"""The jobs of a local engine: one call each, and the queue that bounds how many run at once."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import anyio

from ws_core.errors import ClosedError, UsageError
from ws_tasks._clock import Clock
from ws_tasks._instance import Instance, current_instance
from ws_tasks._task import ScheduledTask
from ws_tasks.errors import JobCancelled
from ws_tasks.triggers import OnceTrigger, Trigger

__all__ = ("JobQueue", "JobTask", "LocalJob")

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


class LocalJob(Instance):
    """A call that runs in this process."""

    __slots__ = ("_args", "_kwargs", "id", "jobs")

    def __init__(self, task: JobTask, args: list[Any], kwargs: dict[str, Any], queue: JobQueue) -> None:
        super().__init__(task, time.time())
        self._args = args
        self._kwargs = kwargs
        self.jobs: JobQueue = queue
        self.id: str = secrets.token_hex(8)

    @property
    def done(self) -> bool:
        """Whether the job has ended, in one way or another."""
        return self.ended

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its value, or raise its failure."""
        with anyio.fail_after(timeout), self.jobs.make_room():
            await self.wait()

        if self.failure is not None:
            raise self.failure

        if self.cancelled:
            message = f"job {self.id} of task {self.task.name!r} was cancelled before it ended"
            raise JobCancelled(message, task=self.task.name, job=self.id)

        return self.value

    def call(self) -> Any:  # whatever the function returns
        """Call the function with the job's own arguments."""
        return self.task.func(*self._args, **self._kwargs)

    def accept(self, value: object) -> None:
        """Take what the function returned, as JSON makes it: so it arrives from another process too."""
        try:
            self.value = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            message = f"the result of task {self.task.name!r} is not JSON: {error}"
            raise UsageError(message, task=self.task.name, job=self.id) from error

    def finish(self) -> None:
        """Mark the job as ended; the next one may begin."""
        super().finish()
        self.jobs.ended(self)


class JobQueue:
    """Jobs that wait and jobs that run, both bounded."""

    __slots__ = (
        "_begin",
        "_change",
        "_closing",
        "_concurrency",
        "_max_queued",
        "_running",
        "_suspended",
        "_waiting",
    )

    def __init__(self, begin: Callable[[LocalJob], None], concurrency: int, max_queued: int) -> None:
        self._begin = begin
        self._concurrency = concurrency
        self._max_queued = max_queued
        self._waiting: deque[LocalJob] = deque()
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
        return len(self._waiting)

    async def wait_for_room(self, task: str) -> None:
        """Return when a job may be added."""
        # A job that waited here for room would wait for itself: the room comes when jobs end. So what
        # jobs enqueue has room beside the bound, which holds back everybody else.
        # While the engine drains, too: their jobs are part of what is drained.
        if self._in_job():
            return

        while len(self._waiting) >= self._max_queued and not self._closing:
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
        self._waiting.append(job)
        self._fill()

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
            while self._waiting or self._running:
                await self._changed()

        left, self._waiting = self._waiting, deque()

        for job in left:
            job.cancelled = True
            job.finish()

    def _in_job(self) -> bool:
        """Return whether the caller is part of a job of this queue that has not ended."""
        instance = current_instance.get(None)
        return isinstance(instance, LocalJob) and instance.jobs is self and not instance.ended

    def _fill(self) -> None:
        while self._waiting and len(self._running) - self._suspended < self._concurrency:
            job = self._waiting.popleft()
            self._running.add(job)
            self._begin(job)

    def _notify(self) -> None:
        if self._change is not None:
            self._change.set()

    async def _changed(self) -> None:
        if self._change is None or self._change.is_set():
            self._change = anyio.Event()

        await self._change.wait()
