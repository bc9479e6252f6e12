"""Jobs that cross processes: the call in the worker, and the one that waits for it elsewhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import anyio
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from ws_tasks._clock import Clock, SystemClock
from ws_tasks._instance import Instance, ManagedTask, Watched
from ws_tasks._job_handles import JobStatus
from ws_tasks._jobs import JobCall, JobTask
from ws_tasks._threads import ThreadPool
from ws_tasks._validation import check_wait
from ws_tasks.interface import TaskEvent

logger = logging.getLogger("ws_tasks")

POLL = 2.0  # seconds after which a result is looked for, in case its message was lost

current_message: ContextVar[TaskiqMessage] = ContextVar("ws_tasks_current_message")
"""The message whose job the running code is part of."""


class CurrentMessage(TaskiqMiddleware):
    """Notes the message that a worker runs: taskiq passes on its arguments only."""

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Note a message, in the task that runs it."""
        current_message.set(message)
        return message


class Remote(Protocol):
    """The engine as its jobs see it."""

    async def wait(self, job_id: str) -> TaskiqResult[Any]:
        """Wait for a job to end, and return its result."""
        ...

    async def status_of(self, job_id: str) -> JobStatus:
        """Return where a job is now."""
        ...

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it was."""
        ...


class RemoteJob:
    """A job that runs elsewhere."""

    def __init__(self, engine: Remote, job_id: str) -> None:
        self._engine = engine
        self._result: TaskiqResult[Any] | None = None
        self.id: str = job_id

    @property
    def done(self) -> bool:
        """Whether the end of the job is known here."""
        return self._result is not None

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its value, or raise JobFailed."""
        if self._result is None:
            with anyio.fail_after(check_wait("timeout", timeout)):
                self._result = await self._engine.wait(self.id)

        if self._result.error is not None:
            raise self._result.error

        return self._result.return_value

    async def status(self) -> JobStatus:
        """Return where the job is now."""
        return await self._engine.status_of(self.id)

    async def cancel(self) -> bool:
        """Cancel the job; return whether it was, which it is not when it had ended before."""
        return await self._engine.cancel(self.id)


class WorkerHost:
    """What runs need of a scheduler, in a worker."""

    def __init__(self, on_event: Callable[[TaskEvent], object] | None) -> None:
        self.clock: Clock = SystemClock()
        self.pool: ThreadPool = ThreadPool(1)  # as many as the worker's jobs, when it is known
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


class WorkerCall(JobCall):
    """One job in a worker."""

    __slots__ = ("handed_back", "last")

    def __init__(
        self,
        task: JobTask,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        job_id: str,
        *,
        last: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        super().__init__(task, args, kwargs, job_id)
        self.last: str = last  # the last job of the chain that this one is a step of
        self.headers: Mapping[str, str] = headers or {}
        self.handed_back: bool = False  # interrupted at the worker's end: it has no result here


async def messages(pubsub: Any) -> AsyncIterator[str]:  # Any: redis-py's PubSub is untyped
    """Yield the messages of a subscription."""
    while True:
        found = await pubsub.get_message(ignore_subscribe_messages=True, timeout=POLL)

        if found is not None:
            data = found["data"]
            yield data.decode() if isinstance(data, bytes) else str(data)
