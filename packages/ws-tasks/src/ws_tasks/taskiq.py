"""
Jobs in other processes: taskiq on Redis streams that lose nothing. Needs ``ws-tasks[taskiq]``.

`RedisStreamsBroker` is a broker for taskiq: its command line, middlewares and tasks work with it. A
message is leased by the worker that has it in hand and renewed while it works, so that the lease is
short whatever a job lasts; when the worker dies another one takes the message after the lease. A
message that has ended too many workers becomes a dead letter. `TaskiqEngine` hands the jobs of
`ws_tasks.engine.task` to such a broker, and `run_worker` runs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, cast

import anyio
from anyio.lowlevel import checkpoint
from taskiq import TaskiqMessage, TaskiqResult
from taskiq.exceptions import NoResultError
from taskiq.receiver import Receiver

from ws_core.backoff import delay
from ws_core.errors import UsageError, describe
from ws_tasks._broker import RedisStreamsBroker
from ws_tasks._definitions import current_engine
from ws_tasks._deliveries import cancel_and_wait
from ws_tasks._engine_base import EngineBase
from ws_tasks._job_report import JobReport
from ws_tasks._jobs import JobTask
from ws_tasks._remote_jobs import POLL, RemoteJob, WorkerCall, WorkerHost, current_message, messages
from ws_tasks._results import RedisResults
from ws_tasks._run import execute
from ws_tasks._streams import TRANSIENT
from ws_tasks._validation import check_whole
from ws_tasks.engine import Call, Job, JobStatus, TaskDefinition
from ws_tasks.errors import JobCancelled, JobFailed, ScheduleError
from ws_tasks.interface import Guard, RunStore, TaskEvent
from ws_tasks.observe import enqueuing
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import current_run

__all__ = ("RedisResults", "RedisStreamsBroker", "TaskiqEngine", "run_worker")

logger: logging.Logger = logging.getLogger("ws_tasks")

RedisResults.__module__ = __name__
RedisStreamsBroker.__module__ = __name__


class TaskiqEngine(EngineBase):
    """
    Hands jobs to workers in other processes, through a broker of taskiq.

    The same object serves both sides: a service enters its block to enqueue jobs and to follow
    their schedules, a worker passes it to `run_worker`. Timeouts and retries are those of the
    task's declaration and mean what they mean locally; `current_run` works in the jobs.

    Args:
        tasks: The tasks that can be enqueued, and that a worker runs.
        broker: The broker.
        schedules: Whether to follow the schedules of the tasks here.
        guard: Decides which of several processes enqueues a scheduled job; see `Guard`.
        run_store: Notes when scheduled tasks with ``catch_up`` were enqueued last; see `RunStore`.
        on_event: Called with each `TaskEvent`.

    Raises:
        ScheduleError: Two tasks have one name.

    Example:
        ```python
        from ws_tasks import task
        from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

        @task("double", timeout=10, retries=3)
        async def double(number: int) -> int:
            return number * 2

        engine = TaskiqEngine([double], broker=RedisStreamsBroker("redis://localhost:6379/0"))

        async with engine, run_worker(engine):  # a worker is a process of its own otherwise
            job = await double.enqueue(21)
            assert await job.result(timeout=10) == 42
        ```
    """

    def __init__(
        self,
        tasks: Iterable[TaskDefinition[Any, Any]],
        *,
        broker: RedisStreamsBroker,
        schedules: bool = True,
        guard: Guard | None = None,
        run_store: RunStore | None = None,
        on_event: Callable[[TaskEvent], object] | None = None,
    ) -> None:
        super().__init__(guard, run_store)
        self.broker = broker
        self._schedules = schedules
        self._on_event = on_event
        self._host = WorkerHost(on_event)
        self._scheduler: Scheduler | None = None
        self._name = ""
        self._waiting: dict[str, asyncio.Event] = {}
        self._background: list[asyncio.Task[None]] = []
        self._report: JobReport | None = None

        for definition in tasks:
            self.check(definition)
            # The worker reports a failure, and the job's result has it.
            job_task = self._learn(definition, {"on_error": lambda *_: None})
            broker.register_task(self._runner(job_task), task_name=definition.name)

    def __repr__(self) -> str:
        return f"<TaskiqEngine of {len(self._known)} tasks on queue {self.broker.queue!r}>"

    async def __aenter__(self) -> Self:
        await self.open(schedules=self._schedules)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        current_engine.set(None)
        self._host.pool.close()

        if self._scheduler is not None:
            await self._scheduler.__aexit__()

        await cancel_and_wait(self._background)

        if self._report is not None:
            self._report.close()

        await self.broker.shutdown()

    async def open(self, *, schedules: bool) -> None:
        """Open as ``async with`` does, with or without following schedules."""
        if current_engine.get(None) is not None:
            raise UsageError("an engine is open in this loop already: a loop has one engine")

        self._name = secrets.token_hex(8)
        self._report = report = JobReport(
            {name: task for name, (_, task) in self._known.items()}, self.broker
        )
        self._background = [
            asyncio.create_task(self._listen(), name="ends of jobs"),
            asyncio.create_task(report.follow(), name="report of jobs"),
        ]
        # Anew: an engine of a module is opened again where each test starts the application.
        self._host = WorkerHost(self._on_event)
        self._scheduler = await Scheduler(name="engine", on_event=self._on_event).__aenter__()
        current_engine.set(self)

        if schedules:
            for definition, _ in self._known.values():
                if definition.declaration.schedule is not None:
                    self._enqueue_when_due(self._scheduler, definition)

    async def submit(self, call: Call[Any], *, delay: float = 0.0) -> Job[Any]:
        """
        Hand a job to the workers.

        Raises:
            ScheduleError: The engine was made without this task, so that no worker may know it.
            UnavailableError: Redis did not answer in time.
        """
        for step in (call, *call.following):
            name = step.definition.name

            if name not in self._known or self._known[name][0] is not step.definition:
                message = f"task {name!r} is not one of this engine's: name it when it is made"
                raise ScheduleError(message, task=name)

        return await self._enqueue(call, secrets.token_hex(8), delay)

    def job(self, job_id: str) -> Job[Any]:
        """Return a job by its id, such as one that another process has enqueued."""
        return cast("Job[Any]", RemoteJob(self, job_id))

    async def wait(self, job_id: str) -> TaskiqResult[Any]:
        """Wait for a job to end, and return its result."""
        event = self._waiting.setdefault(job_id, asyncio.Event())

        try:
            while True:
                with contextlib.suppress(*TRANSIENT):
                    if (found := await self.broker.results.find(job_id)) is not None:
                        return found[1]

                # The end is announced. A message may be lost, such as with its connection: then the
                # result is found a little later.
                with anyio.move_on_after(POLL):
                    await event.wait()
                    event.clear()
        finally:
            self._waiting.pop(job_id, None)

    async def status_of(self, job_id: str) -> JobStatus:
        """Return where a job is now."""
        # Twice, for one that ends between the two questions.
        for _ in range(2):
            if (found := await self.broker.results.find(job_id)) is not None:
                return found[0]

            if state := await self.broker.state_of(job_id):
                return cast("JobStatus", state)

        return "unknown"

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it was, which it is not when it had ended before."""
        if not await self.broker.cancel(job_id):
            return False

        cancelled = await self.broker.results.save_cancelled(job_id, {"reply_to": self._name})
        self._wake(job_id)
        return cancelled

    async def _enqueue(
        self, call: Call[Any], job_id: str, delay: float = 0.0, keep: float | None = None
    ) -> Job[Any]:
        declaration = call.definition.declaration
        last = f"{job_id}.{len(call.following)}" if call.following else ""

        with enqueuing(declaration.name) as headers:
            labels: dict[str, Any] = {"reply_to": self._name, "result_ttl": declaration.result_ttl}
            labels |= {"headers": headers, "last": last, "chain": [_encode_step(c) for c in call.following]}
            message = TaskiqMessage(
                task_id=job_id,
                task_name=declaration.name,
                labels={name: value for name, value in labels.items() if value},
                args=call.args,
                kwargs=call.kwargs,
            )
            added = await self.broker.add(
                job_id,
                self.broker.formatter.dumps(message).message,
                delay,
                keep=keep,
                priority=declaration.priority,
                unique=call.unique_key(),
                last=last,
            )

        return self.job(last or added.job)

    def _enqueue_when_due(self, scheduler: Scheduler, definition: TaskDefinition[Any, Any]) -> None:
        """Enqueue a task whenever its schedule says so; the run's id is the job's."""

        async def due() -> None:
            await self._enqueue(definition.bind(), current_run().id, keep=3600.0)

        self._follow(scheduler, definition, due, {})

    def _runner(self, job_task: JobTask) -> Callable[..., Awaitable[Any]]:
        """Return what a worker calls: the same attempts as a local engine makes."""

        async def run(*args: Any, **kwargs: Any) -> Any:  # as the task's function
            self._host.pool.total = self.broker.concurrency
            message = current_message.get()
            labels = message.labels
            last = labels.get("last", "")
            headers = labels.get("headers")
            call = WorkerCall(job_task, args, kwargs, message.task_id, last=last, headers=headers)
            error = await self._run_call(call)

            if call.handed_back:
                raise NoResultError

            if error is None and labels.get("chain"):
                await self._continue(message, call.value)
            elif error is not None:
                await self.broker.end_chain(message, error)
                raise error

            return call.value

        return run

    async def _run_call(self, call: WorkerCall) -> JobFailed | JobCancelled | None:
        """Run a job; return how it has failed."""
        failure: JobFailed | JobCancelled | None = None
        self.broker.begun(call)
        call.task.started += 1
        call.task.active += (call,)
        began = time.monotonic()

        try:
            with anyio.CancelScope() as call.scope:
                if call.last and await self.broker.state_of(call.last) == "cancelled":
                    call.interrupt()  # the chain was cancelled before this step began
                    await checkpoint()

                await execute(self._host, call)

            if call.handed_back:
                pass  # another worker begins it anew
            elif call.scope.cancelled_caught:
                call.task.counters.cancelled += 1
                message = f"job {call.id} of task {call.task.name!r} was cancelled while it ran"
                failure = JobCancelled(message, task=call.task.name, job=call.id)
            elif call.failure is not None:
                failure = JobFailed.of(call.failure)
        finally:
            call.task.active = tuple(other for other in call.task.active if other is not call)
            call.task.last_duration = time.monotonic() - began
            self.broker.ended(call, failure)

        return failure

    async def _continue(self, message: TaskiqMessage, value: object) -> None:
        """Enqueue the next step of a chain, once, however often this one is run."""
        step, *others = message.labels["chain"]
        root, _, number = message.task_id.partition(".")
        labels = {name: value for name, value in message.labels.items() if name != "chain"}
        labels |= {"chain": others} if others else {}
        labels |= {"result_ttl": step["result_ttl"]} if step["result_ttl"] else {}
        following = TaskiqMessage(
            task_id=f"{root}.{int(number or 0) + 1}",
            task_name=step["task"],
            labels=labels,
            args=[value, *step["args"]],
            kwargs=step["kwargs"],
        )
        data = self.broker.formatter.dumps(following).message
        await self.broker.add(following.task_id, data, priority=step["priority"], last=message.labels["last"])

    async def _listen(self) -> None:
        """Wake those that wait for jobs that have ended."""
        failures = 0

        while True:
            pubsub, channel = self.broker.results.subscribe(self._name)

            if pubsub is None:
                return  # an older client of clusters: results are looked for now and then

            try:
                await pubsub.subscribe(channel)

                async for message in messages(pubsub):
                    failures = 0
                    self._wake(message)
            except TRANSIENT as error:
                failures += 1
                logger.debug("ends of jobs are not announced for now: %s", describe(error))
            finally:
                await pubsub.aclose()  # its connection is one of the client's

            await asyncio.sleep(delay(failures, 0.1, 2.0))

    def _wake(self, job_id: str) -> None:
        if (event := self._waiting.get(job_id)) is not None:
            event.set()


def _encode_step(call: Call[Any]) -> dict[str, Any]:
    """Return a later step of a chain for a message, complete for workers that do not know its task."""
    declaration = call.definition.declaration
    return {
        "task": declaration.name,
        "args": call.args,
        "kwargs": call.kwargs,
        "priority": declaration.priority,
        "result_ttl": declaration.result_ttl,
    }


@contextlib.asynccontextmanager
async def run_worker(
    engine: TaskiqEngine,
    *,
    concurrency: int | None = None,
    drain_timeout: float = 30.0,
    schedules: bool = False,
) -> AsyncIterator[Receiver]:
    """
    Run jobs in this process for the length of a block.

    At its end no more jobs begin; those under way have ``drain_timeout`` seconds, and what is left
    is cancelled and handed back: another worker begins it anew. Jobs may enqueue others: the engine
    is opened when it is not open yet.

    Args:
        engine: The engine whose tasks to run.
        concurrency: How many jobs at once; by default the broker's number.
        drain_timeout: Seconds for the jobs under way at the end.
        schedules: Whether to follow the schedules of the engine's tasks here, when it is not open yet.

    Yields:
        taskiq's receiver.

    Example:
        ```python
        from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

        broker = RedisStreamsBroker("redis://localhost:6379/0", queue="mail", concurrency=10)

        async with run_worker(TaskiqEngine([], broker=broker)):
            pass  # in a program: until a signal comes
        ```
    """
    broker = engine.broker

    if concurrency is not None:
        broker.concurrency = check_whole("concurrency", concurrency, 1)

    broker.is_worker_process = True
    stop = asyncio.Event()

    async with contextlib.AsyncExitStack() as stack:
        if current_engine.get(None) is None:
            await engine.open(schedules=schedules)
            stack.push_async_exit(engine.__aexit__)

        most = broker.concurrency
        receiver = Receiver(
            broker, max_async_tasks=most, wait_tasks_timeout=drain_timeout, validate_params=False
        )
        listening = asyncio.get_running_loop().create_task(receiver.listen(stop))

        try:
            yield receiver
        finally:
            stop.set()

            with anyio.CancelScope(shield=True):
                await asyncio.gather(listening, return_exceptions=True)
                await broker.shutdown()
