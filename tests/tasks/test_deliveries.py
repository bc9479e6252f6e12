"""What a worker has in hand of a queue when Redis fails between two requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from redis import exceptions
from redis.asyncio import Redis
from taskiq import TaskiqMessage

from ws_tasks import _scripts
from ws_tasks._deliveries import Deliveries
from ws_tasks._streams import StreamQueue

FAILURES = [
    exceptions.ConnectionError("gone"),
    exceptions.ReadOnlyError("a replica now"),
    exceptions.SlotNotCoveredError("no node"),
    RuntimeError("what nobody thought of"),
]


_NAMES = {found.sha: found.name for found in vars(_scripts).values() if isinstance(found, _scripts.Script)}


class FaultyRedis:
    """A real client some of whose requests fail: the n-th of a script or a command."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._faults: list[tuple[str, int, Exception]] = []
        self._counts: dict[str, int] = {}
        self.met = 0

    def fail(self, request: str, number: int, error: Exception) -> None:
        """Let one request fail, counted from now."""
        self._faults.append((request, self._counts.get(request, 0) + number, error))

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        async def request(*args: Any, **options: Any) -> Any:
            key = _NAMES[args[0]] if name == "evalsha" else name
            self._counts[key] = self._counts.get(key, 0) + 1

            for wanted, number, error in self._faults:
                if (key, self._counts[key]) == (wanted, number):
                    self.met += 1
                    raise error

            return await call(*args, **options)

        return request


@dataclass
class Worker:
    """A worker's deliveries, and what they stand on."""

    deliveries: Deliveries
    stream: StreamQueue
    redis: Any
    faulty: FaultyRedis

    async def next(self) -> bytes:
        """Wait for the next message; it is in hand afterwards."""
        async with asyncio.timeout(10):
            return (await self.deliveries.next()).data

    async def pending(self) -> list[Any]:
        """Return what the server has down as delivered."""
        found: list[Any] = await self.redis.xpending_range(self.stream.jobs, "workers", "-", "+", 100)
        return found

    async def delivered(self, data: bytes, times: int) -> None:
        """Add a message that was with another worker, which has ended."""
        await self.stream.add(data.decode(), data)
        ((_, ((message_id, _),)),) = await self.redis.xreadgroup(
            "workers", "ended", {self.stream.jobs: ">"}, count=1
        )
        await self.redis.execute_command(
            "XCLAIM", self.stream.jobs, "workers", "ended", 0, message_id, "IDLE", 10**6, "RETRYCOUNT", times
        )


Start = Callable[..., Any]


@pytest.fixture
def worker(redis_url: str) -> Start:
    """Make the deliveries of one worker; tasks called "strange" are unknown to it."""

    def load(data: bytes) -> TaskiqMessage:
        if data == b"rubbish":
            raise ValueError(data)

        return TaskiqMessage(task_id="1", task_name=data.decode(), labels={}, args=[], kwargs={})

    async def on_dead(message: TaskiqMessage, reason: str) -> None:
        pass

    async def on_cancelled(message: TaskiqMessage) -> None:
        pass

    @asynccontextmanager
    async def start(*, lease: float = 0.6, max_deliveries: int = 3) -> AsyncIterator[Worker]:
        async with Redis.from_url(redis_url) as client:
            faulty = FaultyRedis(client)
            stream = StreamQueue(faulty, "q", lease)
            await stream.ensure_group()
            deliveries = Deliveries(
                stream,
                "q",
                lease=lease,
                max_deliveries=max_deliveries,
                concurrency=10,
                load=load,
                knows=lambda name: name != "strange",
                on_dead=on_dead,
                on_cancelled=on_cancelled,
                cancel=lambda _: None,
            )

            try:
                yield Worker(deliveries, stream, client, faulty)
            finally:
                await deliveries.stop()
                await deliveries.close()

    return start


class TestFailures:
    @pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("request_", ["fetch", "xreadgroup", "renew", "reclaim", "move_due"])
    async def test_nothing_ends_what_goes_on_beside_the_jobs(
        self, worker: Start, request_: str, error: Exception
    ) -> None:
        """Messages are fetched, renewed, reclaimed and moved after any error, which is met once."""
        async with worker() as found:
            found.faulty.fail(request_, 1, error)
            await found.delivered(b"reclaimed", 1)
            await found.stream.add("later", b"later", 0.1)
            await found.stream.add("now", b"now")
            found.deliveries.start()
            assert {await found.next() for _ in range(3)} == {b"reclaimed", b"now", b"later"}

            await asyncio.sleep(2)
            assert found.faulty.met == 1
            assert [entry["time_since_delivered"] < 600 for entry in await found.pending()] == [True] * 3

    async def test_a_suspect_that_cannot_be_counted_is_run(self, worker: Start) -> None:
        """A message that may be poison is run in the end, alone, and those behind it as well."""
        async with worker() as found:
            found.faulty.fail("recount", 1, exceptions.ConnectionError("gone"))
            await found.delivered(b"suspect", 2)
            found.deliveries.start()
            delivery = await asyncio.wait_for(found.deliveries.next(), 10)
            assert delivery.data == b"suspect"
            assert found.faulty.met == 1

            await found.stream.add("next", b"next")
            await found.deliveries.done(delivery)
            assert await found.next() == b"next"
            assert found.deliveries.dead_lettered == 0

    @pytest.mark.parametrize("script", ["dead_letter", "hand_back"])
    async def test_one_message_holds_up_no_other(self, worker: Start, script: str) -> None:
        """What was fetched beside a message that cannot be put away is run at once, not after its lease."""
        async with worker(lease=60.0) as found:
            found.faulty.fail(script, 1, exceptions.ConnectionError("gone"))

            for data in (b"rubbish", b"strange", b"good"):
                await found.stream.add(data.decode(), data)

            found.deliveries.start()
            assert await found.next() == b"good"

    async def test_one_group_that_is_missing(self, worker: Start) -> None:
        """A stream that was deleted does not lose what another one has given; it comes back by itself."""
        async with worker(lease=60.0) as found:
            await found.stream.add("high", b"high", priority="high")
            await found.redis.delete(found.stream.streams[2])
            found.deliveries.start()
            assert await found.next() == b"high"
            await found.stream.add("low", b"low", priority="low")
            assert await found.next() == b"low"


class TestCounts:
    async def test_a_suspect_that_is_handed_back_keeps_its_count(self, worker: Start) -> None:
        """A clean end forgives the delivery that was not begun, and none before it."""
        async with worker() as found:
            await found.delivered(b"suspect", 2)
            await found.deliveries._accept(await found.stream.reclaim(10, 3))
            assert [delivery.number for delivery in found.deliveries._suspects] == [3]
            await found.deliveries.stop()
            [entry] = await found.pending()
            assert (entry["consumer"], entry["times_delivered"]) == (b"returned", 2)

    async def test_never_more_than_there_are_places(self, worker: Start) -> None:
        """A wait that ends with one message of each priority hands back those without a place."""
        async with worker(lease=60.0) as found:
            found.deliveries.concurrency = 1
            found.deliveries.start()
            await asyncio.sleep(0.2)

            async with found.redis.pipeline(transaction=True) as pipe:
                for stream in found.stream.streams:
                    pipe.xadd(stream, {"data": b"x", "job": stream})

                await pipe.execute()

            first = await asyncio.wait_for(found.deliveries.next(), 10)
            await asyncio.sleep(0.2)
            assert list(found.deliveries._in_hand) == [first.key]
            assert not found.deliveries._buffer


class TestOwnMessages:
    async def test_an_outage_longer_than_the_lease_runs_no_job_twice(self, worker: Start) -> None:
        """A worker never takes a message that it has in hand, nor counts it as delivered again."""
        async with worker() as found:
            await found.stream.add("long", b"long")
            found.deliveries.start()
            delivery = await asyncio.wait_for(found.deliveries.next(), 10)

            async def overdue() -> None:
                while True:
                    await found.redis.execute_command(
                        "XCLAIM", found.stream.jobs, "workers", found.stream.consumer, 0, delivery.id,
                        "IDLE", 10**6, "JUSTID",
                    )  # fmt: skip
                    await asyncio.sleep(0.01)

            outage = asyncio.create_task(overdue())

            try:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(found.deliveries.next(), 2)
            finally:
                outage.cancel()

            ((entry),) = await found.pending()
            assert entry["times_delivered"] == 1
            await found.deliveries.done(delivery)
