"""Jobs in worker processes: killed, poisoned, long, old, restarted ones, and a Redis that restarts."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from tests.servers import StartServer
from tests.tasks import _taskiq_worker as work
from tools.servers import (
    ClusterServers,
    RedisServer,
    SentinelServers,
    ValkeyServer,
)
from ws_core.errors import UnavailableError, UsageError
from ws_tasks import JobFailed, ScheduleError, TaskDefinition, task
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

PROGRAM = Path(__file__).parent / "_taskiq_worker.py"
SERVERS = pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])


class Workers:
    """Worker processes of one queue, and what they have written."""

    def __init__(self, folder: Path, url: str, queue: str) -> None:
        self.url, self.queue, self.log = url, queue, folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log.touch()

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [sys.executable, str(PROGRAM), self.url, self.queue, str(self.log), json.dumps(options)]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return self.processes[-1]

    def lines(self, *kind: str) -> list[list[str]]:
        """Return what was written, the process first."""
        found = [line.split(" ") for line in self.log.read_text().splitlines()]
        return [line for line in found if line[1 : 1 + len(kind)] == list(kind)]

    def runs(self, name: str) -> Counter[int]:
        """Count the runs of each job that were ended."""
        return Counter(int(line[3]) for line in self.lines("end", name))

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something has been written."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)

    async def ready(self, count: int) -> None:
        """Wait until so many workers have started."""
        await self.wait(lambda: len(self.lines("ready")) >= count)

    def in_hand(self, name: str) -> set[int]:
        """Return the jobs that were begun and not ended."""
        return {int(line[3]) for line in self.lines("begin", name)} - set(self.runs(name))


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[str], Workers]]:
    """Make workers, and end them."""
    made: list[Workers] = []

    def make(url: str) -> Workers:
        made.append(Workers(tmp_path, url, "jobs"))
        return made[-1]

    yield make

    for process in (process for found in made for process in found.processes):
        process.terminate()

        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@asynccontextmanager
async def engine(url: Any, queue: str = "jobs", **options: Any) -> AsyncIterator[TaskiqEngine]:
    """Open the side that enqueues."""
    async with work.engine_of(url, queue, **options) as found:
        yield found


async def queue_is_empty(url: str) -> bool:
    """Return whether no message is left in the stream soon: results come before acknowledgements."""
    async with Redis.from_url(url) as client:
        for _ in range(500):
            if not await client.xlen("wst:{jobs}:jobs"):
                return True

            await asyncio.sleep(0.01)

    return False


@pytest.mark.deployment
class TestKilledWorker:
    @SERVERS
    async def test_each_job_is_done(
        self, kind: type[RedisServer], start_server: StartServer, workers: Callable[[str], Workers]
    ) -> None:
        """2,000 jobs, one of 2 workers killed in the middle, no further traffic: all done, all right."""
        server = start_server(kind)
        found = workers(server.url)
        found.start()
        found.start()
        await found.ready(2)

        async with engine(server.url):
            jobs = await asyncio.gather(*(work.square.enqueue(number) for number in range(2000)))
            await found.wait(lambda: len(found.lines("end")) > 500)
            victim = found.processes[0]
            victim.send_signal(signal.SIGSTOP)
            begun = {int(line[3]) for line in found.lines("begin", "square") if line[0] == str(victim.pid)}
            ended = {int(line[3]) for line in found.lines("end", "square") if line[0] == str(victim.pid)}
            victim.kill()
            results = await asyncio.gather(*(job.result(timeout=60) for job in jobs))

        assert results == [number * number for number in range(2000)]
        runs = found.runs("square")
        assert set(runs) == set(range(2000))
        # In hand is also what was ended, and whose acknowledgement was on its way.
        doubles = {number for number, count in runs.items() if count > 1}
        assert doubles <= (begun - ended) | _ended_last(found, victim, 16)
        assert await queue_is_empty(server.url)

    async def test_without_a_reclaim_jobs_are_lost(
        self, start_server: StartServer, workers: Callable[[str], Workers]
    ) -> None:
        """The twin: with a lease longer than the test, what the killed worker had in hand is not done."""
        server = start_server(RedisServer)
        found = workers(server.url)
        found.start(lease=600, concurrency=4)
        await found.ready(1)

        async with engine(server.url, lease=600):
            jobs = [await work.slow.enqueue(number, 30) for number in range(4)]
            await found.wait(lambda: len(found.lines("begin")) == 4)
            found.processes[0].kill()
            found.start(lease=600)
            await found.ready(2)
            assert await (await work.square.enqueue(3)).result(timeout=30) == 9

            with pytest.raises(TimeoutError):
                await jobs[0].result(timeout=2)


def _ended_last(found: Workers, process: subprocess.Popen[bytes], count: int) -> set[int]:
    """Return the jobs that a worker ended last."""
    mine = [line for line in found.lines("end", "square") if line[0] == str(process.pid)]
    return {int(line[3]) for line in mine[-count:]}


class TestLongJobs:
    async def test_longer_than_the_lease(self, redis_url: str, workers: Callable[[str], Workers]) -> None:
        """Jobs that last several leases are run once, in the loop and in threads, and waited for."""
        found = workers(redis_url)
        found.start()
        found.start()
        await found.ready(2)

        async with engine(redis_url):
            jobs = [await work.slow.enqueue(number, 3.5 * work.LEASE) for number in range(12)]
            threads = [await work.plain.enqueue(2.5 * work.LEASE) for _ in range(2)]
            assert [await job.result(timeout=60) for job in jobs] == list(range(12))
            assert [await job.result(timeout=60) for job in threads] == ["plain"] * 2

        assert found.runs("slow") == Counter(range(12))


@pytest.mark.deployment
class TestPoison:
    @SERVERS
    async def test_ends_in_the_dead_letters(
        self, kind: type[RedisServer], start_server: StartServer, workers: Callable[[str], Workers]
    ) -> None:
        """A job that kills its worker is delivered so many times, and harms no other: 24 of 24 are done."""
        server = start_server(kind)
        found = workers(server.url)
        found.start()
        await found.ready(1)
        supervisor = asyncio.create_task(_restart(found))

        try:
            async with engine(server.url):
                innocents = [await work.slow.enqueue(number, 0.2) for number in range(12)]
                killer = await work.poison.enqueue()
                innocents += [await work.slow.enqueue(number, 0.2) for number in range(12, 24)]

                with pytest.raises(JobFailed, match="dead letter: delivered 3 times"):
                    await killer.result(timeout=150)

                assert [await job.result(timeout=60) for job in innocents] == list(range(24))
        finally:
            supervisor.cancel()

        assert len(found.lines("begin", "poison")) == 3
        assert set(found.runs("slow")) == set(range(24))
        assert await queue_is_empty(server.url)

        async with Redis.from_url(server.url) as client:
            dead: Any = await client.xrange("wst:{jobs}:dead")
            [(_, fields)] = dead
            assert fields[b"reason"] == b"delivered 3 times"
            assert json.loads(fields[b"data"])["task_name"] == "poison"

    async def test_what_is_not_a_message(self, redis_url: str) -> None:
        """Data that cannot be read is a dead letter at once, with a reason; the others go on."""
        found = work.engine_of(redis_url, "jobs")

        async with found, run_worker(found):
            await found.broker.add("x", b"not json")
            assert await (await work.square.enqueue(3)).result(timeout=30) == 9

            async with asyncio.timeout(10), Redis.from_url(redis_url) as client:
                while not await client.xlen("wst:{jobs}:dead"):
                    await asyncio.sleep(0.05)


async def _restart(found: Workers) -> None:
    """Start a worker whenever one has ended, as a supervisor does."""
    while True:
        await asyncio.sleep(0.1)

        if found.processes[-1].poll() is not None:
            found.start()


@pytest.mark.deployment
class TestDeployments:
    async def test_an_old_worker_leaves_new_tasks_alone(
        self, redis_url: str, workers: Callable[[str], Workers]
    ) -> None:
        """A worker that does not know a task never acknowledges its jobs: the next new one runs them."""
        found = workers(redis_url)
        found.start(old=True)
        await found.ready(1)

        async with engine(redis_url):
            job = await work.new.enqueue()
            assert await (await work.square.enqueue(2)).result(timeout=30) == 4

            with pytest.raises(TimeoutError):
                await job.result(timeout=3 * work.LEASE)

            found.start()
            assert await job.result(timeout=30) == "new"

    async def test_rolling_restarts_lose_nothing(
        self, redis_url: str, workers: Callable[[str], Workers]
    ) -> None:
        """Workers that are ended in order under load finish or hand back: each job is done once."""
        found = workers(redis_url)
        found.start()
        found.start()
        await found.ready(2)

        async with engine(redis_url):
            jobs = await asyncio.gather(*(work.slow.enqueue(number, 0.1) for number in range(1000)))

            for turn in range(4):
                await found.wait(lambda done=100 * (turn + 1): len(found.lines("end")) > done)  # type: ignore[misc]
                oldest = found.processes[turn]
                found.start()
                await found.ready(3 + turn)
                oldest.terminate()
                assert await asyncio.to_thread(oldest.wait, 30) == 0

            assert [await job.result(timeout=60) for job in jobs] == list(range(1000))

        assert found.runs("slow") == Counter(range(1000))
        assert len(found.lines("ended")) == 4

    @SERVERS
    async def test_redis_restarts(
        self, kind: type[RedisServer], start_server: StartServer, workers: Callable[[str], Workers]
    ) -> None:
        """Workers and enqueuers survive a restart of Redis (AOF) in the middle; nothing is lost."""
        server = start_server(kind, config={"appendonly": "yes", "appendfsync": "always"})
        found = workers(server.url)
        found.start()
        found.start()
        await found.ready(2)

        async with engine(server.url):
            jobs = [await work.slow.enqueue(number, 0.02) for number in range(300)]
            await found.wait(lambda: len(found.lines("end")) > 50)
            await asyncio.to_thread(server.kill)
            later = asyncio.create_task(work.slow.enqueue(300, 0.02))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.restart)
            jobs.append(await later)
            assert [await job.result(timeout=60) for job in jobs] == list(range(301))

        assert set(found.runs("slow")) == set(range(301))

    async def test_a_stopped_worker(self, redis_url: str, workers: Callable[[str], Workers]) -> None:
        """A worker stopped for longer than the lease comes back: its jobs are run twice, and that is all."""
        found = workers(redis_url)
        found.start(concurrency=2)
        await found.ready(1)

        async with engine(redis_url):
            jobs = [await work.slow.enqueue(number, 0.5) for number in range(2)]
            await found.wait(lambda: len(found.lines("begin")) == 2)
            found.processes[0].send_signal(signal.SIGSTOP)
            found.start()
            assert [await job.result(timeout=30) for job in jobs] == [0, 1]
            found.processes[0].send_signal(signal.SIGCONT)
            await found.wait(lambda: found.runs("slow") == Counter({0: 2, 1: 2}))
            assert await (await work.square.enqueue(3)).result(timeout=30) == 9

        assert await queue_is_empty(redis_url)


class TestEngine:
    async def test_results(self, any_redis_url: str) -> None:
        """Values, failures after all attempts, timeouts and exits come back; results are announced."""
        found = work.engine_of(any_redis_url, "jobs")

        async with found, run_worker(found):
            job = await work.square.enqueue(5)
            assert await job.result(timeout=10) == 25
            assert await job.result() == 25
            assert job.done
            assert repr(found) == "<TaskiqEngine of 9 tasks on queue 'jobs'>"
            failures = (
                (work.fails, "ValueError", "attempt 3"),
                (work.leaves, "SystemExit", "3"),
                (work.strange, "UsageError", "is not JSON"),
                (work.too_long, "RunTimeout", "longer than its timeout"),
            )

            for definition, kind, text in failures:
                with pytest.raises(JobFailed, match=text) as caught:
                    await (await definition.enqueue()).result(timeout=10)

                assert caught.value.error_type == kind

    async def test_delays(self, redis_url: str) -> None:
        """A job with a delay is held back for so many seconds, on the server's clock."""
        found = work.engine_of(redis_url, "jobs")

        async with found, run_worker(found):
            decorated = found.broker.find_task("square")
            assert decorated is not None
            began = asyncio.get_running_loop().time()
            sent = await decorated.kicker().with_labels(delay=0.7).kiq(3)
            result = await sent.wait_result(timeout=10)
            assert result.return_value == 9
            assert asyncio.get_running_loop().time() - began >= 0.7

    async def test_an_id_is_enqueued_once(self, redis_url: str) -> None:
        """A request that is repeated after a lost reply adds no second message."""
        broker = RedisStreamsBroker(redis_url)
        assert (await broker.add("x", b"{}")).added
        assert not (await broker.add("x", b"{}")).added
        await broker.shutdown()

    async def test_a_schedule(self, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a schedule enqueues is run by a worker of the same process."""
        log = tmp_path / "log"
        log.touch()
        monkeypatch.setenv("WORKER_LOG", str(log))

        async with engine(redis_url, tick=True) as found, run_worker(found, concurrency=2):
            await asyncio.sleep(2.5)
            assert found.broker.concurrency == 2
            assert found.broker.statistics() == {"doubled": 0, "dead": 0}

        assert log.read_text().count("end tick") >= 3

    async def test_a_result_that_is_gone(self, redis_url: str) -> None:
        """A result that has expired is an error that says so."""
        async with engine(redis_url) as found:
            with pytest.raises(UsageError, match="expired"):
                await found.broker.results.get_result("unknown")

    async def test_without_redis(self) -> None:
        """Enqueuing gives up after its timeout, and says so."""
        broker = RedisStreamsBroker("redis://127.0.0.1:1/0", enqueue_timeout=0.3)

        with pytest.raises(UnavailableError, match="was not enqueued within"):
            await broker.add("x", b"{}")

        await broker.shutdown()

    async def test_bad_input(self) -> None:
        """Wrong options, unknown and double tasks, and a second engine are refused."""
        for options in ({"lease": 0}, {"max_deliveries": 0}, {"concurrency": 0}, {"result_ttl": -1}):
            with pytest.raises(ScheduleError):
                RedisStreamsBroker("redis://127.0.0.1:1/0", **options)  # type: ignore[arg-type]

        @task("square")
        async def other() -> None:
            pass

        def build(*tasks: TaskDefinition[Any, Any]) -> TaskiqEngine:
            return TaskiqEngine(tasks, broker=RedisStreamsBroker("redis://127.0.0.1:1/0"))

        with pytest.raises(ScheduleError, match="rename one"):
            build(work.square, other)

        async with build(work.square):
            with pytest.raises(ScheduleError, match="not one of this engine's"):
                await work.new.enqueue()

            with pytest.raises(UsageError, match="one engine"):
                await build(work.square).__aenter__()


class TestTopologies:
    async def test_cluster(self, cluster_servers: ClusterServers) -> None:
        """All keys of a queue are in one hash slot: a cluster of three masters works."""
        cluster_servers.flush()

        async with RedisCluster.from_url(cluster_servers.url) as client:
            found = work.engine_of(client, "jobs")

            async with run_worker(found):
                for number in range(20):
                    await found.broker.add(f"j{number}", _message(f"j{number}", number))

                for number in range(20):
                    async with asyncio.timeout(30):
                        while not await found.broker.results.is_result_ready(f"j{number}"):
                            await asyncio.sleep(0.05)

                    result = await found.broker.results.get_result(f"j{number}")
                    assert result.return_value == number * number

    async def test_all_of_it_on_a_cluster(self, cluster_servers: ClusterServers) -> None:
        """Results, chains, cancellation and states, too."""
        cluster_servers.flush()

        async with RedisCluster.from_url(cluster_servers.url) as client:
            found = work.engine_of(client, "features")

            async with found, run_worker(found):
                jobs = [await work.square.enqueue(number) for number in range(20)]
                assert [await job.result(timeout=60) for job in jobs] == [number**2 for number in range(20)]
                chain = await work.square.bind(2).then(work.square).then(work.square).enqueue()
                assert await chain.result(timeout=60) == 256
                later = await work.square.enqueue_in(60, 1)
                assert await later.status() == "delayed"
                assert await later.cancel()
                running = await work.slow.enqueue(1, 30)

                async with asyncio.timeout(30):
                    while await running.status() != "running":
                        await asyncio.sleep(0.05)

                assert await running.cancel()
                assert await running.status() == "cancelled"

    async def test_sentinel_failover(self, start_server: StartServer) -> None:
        """When the master dies, workers and enqueuers go on with the replica."""
        servers = start_server(SentinelServers)
        sentinel = Sentinel(servers.addresses)
        client = sentinel.master_for(servers.name)
        found = work.engine_of(client, "jobs")

        async with found, run_worker(found):
            assert await (await work.square.enqueue(3)).result(timeout=30) == 9
            await asyncio.to_thread(servers.failover)
            assert await (await work.square.enqueue(4)).result(timeout=60) == 16

        # Closing the client of a master does not close those that asked the Sentinels for it.
        for each in (client, *sentinel.sentinels):
            await each.aclose()


def _message(job_id: str, number: int) -> bytes:
    message = {"task_id": job_id, "task_name": "square", "labels": {}, "args": [number], "kwargs": {}}
    return json.dumps(message).encode()
