"""Several shared connections: reads, writes and large values keep out of each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tools.servers import ClusterServers, RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.node import LARGE, ConnectionGroups
from ws_pool.redis import RedisPool

VALUE = bytes(LARGE)


@pytest.mark.parametrize(
    ("number", "reads", "writes", "large"),
    [(2, [0], [1], [1]), (3, [0], [1], [2]), (4, [0, 1], [2], [3]), (5, [0, 1], [2, 3], [4])],
)
def test_how_they_are_parted(number: int, reads: list[int], writes: list[int], large: list[int]) -> None:
    """Each kind has at least one connection, and shares it with others only when there are just two."""
    groups = ConnectionGroups(range(number))
    assert [list(part) for part in (groups.reads, groups.writes, groups.large)] == [reads, writes, large]


def commands(pool: RedisPool) -> list[int]:
    """Return the number of commands that each shared connection has answered."""
    return [shared.commands for shared in pool.statistics().shared]


async def pipelined(pool: RedisPool, *calls: tuple[Any, ...], transaction: bool = False) -> object:
    """Send commands as one piece."""
    async with pool.redis.pipeline(transaction=transaction) as pipe:
        for call in calls:
            pipe.execute_command(*call)

        return await pipe.execute()


Use = Callable[[RedisPool], Awaitable[object]]


@pytest.mark.parametrize(
    ("use", "group"),
    [
        (lambda pool: pool.redis.get("k"), 0),
        (lambda pool: pool.redis.execute_command(b"hgetall", "h"), 0),
        (lambda pool: pool.redis.execute_command("GET k"), 0),
        (lambda pool: pool.redis.config_get("maxmemory"), 0),
        (lambda pool: pipelined(pool, ("GET", "k"), ("TTL", "k")), 0),
        (lambda pool: pool.redis.set("k", 1), 1),
        (lambda pool: pool.redis.eval("return 1", 0), 1),
        (lambda pool: pipelined(pool, ("GET", "k"), ("SET", "k", 1)), 1),
        (lambda pool: pipelined(pool, ("GET", "k"), transaction=True), 1),
        (lambda pool: pool.redis.set("k", VALUE), 2),
        (lambda pool: pool.redis.mset({"a": VALUE[: LARGE // 2], "b": VALUE[: LARGE // 2]}), 2),
        (lambda pool: pipelined(pool, *[("SET", "k", VALUE[: LARGE // 4])] * 4), 2),
    ],
)
async def test_where_commands_go(any_redis_url: str, use: Use, group: int) -> None:
    """Whatever only reads has a connection, writes have one, and what is large has one."""
    async with RedisPool(url=any_redis_url, shared_connections=3) as pool:
        before = commands(pool)
        await use(pool)
        after = commands(pool)
        assert [index for index in range(3) if after[index] > before[index]] == [group]


@pytest.mark.parametrize("shared_connections", [1, 2])
async def test_reads_while_writes_are_paused(any_redis: RedisServer, shared_connections: int) -> None:
    """With two connections the server's pause of writes holds no read up; with one, it does."""
    any_redis.command("FLUSHALL")
    any_redis.command("SET", "k", "v")

    async with RedisPool(
        url=any_redis.url, shared_connections=shared_connections, command_timeout=300
    ) as pool:
        any_redis.command("CLIENT", "PAUSE", 300_000, "WRITE")

        try:
            writes = [asyncio.ensure_future(pool.redis.incr("n")) for _ in range(20)]
            await asyncio.sleep(0.05)
            reads = [asyncio.ensure_future(pool.redis.get("k")) for _ in range(20)]

            if shared_connections == 1:
                await asyncio.sleep(0.2)
                assert not any(read.done() for read in reads)
            else:
                assert await asyncio.gather(*reads) == [b"v"] * 20

            assert not any(write.done() for write in writes)
        finally:
            any_redis.command("CLIENT", "UNPAUSE")

        assert await asyncio.gather(*writes) == list(range(1, 21))
        assert await asyncio.gather(*reads) == [b"v"] * 20


async def test_small_commands_beside_a_large_value(redis_server: RedisServer) -> None:
    """While a large value is on its way, reads and writes of others are answered."""
    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url), shared_connections=3, command_timeout=300) as pool,
    ):
        proxy.throttle(1 << 20, to="server")
        writing = asyncio.ensure_future(pool.redis.set("large", bytes(64 << 20)))  # would take a minute
        await asyncio.sleep(0)

        for number in range(10):
            assert await pool.redis.set("small", number)
            assert await pool.redis.get("small") == str(number).encode()

        assert not writing.done()
        proxy.heal()
        assert await writing
        assert await pool.redis.strlen("large") == 64 << 20


@pytest.mark.parametrize("shared_connections", [2, 3, 5])
async def test_a_task_sees_its_own_writes(any_redis_url: str, shared_connections: int) -> None:
    """The commands of a task are executed in its order, whichever connections they take."""
    async with RedisPool(url=any_redis_url, shared_connections=shared_connections) as pool:

        async def work(key: str) -> None:
            for number in range(30):
                value = str(number).encode() * (LARGE if number % 7 == 0 else 1)
                await pool.redis.set(key, value)
                assert await pool.redis.get(key) == value
                assert await pipelined(pool, ("GET", key), ("DEL", key)) == [value, 1]
                assert await pool.redis.get(key) is None

        await asyncio.gather(*(work(f"own:{number}") for number in range(10)))


async def test_a_read_follows_a_cancelled_write(any_redis: RedisServer) -> None:
    """A read waits for a cancelled write of its key; other reads don't, and no write waits for a read."""
    any_redis.command("FLUSHALL")

    async with RedisPool(url=any_redis.url, shared_connections=2, command_timeout=300) as pool:
        any_redis.command("CLIENT", "PAUSE", 300_000, "WRITE")

        try:
            writing = asyncio.ensure_future(pool.redis.set("k", "new"))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            reading = asyncio.ensure_future(pool.redis.get("k"))
            assert await pool.redis.get("other") is None
            assert not reading.done()
        finally:
            any_redis.command("CLIENT", "UNPAUSE")

        assert await reading == b"new"
        before = commands(pool)
        cancelled = asyncio.ensure_future(pool.redis.get("k"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await pool.redis.set("k", "newer")
        assert commands(pool)[1] == before[1] + 1


async def test_on_a_cluster(cluster_servers: ClusterServers, cluster_url: str) -> None:
    """Each node has connections of each kind."""
    cluster_servers.wait_whole()

    async with RedisPool(url=cluster_url, cluster=True, shared_connections=3) as pool:
        for group, args in enumerate((("GET",), ("INCR",), ("APPEND", VALUE))):
            before = commands(pool)

            for number in range(60):
                await pool.redis.execute_command(args[0], f"{group}:{number}", *args[1:])

            used = {index % 3 for index, count in enumerate(commands(pool)) if count > before[index]}
            assert used == {group}
