"""
Jobs in other processes: taskiq on a Redis stream that loses nothing. Needs ``ws-tasks[taskiq]``.

`RedisStreamsBroker` is a broker for taskiq: its command line, middlewares and tasks work with it. A
message is leased by the worker that has it in hand and renewed while it works, so that the lease is
short whatever a job lasts; when the worker dies another one takes the message after the lease. A
message that has ended too many workers becomes a dead letter. `TaskiqEngine` hands the jobs of
`ws_tasks.engine.task` to such a broker, and `run_worker` runs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, cast

import anyio
import redis.asyncio
from taskiq import (
    AckableMessage,
    AsyncBroker,
    AsyncResultBackend,
    BrokerMessage,
    TaskiqMessage,
    TaskiqResult,
)
from taskiq.receiver import Receiver

from ws_core.backoff import delay
from ws_core.errors import UnavailableError, UsageError, describe
from ws_tasks._deliveries import Deliveries, cancel_and_wait
from ws_tasks._jobs import JobTask
from ws_tasks._options import TaskOptions
from ws_tasks._remote_jobs import (
    POLL,
    RemoteJob,
    WorkerCall,
    WorkerHost,
    decode_result,
    encode_result,
    messages,
    result_key,
)
from ws_tasks._run import execute
from ws_tasks._streams import TRANSIENT, StreamQueue
from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.engine import Job, TaskDefinition, current_engine
from ws_tasks.errors import JobFailed, ScheduleError
from ws_tasks.interface import Guard, TaskEvent
from ws_tasks.scheduler import Scheduler
from ws_tasks.tasks import CrontabTask, IntervalTask, current_run

__all__ = ("RedisResults", "RedisStreamsBroker", "TaskiqEngine", "run_worker")

logger: logging.Logger = logging.getLogger("ws_tasks")

_CONNECTIONS = 32


def _client_of(source: Any) -> tuple[Any, bool]:  # Any: redis-py's clients are untyped
    """Return the client of a URL, a client, or a pool with such a client as ``.redis``."""
    if isinstance(source, str):
        # Callers wait for one of so many connections; the driver's plain pool raises instead.
        pool = redis.asyncio.BlockingConnectionPool.from_url(source, max_connections=_CONNECTIONS)
        return redis.asyncio.Redis.from_pool(pool), True

    return getattr(source, "redis", source), False


class RedisResults(AsyncResultBackend[Any]):
    """
    The results of jobs in Redis, as JSON, and a message to the one that waits for them.

    Args:
        redis: A ``redis.asyncio`` client, a pool with such a client as ``.redis``, or a URL.
        ttl: Seconds for which a result is kept.
    """

    def __init__(self, redis: Any, *, ttl: float = 3600.0) -> None:  # Any: as in _client_of
        self._client, self._owned = _client_of(redis)
        self._ttl = round(check_seconds("result_ttl", ttl) * 1000)

    async def shutdown(self) -> None:
        """Close an own client."""
        if self._owned:
            await self._client.aclose()

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Save a result, however long Redis is away: the message is acknowledged afterwards only."""
        text = encode_result(result)
        failures = 0

        while True:
            try:
                await self._client.set(result_key(task_id), text, px=self._ttl)

                if reply_to := result.labels.get("reply_to"):
                    await self._client.publish(f"wst:done:{reply_to}", task_id)
            except TRANSIENT as error:
                failures += 1
                logger.warning("the result of job %s is not saved yet: %s", task_id, describe(error))
                await asyncio.sleep(delay(failures, 0.1, 5.0))
            else:
                return

    async def is_result_ready(self, task_id: str) -> bool:
        """Return whether a job has ended."""
        return bool(await self._client.exists(result_key(task_id)))

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:  # noqa: FBT001, FBT002 - taskiq's
        """Return the result of a job that has ended."""
        text = await self._client.get(result_key(task_id))

        if text is None:
            raise UsageError(f"job {task_id} has no result, or it has expired", job=task_id)

        return decode_result(task_id, text)

    def subscribe(self, name: str) -> Any:  # Any: redis-py's PubSub is untyped
        """Return a subscription to the ends of jobs that were enqueued under this name."""
        return self._client.pubsub(), f"wst:done:{name}"


class RedisStreamsBroker(AsyncBroker):
    """
    A taskiq broker on a Redis stream: leases with heartbeats, a delivery limit, dead letters, delays.

    A message is delivered at least once: it may be run twice only when its worker was killed, or
    stopped for longer than ``lease``, while it had the message in hand. A worker never takes more
    messages than ``concurrency``, keeps those it does not know the task of for others, and hands
    back at its end what it has not begun. The label ``delay`` of a task holds it back for seconds.

    Args:
        redis: A ``redis.asyncio`` client, a pool with such a client as ``.redis``, or a URL.
        queue: Names the queue.
        lease: Seconds without a sign of life after which a message is another worker's.
        max_deliveries: How often a message is delivered; after that it is a dead letter. The last
            delivery runs alone in its worker, so that it harms no other.
        concurrency: How many messages a worker has in hand; give its command line the same number.
        result_ttl: Seconds for which results are kept.
        enqueue_timeout: Seconds for which enqueuing tries to reach Redis.

    Raises:
        ScheduleError: An option is wrong.
    """

    def __init__(
        self,
        redis: Any,  # as in _client_of
        *,
        queue: str = "default",
        lease: float = 5.0,
        max_deliveries: int = 3,
        concurrency: int = 100,
        result_ttl: float = 3600.0,
        enqueue_timeout: float = 10.0,
    ) -> None:
        super().__init__()
        self._client, self._owned = _client_of(redis)
        self.queue: str = queue
        self.lease: float = check_seconds("lease", lease)
        self.max_deliveries: int = check_whole("max_deliveries", max_deliveries, 1)
        self._enqueue_timeout = check_seconds("enqueue_timeout", enqueue_timeout)
        self._stream = StreamQueue(self._client, queue, self.lease)
        self.results: RedisResults = RedisResults(self._client, ttl=result_ttl)
        self.with_result_backend(self.results)
        self._deliveries = Deliveries(
            self._stream,
            queue,
            lease=self.lease,
            max_deliveries=self.max_deliveries,
            concurrency=check_whole("concurrency", concurrency, 1),
            load=lambda data: self.formatter.loads(message=data),
            knows=lambda name: self.find_task(name) is not None,
            on_dead=self._on_dead,
        )

    @property
    def concurrency(self) -> int:
        """How many messages a worker has in hand."""
        return self._deliveries.concurrency

    @concurrency.setter
    def concurrency(self, number: int) -> None:
        self._deliveries.concurrency = check_whole("concurrency", number, 1)

    async def kick(self, message: BrokerMessage) -> None:
        """
        Add a message, once, however often that has to be tried.

        Raises:
            UnavailableError: Redis did not answer in time. The message may have been added.
        """
        labels = message.labels
        await self.add(message.task_id, message.message, float(labels.get("delay", 0) or 0))

    async def add(self, job_id: str, data: bytes, delay_for: float = 0.0, keep: float | None = None) -> bool:
        """
        Add an encoded message.

        Args:
            job_id: Its id: a second message of one id adds nothing.
            data: The message as the formatter encodes it.
            delay_for: Seconds for which it is held back.
            keep: Seconds for which the id is remembered; 600 by default.

        Returns:
            Whether it was added.

        Raises:
            UnavailableError: Redis did not answer in time.
        """
        failures = 0

        with anyio.move_on_after(self._enqueue_timeout):
            while True:
                try:
                    return await self._stream.add(job_id, data, delay_for, keep)
                except TRANSIENT as error:
                    failures += 1
                    logger.debug("job %s is not enqueued yet: %s", job_id, describe(error))
                    await asyncio.sleep(delay(failures, 0.05, 1.0))

        message = f"job {job_id} was not enqueued within {self._enqueue_timeout:g} s: Redis did not answer"
        raise UnavailableError(message, job=job_id, queue=self.queue)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages to run, until the generator is closed."""
        self._deliveries.start()

        try:
            while True:
                delivery = await self._deliveries.next()
                yield AckableMessage(
                    data=delivery.data, ack=functools.partial(self._deliveries.done, delivery)
                )
        finally:
            await self._deliveries.stop()

    async def shutdown(self) -> None:
        """Hand back what is not done, and close an own client."""
        await self._deliveries.close()
        await super().shutdown()

        if self._owned:
            await self._client.aclose()

    async def _on_dead(self, message: TaskiqMessage, reason: str) -> None:
        text = f"job {message.task_id} of task {message.task_name!r} is a dead letter: {reason}"
        result: TaskiqResult[Any] = TaskiqResult(
            is_err=True, return_value=None, execution_time=0.0, labels=message.labels, error=JobFailed(text)
        )
        await self.results.set_result(message.task_id, result)

    def statistics(self) -> dict[str, int]:
        """Count the messages that were run twice, and the dead letters, as far as this worker saw them."""
        return {"doubled": self._deliveries.doubled, "dead": self._deliveries.buried}


class TaskiqEngine:
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
        on_event: Callable[[TaskEvent], object] | None = None,
    ) -> None:
        self.broker = broker
        self._guard = guard
        self._schedules = schedules
        self._known: dict[str, TaskDefinition[Any, Any]] = {}
        self._host = WorkerHost(on_event)
        self._scheduler = Scheduler(name="engine", on_event=on_event)
        self._name = ""
        self._waiting: dict[str, asyncio.Event] = {}
        self._listener: asyncio.Task[None] | None = None
        self._pubsub: Any = None  # redis-py's PubSub is untyped

        for definition in tasks:
            self.check(definition)
            self._known[definition.name] = definition
            broker.register_task(self._runner(definition), task_name=definition.name)

    def __repr__(self) -> str:
        return f"<TaskiqEngine of {len(self._known)} tasks on queue {self.broker.queue!r}>"

    async def __aenter__(self) -> Self:
        if current_engine.get(None) is not None:
            raise UsageError("an engine is open in this loop already: a loop has one engine")

        self._name = secrets.token_hex(8)
        self._listener = asyncio.get_running_loop().create_task(self._listen())
        await self._scheduler.__aenter__()
        current_engine.set(self)

        if self._schedules:
            for definition in self._known.values():
                if definition.declaration.schedule is not None:
                    self._follow(definition)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current_engine.set(None)
        await self._scheduler.__aexit__(kind, error, trace)

        if self._listener is not None:
            await cancel_and_wait([self._listener])

        if self._pubsub is not None:
            await self._pubsub.aclose()

        await self.broker.shutdown()

    def check(self, definition: TaskDefinition[Any, Any]) -> None:
        """Refuse two tasks of one name."""
        known = self._known.get(definition.name)

        if known is not None and known is not definition:
            raise ScheduleError(f"two tasks are named {definition.name!r}: rename one", task=definition.name)

    async def submit(
        self, definition: TaskDefinition[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> Job[Any]:
        """
        Hand a job to the workers.

        Raises:
            ScheduleError: The engine was made without this task, so that no worker may know it.
            UnavailableError: Redis did not answer in time.
        """
        if self._known.get(definition.name) is not definition:
            message = f"task {definition.name!r} is not one of this engine's: name it when it is made"
            raise ScheduleError(message, task=definition.name)

        return await self._enqueue(definition, secrets.token_hex(8), args, kwargs)

    async def wait(self, job_id: str) -> TaskiqResult[Any]:
        """Wait for a job to end, and return its result."""
        event = self._waiting.setdefault(job_id, asyncio.Event())

        try:
            while True:
                with contextlib.suppress(*TRANSIENT):
                    if await self.broker.results.is_result_ready(job_id):
                        return await self.broker.results.get_result(job_id)

                # The end is announced. A message may be lost, such as with its connection: then the
                # result is found a little later.
                with anyio.move_on_after(POLL):
                    await event.wait()
                    event.clear()
        finally:
            self._waiting.pop(job_id, None)

    async def _enqueue(
        self,
        definition: TaskDefinition[Any, Any],
        job_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        keep: float | None = None,
    ) -> Job[Any]:
        message = TaskiqMessage(
            task_id=job_id,
            task_name=definition.name,
            labels={"reply_to": self._name},
            args=args,
            kwargs=kwargs,
        )
        await self.broker.add(job_id, self.broker.formatter.dumps(message).message, keep=keep)
        return cast("Job[Any]", RemoteJob(self.wait, job_id))

    def _follow(self, definition: TaskDefinition[Any, Any]) -> None:
        """Enqueue a task whenever its schedule says so; the run's id is the job's."""

        async def due() -> None:
            await self._enqueue(definition, current_run().id, [], {}, keep=3600.0)

        schedule = definition.declaration.schedule
        options: TaskOptions = {"name": f"schedule of {definition.name}", "guard": self._guard}

        if isinstance(schedule, str):
            self._scheduler.add(CrontabTask(schedule, due, tz=definition.declaration.tz, **options))
        else:
            self._scheduler.add(IntervalTask(cast("float", schedule), due, **options))

    def _runner(self, definition: TaskDefinition[Any, Any]) -> Callable[..., Awaitable[Any]]:
        """Return what a worker calls: the same attempts as a local engine makes."""
        options: TaskOptions = {
            "name": definition.name,
            "timeout": definition.declaration.timeout,
            "retries": definition.declaration.retries,
            "on_error": lambda *_: None,  # the worker reports it, and the job's result has it
        }
        job_task = JobTask(definition.func, (), options)

        async def run(*args: Any, **kwargs: Any) -> Any:  # as the task's function
            if self._host.limiter is None:
                self._host.limiter = anyio.CapacityLimiter(self.broker.concurrency)

            call = WorkerCall(job_task, args, kwargs)
            await execute(self._host, call)

            if call.failure is not None:
                raise JobFailed.of(call.failure)

            return call.value

        return run

    async def _listen(self) -> None:
        """Wake those that wait for jobs that have ended."""
        failures = 0

        while True:
            try:
                self._pubsub, channel = self.broker.results.subscribe(self._name)
                await self._pubsub.subscribe(channel)

                async for message in messages(self._pubsub):
                    failures = 0

                    if (event := self._waiting.get(message)) is not None:
                        event.set()
            except TRANSIENT as error:
                failures += 1
                logger.debug("ends of jobs are not announced for now: %s", describe(error))
                await asyncio.sleep(delay(failures, 0.1, 2.0))


@contextlib.asynccontextmanager
async def run_worker(
    engine: TaskiqEngine, *, concurrency: int | None = None, drain_timeout: float = 30.0
) -> AsyncIterator[Receiver]:
    """
    Run jobs in this process for the length of a block.

    At its end no more jobs begin; those under way have ``drain_timeout`` seconds, and what is left
    is handed back.

    Args:
        engine: The engine whose tasks to run.
        concurrency: How many jobs at once; by default the broker's number.
        drain_timeout: Seconds for the jobs under way at the end.

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
    receiver = Receiver(
        broker, max_async_tasks=broker.concurrency, wait_tasks_timeout=drain_timeout, validate_params=False
    )
    listening = asyncio.get_running_loop().create_task(receiver.listen(stop))

    try:
        yield receiver
    finally:
        stop.set()

        with anyio.CancelScope(shield=True):
            await asyncio.gather(listening, return_exceptions=True)
            await broker.shutdown()
