"""The auto-pipelining Redis pool against redis-py, coredis, valkey-glide, and a bare multiplexer."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import coredis
import glide
import hiredis
import redis.asyncio

from tools.bench.harness import Candidate, Case, Round, Suite, Target, main
from tools.servers import RedisServer
from ws_pool.redis import RedisPool

KEYS = [f"key:{number}" for number in range(100)]
VALUE = "v" * 32
ABOUT = """\
One process, one server, replies as bytes. "N callers" are N tasks that each await one command after
the other. "redis-py pool" is `redis.asyncio.Redis` on a pool of 100 connections. "bare" is the least
that can be called a multiplexer: hiredis, a deque and a write per turn of the loop, without
cancellation, back-pressure, timeouts, routing, errors or typed commands; it shows what Python allows.
The latency case sends commands at fixed moments, at half of the rate that redis-py's pool reaches
with 100 callers, and counts from the moment when a command was due."""


class Subject(Protocol):
    """A client under test."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect."""

    @property
    def get(self) -> Callable[[str], Awaitable[object]]:
        """GET."""
        ...


class WsPool:
    """Ours."""

    def __init__(self, server: RedisServer) -> None:
        self._pool = RedisPool(url=server.url)

    async def open(self) -> None:
        """Connect."""
        await self._pool.start()
        self.client = self._pool.redis
        self.get = self.client.get

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.close()


class RedisPy:
    """redis-py on a pool of 100 connections."""

    def __init__(
        self, server: RedisServer, kind: type[redis.asyncio.ConnectionPool] = redis.asyncio.ConnectionPool
    ) -> None:
        self._url = server.url
        self._kind = kind

    async def open(self) -> None:
        """Connect."""
        pool = self._kind.from_url(self._url, max_connections=100)
        self.client = redis.asyncio.Redis.from_pool(pool)
        self.get = self.client.get

    async def close(self) -> None:
        """Disconnect."""
        await self.client.aclose()


class Coredis:
    """The library coredis."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Connect."""
        self.client = coredis.Redis(host=self._server.host, port=self._server.port, max_connections=100)
        self._ready = asyncio.Event()
        self._done = asyncio.Event()
        self._task = asyncio.create_task(self._live())
        await self._ready.wait()
        self.get = self.client.get

    async def _live(self) -> None:
        async with self.client:  # entered and left in one task, as its task groups ask for
            self._ready.set()
            await self._done.wait()

    async def close(self) -> None:
        """Disconnect."""
        self._done.set()
        await self._task


class Glide:
    """The library valkey-glide, which is written in Rust."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def open(self) -> None:
        """Connect."""
        address = glide.NodeAddress(self._server.host, self._server.port)
        self.client = await glide.GlideClient.create(glide.GlideClientConfiguration([address]))
        self.get = self.client.get

    async def close(self) -> None:
        """Disconnect."""
        await self.client.close()


class Bare(asyncio.Protocol):
    """The least that can be called a multiplexer."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._out: list[bytes] = []
        self._pending: deque[asyncio.Future[Any]] = deque()

    async def open(self) -> None:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._transport, _ = await self._loop.create_connection(lambda: self, *self._server.address)

    async def close(self) -> None:
        """Disconnect."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Hand out replies."""
        self._reader.feed(data)

        while (reply := self._reader.gets()) is not Ellipsis:
            self._pending.popleft().set_result(reply)

    def get(self, key: str) -> Awaitable[object]:
        """GET."""
        if not self._out:
            self._loop.call_soon(self._flush)

        self._out.append(hiredis.pack_command(("GET", key)))  # type: ignore[arg-type]  # it takes any tuple
        future = self._loop.create_future()
        self._pending.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


PEERS: dict[str, Callable[[RedisServer], Any]] = {  # Any: subjects differ in what `client` is
    "ws-pool": WsPool,
    "redis-py pool": RedisPy,
    "coredis": Coredis,
    "valkey-glide": Glide,
    "bare": Bare,
}


def gets(subject: Subject, callers: int, operations: int) -> Callable[[], Awaitable[None]]:
    """GET one key after the other."""

    async def caller(number: int) -> None:
        get = subject.get
        key = KEYS[number % len(KEYS)]

        for _ in range(operations // callers):
            await get(key)

    async def run() -> None:
        await asyncio.gather(*map(caller, range(callers)))

    return run


def mix(subject: WsPool | RedisPy, callers: int, operations: int) -> Callable[[], Awaitable[None]]:
    """INCR, SET, HGETALL and MGET in turn."""

    async def caller(number: int) -> None:
        client = subject.client
        key = KEYS[number % len(KEYS)]

        for _ in range(operations // callers // 4):
            await client.incr(f"count:{number}")
            await client.set(key, VALUE)
            await client.hgetall("hash")
            await client.mget("key:1", "key:2", "key:3", "key:4")

    async def run() -> None:
        await asyncio.gather(*map(caller, range(callers)))

    return run


class Paced:
    """Commands at fixed moments; the rate is half of what the slowest subject, redis-py, reaches."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self._rate = 0.0

    def measure(self, subject: Subject) -> Callable[[], Awaitable[None]]:
        """Open redis-py's pool and find the rate."""

        async def setup() -> None:
            await subject.open()
            loop = asyncio.get_running_loop()
            work = gets(subject, 100, 5_000)
            await work()
            began = loop.time()
            await work()
            self._rate = 0.5 * 5_000 / (loop.time() - began)

        return setup

    def run(self, subject: Subject) -> Callable[[], Awaitable[Round]]:
        """Send commands when they are due, and count from then."""

        async def run() -> Round:
            loop = asyncio.get_running_loop()
            get, latencies = subject.get, []

            async def one(due: float) -> None:
                await get(KEYS[0])
                latencies.append(loop.time() - due)

            began = loop.time()
            tasks = []

            for number in range(self._operations):
                due = began + number / self._rate

                if (pause := due - loop.time()) > 0:
                    await asyncio.sleep(pause)

                tasks.append(asyncio.ensure_future(one(due)))

            await asyncio.gather(*tasks)
            return Round(operations=self._operations, latencies=latencies)

        return run


def suite(quick: bool) -> Suite:
    """Build the cases."""
    server = RedisServer()
    server.start()
    atexit.register(server.stop)

    with server.connect() as connection:
        for key in KEYS:
            connection("SET", key, VALUE)

        connection("HSET", "hash", *[f"{kind}{index}" for index in range(8) for kind in ("field", "value")])

    scale = 20 if quick else 1
    rounds = 3 if quick else 9
    cases: list[Case] = []

    for loop in ("asyncio", "uvloop"):
        cases += [
            _gets(server, loop, 100, 10_000 // scale, rounds),
            _gets(server, loop, 1, 2_000 // scale, rounds),
            _mix(server, loop, 8_000 // scale, rounds),
            _latency(server, loop, 4_000 // scale, rounds),
        ]

    return Suite(
        name="redis",
        title="Redis: commands from one process",
        about=ABOUT,
        packages=("ws-pool", "redis", "hiredis", "coredis", "valkey-glide", "uvloop"),
        servers={"Redis": server.info("server")["redis_version"]},
        cases=cases,
    )


def _gets(server: RedisServer, loop: Any, callers: int, operations: int, rounds: int) -> Case:  # Any: a Loop
    names = list(PEERS) if callers > 1 else ["ws-pool", "redis-py pool", "bare"]
    candidates = []

    for name in names:
        subject = PEERS[name](server)
        candidates.append(Candidate(name, gets(subject, callers, operations), subject.open, subject.close))

    targets: tuple[Target, ...] = (Target("ws-pool", "redis-py pool", at_least=1.3),)

    if callers > 1:
        targets = (
            Target("ws-pool", "redis-py pool", at_least=8),
            Target("ws-pool", "coredis", at_least=8),
            Target("ws-pool", "valkey-glide", at_least=3),
            Target("ws-pool", "bare", at_least=0.4),
        )

    title = f"GET, {callers} caller{'s' if callers > 1 else ''}, {loop}"
    return Case(title, candidates, operations, targets, loop, rounds=rounds)


def _mix(server: RedisServer, loop: Any, operations: int, rounds: int) -> Case:  # Any: a Loop
    candidates = []

    for name in ("ws-pool", "redis-py pool"):
        subject = PEERS[name](server)
        candidates.append(Candidate(name, mix(subject, 100, operations), subject.open, subject.close))

    return Case(
        f"INCR, SET, HGETALL, MGET, 100 callers, {loop}",
        candidates,
        operations,
        (Target("ws-pool", "redis-py pool", at_least=6),),
        loop,
        rounds=rounds,
    )


def _latency(server: RedisServer, loop: Any, operations: int, rounds: int) -> Case:  # Any: a Loop
    paced = Paced(operations)
    ours, theirs = WsPool(server), RedisPy(server, redis.asyncio.BlockingConnectionPool)
    return Case(
        f"GET at equal load, {loop}",
        (
            Candidate("ws-pool", paced.run(ours), ours.open, ours.close),
            Candidate("redis-py pool", paced.run(theirs), paced.measure(theirs), theirs.close),
        ),
        operations,
        (Target("ws-pool", "redis-py pool", at_most=1, metric="p99"),),
        loop,
        rounds=rounds,
        show="p99",
    )


if __name__ == "__main__":
    main(suite)
