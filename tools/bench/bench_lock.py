"""Locks: ws-redislock against redis-py's Lock, two PINGs, and the bare commands of a lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from tools.bench.harness import Candidate, Case, Round, Suite, Target, main
from tools.servers import RedisServer
from ws_pool.redis import RedisPool
from ws_redislock import MutexLock

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
ABOUT = """\
One process and one server. "hand-off" is the time from the call of a release to the moment at which
the waiting task holds the lock, with the waiter on the same client, or on another client as if it
were another process; redis-py's Lock polls every 0.1 s. "unfairness" is how
often the luckiest of the waiters had its turn for one turn of the unluckiest; redis-py's Lock takes a
tenth of the turns, so that many of its waiters have none. "bare" is SET NX PX and a script that deletes,
on the same client: a lock without queue, fence, lease or watchdog. "core" is the share of one core that
the client's process uses while a thousand tasks wait."""


class Clients:
    """The clients of a benchmark, opened when the first candidate is set up."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._open: list[Callable[[], Awaitable[None]]] = []

    def redis(self) -> Redis:
        """Make a plain client."""
        client = Redis.from_url(self._server.url, max_connections=200)
        self._open.append(client.aclose)
        return client

    async def pool(self) -> RedisPool:
        """Start an auto-pipelining pool."""
        pool = RedisPool(url=self._server.url)
        await pool.start()
        self._open.append(pool.close)
        return pool

    async def close(self) -> None:
        """Close them all."""
        while self._open:
            await self._open.pop()()


class Subject:
    """What is compared: a way to make locks on a client."""

    def __init__(self, server: RedisServer, kind: str) -> None:
        self._clients = Clients(server)
        self._kind = kind
        self.here: Any = None  # Any: a client or a pool, each used in its own way
        self.there: Any = None  # Any: the same

    async def open(self) -> None:
        """Make the clients."""
        if self._kind == "pool":
            self.here = self.there = await self._clients.pool()
        else:
            self.here = self.there = self._clients.redis()

            if self._kind == "two clients":
                self.there = self._clients.redis()

    async def close(self) -> None:
        """Close them."""
        await self._clients.close()

    def lock(self, name: str, *, there: bool = False) -> MutexLock:
        """Make a lock."""
        return MutexLock(self.there if there else self.here, name, 60)

    async def hand_offs(self, count: int) -> Round:
        """Hand a lock over to one waiter, again and again."""
        latencies = []

        for _ in range(count):
            first, second = self.lock("hand-off"), self.lock("hand-off", there=True)
            await first.acquire()
            waiting = asyncio.create_task(_moment(second.acquire(None)))

            while await first.waiters() == 0:  # noqa: ASYNC110 - the queue is on the server
                await asyncio.sleep(0)

            await asyncio.sleep(0.002)
            began = time.perf_counter()
            await first.release()
            latencies.append(await waiting - began)
            await second.release()

        return Round(operations=count, latencies=latencies)

    async def contend(self, waiters: int, turns: int) -> Round:
        """Let many tasks take turns."""
        counts = [0] * waiters
        left = turns

        async def work(number: int) -> None:
            nonlocal left

            while left > 0:
                async with self.lock("contended").hold():
                    left -= 1
                    counts[number] += 1

        await asyncio.gather(*(work(number) for number in range(waiters)))
        return Round(operations=sum(counts), metrics=_shares(counts))

    async def compete(self, tasks: int, turns: int) -> Round:
        """Let many tasks acquire within 5 s and release, again and again, with nothing in between."""
        counts = [0] * tasks
        left = turns

        async def work(number: int) -> None:
            nonlocal left

            while left > 0:
                lock = self.lock("compete")

                if await lock.acquire(timeout=5):
                    left -= 1
                    counts[number] += 1
                    await lock.release()

        await asyncio.gather(*(work(number) for number in range(tasks)))
        return Round(operations=sum(counts), metrics=_shares(counts))

    async def server_time(self, waiters: int) -> Round:
        """Measure what the server spends on a hand-off among so many waiters, by its own clock."""
        await self.here.config_resetstat()
        done = await self.contend(waiters, 4 * waiters + 200)
        spent = (await self.here.info("commandstats"))["cmdstat_evalsha"]["usec"]
        return Round(operations=done.operations, metrics={"server_us": spent / done.operations})

    async def alone(self, count: int) -> None:
        """Acquire and release without contention."""
        for _ in range(count):
            lock = self.lock("alone")
            await lock.acquire()
            await lock.release()

    async def apart(self, locks: int, turns: int) -> None:
        """Use many locks at once."""

        async def work(number: int) -> None:
            for _ in range(turns):
                lock = self.lock(f"lock:{number}")
                await lock.acquire()
                await lock.release()

        await asyncio.gather(*(work(number) for number in range(locks)))

    async def idle(self, waiters: int, names: int, seconds: float) -> Round:
        """Let many tasks wait, and measure what that costs."""
        holders = [self.lock(f"idle:{number}") for number in range(names)]
        await asyncio.gather(*(lock.acquire() for lock in holders))
        locks = [self.lock(f"idle:{number % names}") for number in range(waiters)]
        tasks = [asyncio.create_task(lock.acquire(None)) for lock in locks]
        await asyncio.sleep(1.0)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)

        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(lock.aclose() for lock in (*locks, *holders)))
        return Round(operations=1, metrics={"core": share})


class RedisPy(Subject):
    """redis-py's own Lock."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server, "redis-py")

    async def hand_offs(self, count: int) -> Round:
        """Hand a lock over to one waiter, again and again."""
        latencies = []

        for _ in range(count):
            first = self.here.lock("rp:hand-off", timeout=60)
            second = self.here.lock("rp:hand-off", timeout=60)
            await first.acquire()
            waiting = asyncio.create_task(_moment(second.acquire()))
            await asyncio.sleep(0.02)
            began = time.perf_counter()
            await first.release()
            latencies.append(await waiting - began)
            await second.release()

        return Round(operations=count, latencies=latencies)

    async def contend(self, waiters: int, turns: int) -> Round:
        """Let many tasks take turns."""
        counts = [0] * waiters
        left = turns

        async def work(number: int) -> None:
            nonlocal left

            while left > 0:
                async with self.here.lock("rp:contended", timeout=60):
                    left -= 1
                    counts[number] += 1

        await asyncio.gather(*(work(number) for number in range(waiters)))
        return Round(operations=sum(counts), metrics=_shares(counts))

    async def compete(self, tasks: int, turns: int) -> Round:
        """Let many tasks acquire within 5 s and release, again and again, with nothing in between."""
        counts = [0] * tasks
        left = turns

        async def work(number: int) -> None:
            nonlocal left

            while left > 0:
                lock = self.here.lock("rp:compete", timeout=60, blocking_timeout=5)

                if await lock.acquire():
                    left -= 1
                    counts[number] += 1
                    await lock.release()

        await asyncio.gather(*(work(number) for number in range(tasks)))
        return Round(operations=sum(counts), metrics=_shares(counts))

    async def alone(self, count: int) -> None:
        """Acquire and release without contention."""
        for _ in range(count):
            lock = self.here.lock("rp:alone", timeout=60)
            await lock.acquire()
            await lock.release()

    async def apart(self, locks: int, turns: int) -> None:
        """Use many locks at once."""

        async def work(number: int) -> None:
            for _ in range(turns):
                lock = self.here.lock(f"rp:{number}", timeout=60)
                await lock.acquire()
                await lock.release()

        await asyncio.gather(*(work(number) for number in range(locks)))


class Commands(Subject):
    """The bare commands."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server, "commands")

    async def pings(self, count: int) -> Round:
        """Send two PINGs, one after the other."""
        latencies = []

        for _ in range(count):
            began = time.perf_counter()
            await self.here.ping()
            await self.here.ping()
            latencies.append(time.perf_counter() - began)

        return Round(operations=count, latencies=latencies)

    async def alone(self, count: int) -> None:
        """Set and delete, as the simplest of locks does."""
        sha = await self.here.script_load(RELEASE)

        for number in range(count):
            token = f"token {number}"
            await self.here.set("bare", token, nx=True, px=60_000)
            await self.here.evalsha(sha, 1, "bare", token)


def _shares(counts: list[int]) -> dict[str, float]:
    """Say how even the waiters' turns were: the most of one to the fewest of another."""
    return {"max_per_waiter": max(counts), "unfairness": max(counts) / max(1, min(counts))}


async def _moment(work: Awaitable[object]) -> float:
    await work
    return time.perf_counter()


def suite(quick: bool) -> Suite:
    """Describe the benchmark."""
    server = RedisServer()
    plain, apart, pool = (Subject(server, kind) for kind in ("plain", "two clients", "pool"))
    redis_py, commands = RedisPy(server), Commands(server)
    hand_offs, turns, alone, idle = (5, 300, 200, 2.0) if quick else (21, 1_500, 1_000, 10.0)

    def candidate(name: str, subject: Subject, run: Callable[[], object]) -> Candidate:
        async def open_it() -> None:
            server.start()
            await subject.open()

        return Candidate(name, run=run, setup=open_it, teardown=subject.close)

    return Suite(
        name="lock",
        title="Locks",
        about=ABOUT,
        packages=("ws-redislock", "ws-pool", "redis", "hiredis"),
        cases=(
            Case(
                "hand-off to a single waiter",
                candidates=(
                    candidate("ws-redislock", plain, lambda: plain.hand_offs(hand_offs)),
                    candidate("ws-redislock, two clients", apart, lambda: apart.hand_offs(hand_offs)),
                    candidate("ws-redislock, RedisPool", pool, lambda: pool.hand_offs(hand_offs)),
                    candidate("redis-py Lock", redis_py, lambda: redis_py.hand_offs(hand_offs)),
                    candidate("two PINGs", commands, lambda: commands.pings(10 * hand_offs)),
                ),
                targets=(
                    Target("ws-redislock", peer="redis-py Lock", at_least=25, metric="p50"),
                    Target("ws-redislock, two clients", peer="redis-py Lock", at_least=25, metric="p50"),
                    Target("ws-redislock", peer="two PINGs", at_most=3, metric="p50"),
                    Target("ws-redislock, two clients", peer="two PINGs", at_most=3, metric="p50"),
                ),
                rounds=11,
                show="p50",
            ),
            Case(
                "100 waiters",
                candidates=(
                    candidate("ws-redislock", plain, lambda: plain.contend(100, turns)),
                    candidate("ws-redislock, RedisPool", pool, lambda: pool.contend(100, turns)),
                    candidate("redis-py Lock", redis_py, lambda: redis_py.contend(100, turns // 10)),
                ),
                targets=(
                    Target("ws-redislock", peer="redis-py Lock", at_least=2.5),
                    Target("ws-redislock, RedisPool", peer="redis-py Lock", at_least=4),
                    Target("ws-redislock", at_most=2, metric="unfairness"),
                    Target("ws-redislock, RedisPool", at_most=2, metric="unfairness"),
                ),
                rounds=7,
                warmup=1,
            ),
            Case(
                "100 tasks that acquire within 5 s again and again",
                candidates=(
                    candidate("ws-redislock", plain, lambda: plain.compete(100, turns)),
                    candidate("redis-py Lock", redis_py, lambda: redis_py.compete(100, turns)),
                ),
                targets=(
                    Target("ws-redislock", peer="redis-py Lock", at_least=1.0),
                    Target("ws-redislock", at_most=2, metric="unfairness"),
                ),
                rounds=7,
                warmup=1,
            ),
            Case(
                "server time per hand-off",
                candidates=(
                    candidate("among 10 waiters", plain, lambda: plain.server_time(10)),
                    candidate("among 1,000 waiters", plain, lambda: plain.server_time(1_000)),
                ),
                targets=(
                    Target("among 1,000 waiters", peer="among 10 waiters", at_most=2, metric="server_us"),
                ),
                rounds=3,
                warmup=1,
                show="server_us",
            ),
            Case(
                "acquire and release, uncontended",
                candidates=(
                    candidate("ws-redislock", plain, lambda: plain.alone(alone)),
                    candidate("ws-redislock, RedisPool", pool, lambda: pool.alone(alone)),
                    candidate("redis-py Lock", redis_py, lambda: redis_py.alone(alone)),
                    candidate("bare SET NX PX + EVALSHA", commands, lambda: commands.alone(alone)),
                ),
                operations=alone,
                targets=(
                    Target("ws-redislock", peer="redis-py Lock", at_least=1.0),
                    Target("ws-redislock", peer="bare SET NX PX + EVALSHA", at_least=0.8),
                ),
            ),
            Case(
                "50 different locks at once",
                candidates=(
                    candidate("ws-redislock, RedisPool", pool, lambda: pool.apart(50, alone // 20)),
                    candidate("ws-redislock", plain, lambda: plain.apart(50, alone // 20)),
                    candidate("redis-py Lock", redis_py, lambda: redis_py.apart(50, alone // 20)),
                ),
                operations=50 * (alone // 20),
                targets=(Target("ws-redislock, RedisPool", peer="redis-py Lock", at_least=5),),
            ),
            Case(
                "1,000 idle waiters",
                candidates=(
                    candidate("on 1,000 locks", plain, lambda: plain.idle(1_000, 1_000, idle)),
                    candidate("on one lock", apart, lambda: apart.idle(1_000, 1, idle)),
                ),
                targets=(
                    Target("on 1,000 locks", at_most=0.02, metric="core"),
                    Target("on one lock", at_most=0.02, metric="core"),
                ),
                rounds=3,
                warmup=0,
                show="core",
            ),
        ),
    )


if __name__ == "__main__":
    main(suite)
