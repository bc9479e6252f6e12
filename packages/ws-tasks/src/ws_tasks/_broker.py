"""A taskiq broker on Redis streams; see `ws_tasks.taskiq`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
from taskiq import AckableMessage, AsyncBroker, BrokerMessage, TaskiqMessage, TaskiqResult

from ws_core.errors import UnavailableError, describe
from ws_tasks._deliveries import Deliveries
from ws_tasks._remote_jobs import CurrentMessage, WorkerCall, messages
from ws_tasks._requests import MOST
from ws_tasks._results import RedisResults, requests_of
from ws_tasks._streams import PRIORITIES, TRANSIENT, Added, StreamQueue, persist
from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.errors import JobCancelled, JobFailed, ScheduleError

logger = logging.getLogger("ws_tasks")

T = TypeVar("T")

_NOTE = 1.0  # seconds between two notes of how jobs have ended
_CLEAN_UP = 5.0  # seconds for cancelled jobs at a worker's end
_NEVER = 3600.0  # seconds of sleep for what this client cannot do


class RedisStreamsBroker(AsyncBroker):
    """
    A taskiq broker on Redis streams: leases with heartbeats, a delivery limit, dead letters, delays.

    A message is delivered at least once: it may be run twice only when its worker was killed, or
    stopped for longer than ``lease``, while it had the message in hand. A worker never takes more
    messages than ``concurrency``, keeps those it does not know the task of for others, and hands
    back at its end what it has not begun. The label ``delay`` of a task holds it back for seconds, the
    label ``priority`` is high, normal or low.

    Args:
        redis: A ``redis.asyncio`` client, a pool with such a client as ``.redis``, a manager of
            pools, or a URL.
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
        redis: object,
        *,
        queue: str = "default",
        lease: float = 5.0,
        max_deliveries: int = 3,
        concurrency: int = 100,
        result_ttl: float = 3600.0,
        enqueue_timeout: float = 10.0,
    ) -> None:
        super().__init__()
        requests, self._owned = requests_of(redis)
        self._requests = requests
        # A client of somebody else's may have any number of connections, or share one.
        self._turns: contextlib.AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(MOST) if self._owned else contextlib.nullcontext()
        )
        self.queue: str = queue
        self.lease: float = check_seconds("lease", lease)
        self.max_deliveries: int = check_whole("max_deliveries", max_deliveries, 1)
        self._enqueue_timeout = check_seconds("enqueue_timeout", enqueue_timeout)
        self._stream = StreamQueue(requests, queue, self.lease)
        self.results: RedisResults = RedisResults(requests, ttl=result_ttl)
        self.with_result_backend(self.results)
        self.add_middlewares(CurrentMessage())
        self._running: set[WorkerCall] = set()
        self._outcomes: dict[str, str] = {}
        self._deliveries = Deliveries(
            self._stream,
            queue,
            lease=self.lease,
            max_deliveries=self.max_deliveries,
            concurrency=check_whole("concurrency", concurrency, 1),
            load=lambda data: self.formatter.loads(message=data),
            knows=lambda name: self.find_task(name) is not None,
            on_dead=self._on_dead,
            on_cancelled=self._on_cancelled,
            cancel=self._interrupt,
            beside=(self._follow_cancels, self._note_outcomes),
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
            ScheduleError: The label ``priority`` is wrong.
            UnavailableError: Redis did not answer in time. The message may have been added.
        """
        labels = message.labels
        priority = str(labels.get("priority", "normal"))

        if priority not in PRIORITIES:
            raise ScheduleError(f"priority={priority!r} is wrong: use high, normal or low", option="priority")

        held_back = float(labels.get("delay", 0) or 0)
        # Known by a name of its own: taskiq's retries enqueue again under the id of the job.
        request = secrets.token_hex(8)
        await self.add(message.task_id, message.message, held_back, request=request, priority=priority)

    async def add(
        self,
        job_id: str,
        data: bytes,
        delay_for: float = 0.0,
        *,
        keep: float | None = None,
        request: str | None = None,
        priority: str = "normal",
        unique: str = "",
        last: str = "",
    ) -> Added:
        """
        Add an encoded message.

        Args:
            job_id: Its id: a second message of one id adds nothing.
            data: The message as the formatter encodes it.
            delay_for: Seconds for which it is held back.
            keep: Seconds for which the id is remembered; 600 by default.
            request: What is remembered in place of the id.
            priority: One of `PRIORITIES`.
            unique: A key that no other job in the queue has at the same time.
            last: The id of the last job of the chain that this one is a step of.

        Returns:
            Whether it was added, and the id of the job, or of the one that has the key already.

        Raises:
            UnavailableError: Redis did not answer in time.
        """
        what = f"job {job_id} was not enqueued"
        options: dict[str, Any] = {"keep": keep, "request": request, "priority": priority}
        options |= {"unique": unique, "last": last}
        return await self._request(what, lambda: self._stream.add(job_id, data, delay_for, **options))

    async def cancel(self, job_id: str) -> str:
        """
        Mark a job as cancelled: it is not begun any more, and interrupted where it runs.

        Returns:
            The state that it was in; empty when it had ended.

        Raises:
            UnavailableError: Redis did not answer in time.
        """
        return await self._request(f"job {job_id} was not cancelled", lambda: self._stream.cancel(job_id))

    async def state_of(self, job_id: str) -> str:
        """Return the state of a job that has not ended; empty for all others."""
        return await self._request(f"job {job_id} was not found", lambda: self._stream.state(job_id))

    async def outcomes(self) -> dict[str, dict[str, Any]]:
        """Return how the last job of each task has ended, as far as workers have noted it: at, ok, detail."""
        found = await self._request("the outcomes were not read", self._stream.read_outcomes)
        return {task: json.loads(outcome) for task, outcome in found.items()}

    async def depth(self) -> dict[str, int]:
        """Count what waits: jobs by priority (with those in hand), delayed ones, dead letters."""
        return await self._request("the queue was not counted", self._stream.depth)

    async def dead_letters(self, count: int = 100) -> list[dict[str, Any]]:
        """
        Return the newest dead letters, the newest first.

        Args:
            count: How many at most.

        Returns:
            Of each ``at`` (Unix time), ``job`` and ``task`` (empty when the data cannot be read),
            ``reason``, ``deliveries`` and ``data``.
        """
        found = await self._request(
            "the dead letters were not read",
            lambda: self._stream.dead_letters(check_whole("count", count, 1)),
        )
        return [self._dead_letter(id_, fields) for id_, fields in found]

    def _dead_letter(self, id_: str, fields: dict[str, bytes]) -> dict[str, Any]:
        try:
            message = self.formatter.loads(message=fields["data"])
            job, task = message.task_id, message.task_name
        except Exception:  # noqa: BLE001 - data of anybody; that it cannot be read may be why it is here
            job = task = ""

        return {
            "at": int(id_.partition("-")[0]) / 1000,
            "job": job,
            "task": task,
            "reason": fields["reason"].decode(errors="replace"),
            "deliveries": int(fields["deliveries"]),
            "data": fields["data"],
        }

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
        """Cancel and hand back what is not done, and close an own client."""
        await self._hand_back_running()
        await self._deliveries.close()
        await super().shutdown()

        if self._owned:
            await self._requests.client.aclose()

    def statistics(self) -> dict[str, int]:
        """Count the jobs that were run twice, and the dead letters, as far as this worker saw them."""
        return {"doubled": self.results.doubled, "dead": self._deliveries.dead_lettered}

    # For the engine.

    def begun(self, call: WorkerCall) -> None:
        """Note that a job runs here, so that it can be cancelled."""
        self._running.add(call)

    def ended(self, call: WorkerCall, error: BaseException | None) -> None:
        """Note how a job has ended."""
        self._running.discard(call)
        call.finish()

        if call.handed_back:
            return

        detail = "" if error is None else describe(error, with_type=True)
        outcome = {"at": time.time(), "ok": error is None, "detail": detail, "job": call.id}
        self._outcomes[call.task.name] = json.dumps(outcome)

    async def end_chain(self, message: TaskiqMessage, error: Exception) -> None:
        """Save the error of a step for the last job of a chain, however long Redis is away."""
        last = message.labels.get("last")

        if not last or last == message.task_id:
            return

        await self.results.set_result(last, _failed(message, error))
        await persist(lambda: self._stream.forget(last), f"job {last} is not forgotten")

    async def _hand_back_running(self) -> None:
        """Cancel the jobs that run here, which are another worker's then: they have no result here."""
        left = [*self._running]
        self._deliveries.keep({call.id for call in left})

        for call in left:
            logger.warning(
                "job %s of task %r was not done in time: it is cancelled and handed back",
                call.id,
                call.task.name,
            )
            call.handed_back = True
            call.interrupt()

        with anyio.move_on_after(_CLEAN_UP):
            for call in left:
                await call.wait()

    async def _request(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a request until Redis answers, for the enqueue timeout at most."""
        # The time until a request is sent, of thousands that are made at once, does not count: it
        # says nothing of Redis.
        async with self._turns:
            with anyio.move_on_after(self._enqueue_timeout):
                return await persist(call, what, first=0.05, most=1.0)

        message = f"{what} within {self._enqueue_timeout:g} s: Redis did not answer"
        raise UnavailableError(message, queue=self.queue)

    async def _on_dead(self, message: TaskiqMessage, reason: str) -> None:
        text = f"job {message.task_id} of task {message.task_name!r} is a dead letter: {reason}"
        error = JobFailed(text)
        await self.results.set_result(message.task_id, _failed(message, error))
        await self.end_chain(message, error)

    async def _on_cancelled(self, message: TaskiqMessage) -> None:
        """Note that a job was cancelled before it began; the one that cancelled it may be gone."""
        await self.results.save_cancelled(message.task_id, message.labels)
        error = JobCancelled(f"job {message.task_id} of the chain was cancelled", job=message.task_id)
        await self.end_chain(message, error)

    def _interrupt(self, job_id: str) -> None:
        """Cancel the job, or the step of a chain, that runs here."""
        for call in [call for call in self._running if job_id in {call.id, call.last}]:
            call.interrupt()

    async def _follow_cancels(self) -> float:
        """Cancel jobs as soon as that is announced; renewing leases finds what is missed here."""
        client = self._requests.client

        if not hasattr(client, "pubsub"):
            return _NEVER

        pubsub = client.pubsub()

        try:
            await pubsub.subscribe(self._stream.cancels)

            async for job_id in messages(pubsub):
                self._interrupt(job_id)
        finally:
            await pubsub.aclose()

        raise AssertionError  # pragma: no cover - a subscription does not end

    async def _note_outcomes(self) -> float:
        """Write down now and then how the last job of each task has ended."""
        if self._outcomes:
            noted, self._outcomes = self._outcomes, {}

            try:
                await self._stream.note_outcomes(noted)
            except TRANSIENT:
                self._outcomes = noted | self._outcomes
                raise

        return _NOTE


def _failed(message: TaskiqMessage, error: Exception) -> TaskiqResult[Any]:
    return TaskiqResult(
        is_err=True, return_value=None, execution_time=0.0, labels=message.labels, error=error
    )
