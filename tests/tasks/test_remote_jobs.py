"""Jobs in Redis: found by their id elsewhere, retried by taskiq itself, and gone when they have ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from redis import exceptions
from redis.asyncio import Redis
from taskiq import SimpleRetryMiddleware, TaskiqResult
from taskiq.exceptions import SendTaskError

from tests.tasks._jobs import Gate, tasks_of
from ws_core.errors import ConfigError
from ws_tasks import JobCancelled, JobFailed, _scripts, task
from ws_tasks.stores import RedisRunStore
from ws_tasks.taskiq import RedisResults, RedisStreamsBroker, TaskiqEngine, run_worker

SCRIPTS = [found for found in vars(_scripts).values() if isinstance(found, _scripts.Script)]
NAMES = {found.sha: found.name for found in SCRIPTS}
TEXTS = {found.name: found.text for found in SCRIPTS}


@pytest.fixture
async def gate() -> Gate:
    """Make a gate in the test's loop."""
    return Gate()


class CutReplies:
    """A client that loses the reply of the first request of a kind, which has arrived."""

    def __init__(self, client: Redis, name: str) -> None:
        self._client, self._name = client, name
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        if name != "evalsha":
            return found

        async def call(sha: str, *args: Any) -> Any:
            reply = await found(sha, *args)

            if NAMES[sha] == self._name and not self.lost:
                self.lost += 1
                raise exceptions.ConnectionError("the reply was lost")

            return reply

        return call


class TestDoubles:
    @pytest.mark.parametrize("script", ["done", "save", "add"])
    async def test_a_lost_reply_is_no_double(self, redis_url: str, script: str, gate: Gate) -> None:
        """A request that has arrived and is repeated counts nothing twice, and runs nothing twice."""
        _, note = tasks_of(gate)

        async with Redis.from_url(redis_url) as client:
            # Known to the server: the three jobs may be acknowledged by one request.
            await client.script_load(TEXTS[script])
            cut = CutReplies(client, script)
            broker = RedisStreamsBroker(cut, queue="jobs", lease=1.0)

            async with TaskiqEngine([note], broker=broker) as found, run_worker(found):
                jobs = [await note.enqueue(number) for number in range(3)]
                assert [await job.result(timeout=20) for job in jobs] == [0, 1, 2]
                await asyncio.sleep(0.5)

            assert cut.lost == 1
            assert broker.statistics() == {"doubled": 0, "dead": 0}
            assert sorted(map(str, gate.seen)) == ["0", "1", "2"]

    async def test_a_second_result_is_one(self, redis_url: str) -> None:
        """The first result of a job stands, and a second one is counted."""
        results = RedisResults(redis_url)
        first = TaskiqResult(is_err=False, return_value=1, execution_time=0.0)
        second = TaskiqResult(is_err=False, return_value=2, execution_time=0.0)
        await results.set_result("x", first)
        await results.set_result("x", second)
        assert (await results.get_result("x")).return_value == 1
        assert results.doubled == 1
        assert not await results.save_cancelled("x", {})
        assert await results.is_result_ready("x")
        await results.shutdown()


class TestRemoteJobs:
    async def test_another_process(self, redis_url: str, gate: Gate) -> None:
        """A job is found by its id elsewhere; a result is kept for its task's time only."""

        @task("short", result_ttl=0.5)
        async def short() -> int:
            return 1

        broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0)

        async with TaskiqEngine([short], broker=broker) as found, run_worker(found):
            job = await short.enqueue()
            assert await found.job(job.id).result(timeout=20) == 1
            assert await found.job(job.id).status() == "succeeded"
            await asyncio.sleep(0.8)
            assert await found.job(job.id).status() == "unknown"
            assert not await found.job(job.id).cancel()
            await asyncio.sleep(1.5)
            [(name, outcome)] = (await broker.outcomes()).items()
            assert (name, outcome["ok"], outcome["job"]) == ("short", True, job.id)
            depth = await broker.depth()
            assert depth == {"high": 0, "normal": 0, "low": 0, "delayed": 0, "dead": 0}
            assert list(found.tasks) == ["short"]

    async def test_taskiqs_own_retries(self, redis_url: str, gate: Gate) -> None:
        """A retry of taskiq's middleware, which enqueues again under the job's id, is not lost."""
        broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0)
        broker.add_middlewares(SimpleRetryMiddleware(default_retry_count=3))

        @broker.task(retry_on_error=True, priority="high")
        async def flaky() -> int:
            gate.seen.append(1)

            if len(gate.seen) < 3:
                raise ValueError("not yet")

            return len(gate.seen)

        async with run_worker(TaskiqEngine([], broker=broker)):
            sent = await flaky.kiq()
            assert (await sent.wait_result(timeout=20)).return_value == 3

            with pytest.raises(SendTaskError) as refused:
                await flaky.kicker().with_labels(priority="x").kiq()

            assert "priority='x'" in str(refused.value.__cause__)

    async def test_no_job_left_behind(self, redis_url: str, gate: Gate) -> None:
        """When all jobs have ended, nothing of them is left on the server but their results."""
        blocked, note = tasks_of(gate)

        @task("fails")
        async def fails() -> None:
            raise ValueError("no")

        broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0)

        async with TaskiqEngine([blocked, note, fails], broker=broker) as found, run_worker(found):
            jobs = [
                await note.bind(1).then(note).enqueue(),
                await fails.bind().then(note).enqueue(),
                await note.enqueue_in(0.1, 1),
                await blocked.bind().then(note, 1).enqueue(),
            ]
            await gate.until(lambda: "blocked" in gate.seen)
            await jobs[3].cancel()
            dropped = await note.enqueue_in(0.2, 5)
            await dropped.cancel()

            for job in jobs:
                with pytest.raises((JobFailed, JobCancelled)) if job in jobs[1::2] else _nothing():
                    await job.result(timeout=20)

            await asyncio.sleep(1)

        async with Redis.from_url(redis_url) as client:
            left: Any = set(await client.keys("wst:{jobs}:*"))
            kept = {key for key in left if b":seen:" not in key}
            streams = {b"wst:{jobs}:jobs", b"wst:{jobs}:jobs:high", b"wst:{jobs}:jobs:low"}
            assert kept - streams == {b"wst:{jobs}:outcomes"}
            found_outcomes: Any = await client.hgetall("wst:{jobs}:outcomes")
            assert json.loads(found_outcomes[b"fails"])["ok"] is False

            for stream in streams:
                assert await client.xlen(stream) == 0


class TestWorkerEnd:
    async def test_what_is_not_done_in_time(self, redis_url: str, gate: Gate) -> None:
        """A job that outlasts the drain timeout is cancelled and run anew elsewhere: it has not failed."""
        blocked, _ = tasks_of(gate)
        broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0)

        async with TaskiqEngine([blocked], broker=broker) as found:
            async with run_worker(found, drain_timeout=0.1):
                job = await blocked.enqueue()
                await gate.until(lambda: gate.seen == ["blocked"])

            assert gate.seen == ["blocked", "interrupted"]
            assert await job.status() == "queued"
            gate.open.set()

            async with run_worker(found):
                assert await job.result(timeout=20) == "opened"

            assert broker.statistics() == {"doubled": 0, "dead": 0}
            assert gate.seen == ["blocked", "interrupted", "blocked"]

    async def test_a_job_that_goes_on(
        self, redis_url: str, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A function of taskiq's own goes on after its worker: what it returns then is not the result."""
        broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0)

        @broker.task
        async def plain() -> int:
            gate.seen.append(1)
            await gate.open.wait()
            return len(gate.seen)

        async with run_worker(TaskiqEngine([], broker=broker), drain_timeout=0.1):
            sent = await plain.kiq()
            await gate.until(lambda: gate.seen == [1])

        gate.open.set()
        await gate.until(lambda: "its result is not saved" in caplog.text)

        async with run_worker(TaskiqEngine([], broker=broker)):
            assert (await sent.wait_result(timeout=20)).return_value == 2


class BrokenSubscriptions:
    """A client whose first subscriptions break when they are read, and that notes all of them."""

    def __init__(self, client: Redis, broken: int) -> None:
        self._client, self._broken = client, broken
        self.made: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pubsub(self) -> Any:
        """Make a subscription."""
        made = self._client.pubsub()
        self.made.append(made)

        if len(self.made) <= self._broken:

            async def fail(**_: object) -> None:
                raise exceptions.ConnectionError("the connection was lost")

            made.get_message = fail  # type: ignore[assignment]

        return made


class TestSubscriptions:
    async def test_none_keeps_a_connection(self, redis_url: str, gate: Gate) -> None:
        """A subscription that broke releases its connection, before the next one takes another."""
        _, note = tasks_of(gate)

        async with Redis.from_url(redis_url) as client:
            broken = BrokenSubscriptions(client, 3)

            async with TaskiqEngine([note], broker=RedisStreamsBroker(broken, queue="jobs")) as found:
                await gate.until(lambda: len(broken.made) == 4)
                assert [made.connection for made in broken.made[:3]] == [None] * 3

                async with run_worker(found):
                    assert await (await note.enqueue(1)).result(timeout=20) == 1

            assert all(made.connection is None for made in broken.made)


class TestAgain:
    def test_in_one_loop_after_another(self, redis_url: str) -> None:
        """An engine of a module, whose broker has a manager, serves where each test has a loop and a pool."""

        class Manager:
            """Stands for ws-pool's: the default pool is another one after a restart."""

            redis: Redis

            def get_pool(self) -> Manager:
                """Return the default pool."""
                return self

        @task("twice")
        def twice(number: int) -> int:
            return number * 2

        manager = Manager()
        broker = RedisStreamsBroker(manager, queue="again", lease=1.0)
        engine = TaskiqEngine([twice], broker=broker)

        async def work(number: int) -> int:
            async with Redis.from_url(redis_url) as manager.redis, engine, run_worker(engine):
                return await (await twice.enqueue(number)).result(timeout=20)

        assert [asyncio.run(work(number)) for number in range(3)] == [0, 2, 4]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class Manager:
    """A manager of one pool; as much of ws-pool's as is used."""

    def __init__(self) -> None:
        self.pool: Any = None

    def get_pool(self) -> Any:
        """Return the pool, which is there when it is started."""
        if self.pool is None:
            raise LookupError("not started")

        return self.pool


class TestModules:
    """An engine and its broker in a module, as the worker's command imports them."""

    def test_one_event_loop_after_another(self, redis_url: str) -> None:
        """They are opened by each test of an application, in a loop of its own, over a pool of its own."""

        @task("double", timeout=60)
        async def double(number: int) -> int:
            return number * 2

        manager = Manager()
        broker = RedisStreamsBroker(manager, queue="modules", lease=5, concurrency=2)
        engine = TaskiqEngine([double], broker=broker)
        store = RedisRunStore(manager, key="modules")

        async def live(number: int) -> None:
            async with Redis.from_url(redis_url) as client:
                manager.pool = SimpleNamespace(redis=client)

                async with engine, run_worker(engine):
                    jobs = [await double.enqueue(number + offset) for offset in range(5)]
                    results = [await job.result(timeout=60) for job in jobs]
                    assert results == [2 * (number + offset) for offset in range(5)]

                await store.note_run("task", number)
                assert await store.last_run("task") == number

        for number in (1, 2, 3):
            asyncio.run(live(number))

        assert engine.statistics()["double"].succeeded == 15

    async def test_a_pool_that_is_not_started(self) -> None:
        """The error is the manager's own, at the first use."""
        with pytest.raises(LookupError, match="not started"):
            await RedisResults(Manager()).find("job")

    def test_a_source_that_is_none(self) -> None:
        """It is refused when the broker is made."""
        for make in (RedisStreamsBroker, RedisRunStore):
            with pytest.raises(ConfigError, match="a pool, a manager of pools"):
                make(object())
