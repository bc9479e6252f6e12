"""Jobs that cross processes: the call in the worker, its result as JSON, and the one that waits for it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from taskiq import TaskiqResult

from ws_core.errors import UsageError
from ws_tasks._clock import Clock, SystemClock
from ws_tasks._instance import Instance, ManagedTask, Watched
from ws_tasks._jobs import JobTask
from ws_tasks.errors import JobFailed
from ws_tasks.interface import TaskEvent

__all__ = (
    "POLL",
    "RemoteJob",
    "WorkerCall",
    "WorkerHost",
    "decode_result",
    "encode_result",
    "messages",
    "result_key",
)

logger = logging.getLogger("ws_tasks")

POLL = 2.0  # seconds after which a result is looked for, in case its message was lost


class RemoteJob:
    """A job that runs elsewhere."""

    def __init__(self, wait: Callable[[str], Awaitable[TaskiqResult[Any]]], job_id: str) -> None:
        self._wait = wait
        self._result: TaskiqResult[Any] | None = None
        self.id: str = job_id

    @property
    def done(self) -> bool:
        """Whether the end of the job is known here."""
        return self._result is not None

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its value, or raise JobFailed."""
        if self._result is None:
            with anyio.fail_after(timeout):
                self._result = await self._wait(self.id)

        if self._result.error is not None:
            raise self._result.error

        return self._result.return_value


class WorkerHost:
    """What runs need of a scheduler, in a worker."""

    def __init__(self, on_event: Callable[[TaskEvent], object] | None) -> None:
        self.clock: Clock = SystemClock()
        self.limiter: anyio.CapacityLimiter | None = None
        self.threads: set[Instance] = set()
        self._on_event = on_event

    def emit(self, event: TaskEvent) -> None:
        """Report an event."""
        logger.debug("task %r: %s: %s", event.task, event.kind, event.detail)

        if self._on_event is not None:
            self._on_event(event)

    def remove_if_finished(self, task: ManagedTask) -> None:
        """Do nothing: a job's task stays."""

    def claimer_of(self, task: ManagedTask) -> str:
        """Return no name: jobs claim nothing."""
        return ""

    def watch(self, watched: Watched, seconds: float) -> None:
        """Do nothing: the queue watches over jobs."""


class WorkerCall(Instance):
    """One job in a worker."""

    __slots__ = ("_args", "_kwargs")

    def __init__(self, task: JobTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(task, SystemClock().time())
        self._args = args
        self._kwargs = kwargs

    def call(self) -> Any:  # whatever the function returns
        """Call the function with the job's own arguments."""
        return self.task.func(*self._args, **self._kwargs)

    def accept(self, value: object) -> None:
        """Take what the function returned; what is not JSON is a failure."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"the result of task {self.task.name!r} is not JSON: {error}"
            raise UsageError(message, task=self.task.name) from error

        self.value = value


async def messages(pubsub: Any) -> AsyncIterator[str]:  # Any: redis-py's PubSub is untyped
    """Yield the messages of a subscription."""
    while True:
        found = await pubsub.get_message(ignore_subscribe_messages=True, timeout=POLL)

        if found is not None:
            data = found["data"]
            yield data.decode() if isinstance(data, bytes) else str(data)


def result_key(job_id: str) -> str:
    """Return the key of a job's result."""
    return f"wst:result:{job_id}"


def encode_result(result: TaskiqResult[Any]) -> str:
    """Return a result as JSON; one that is not JSON is a failure that says so."""
    error = result.error

    if error is None:
        try:
            return json.dumps({"value": result.return_value}, allow_nan=False)
        except (TypeError, ValueError) as problem:
            error = UsageError(f"the result is not JSON: {problem}")

    failed = JobFailed.of(error)
    return json.dumps({"error": failed.error_type, "message": str(failed)})


def decode_result(job_id: str, text: str | bytes) -> TaskiqResult[Any]:
    """Return a result from JSON."""
    found = json.loads(text)
    error = None

    if "error" in found:
        error = JobFailed(found["message"], error_type=found["error"], job=job_id)

    return TaskiqResult(
        is_err=error is not None,
        return_value=found.get("value"),
        execution_time=math.nan,
        error=error,
    )
