"""The order of commands over several shared connections, when some of them are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.pool.redis._support import SilentOwner
from tools.servers import ClusterServers, RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.commands.command import Command
from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage

Write = Callable[[RedisPool, str, int], Coroutine[Any, Any, object]]


async def by_command(pool: RedisPool, key: str, value: int) -> object:
    """Write by one command."""
    return await pool.redis.set(key, value)


async def by_special_command(pool: RedisPool, key: str, value: int) -> object:
    """Write by one command with an option of the client's own."""
    return await pool.redis.execute_command("SET", key, value, retry="safe")


async def by_pipeline(pool: RedisPool, key: str, value: int) -> object:
    """Write by a transaction."""
    async with pool.redis.pipeline() as pipe:
        pipe.set(key, value)
        return await pipe.execute()


async def overtaken(pool: RedisPool, write: Write, keys: int = 10, times: int = 5) -> int:
    """Cancel writes that are under way, write again, and count whose second value did not last."""

    async def one(key: str) -> int:
        count = 0

        for number in range(0, 2 * times, 2):
            writing = asyncio.ensure_future(write(pool, key, number))
            await asyncio.wait([writing], timeout=0.003)  # as `wait_for` does it on Python 3.11
            writing.cancel()
            await asyncio.wait([writing])
            await write(pool, key, number + 1)

            while any(shared.in_line for shared in pool.statistics().shared):
                await asyncio.sleep(0.001)

            count += int(await pool.redis.get(key) or -1) != number + 1

        return count

    return sum(await asyncio.gather(*(one(f"k:{number}") for number in range(keys))))


@pytest.mark.parametrize("write", [by_command, by_special_command, by_pipeline])
async def test_a_cancelled_write_is_not_overtaken(redis_server: RedisServer, write: Write) -> None:
    """What is written after a cancelled write of the same key lasts, whichever connection each task has."""
    redis_server.command("FLUSHALL")

    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url), shared_connections=8) as pool,
    ):
        proxy.delay(0.001, jitter=0.01)
        assert await overtaken(pool, write) == 0


async def test_otherwise_it_would_be(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin, which goes by the task alone, lets later writes overtake."""
    monkeypatch.setattr(ReconnectingConnection, "must_follow", lambda *_: False)
    redis_server.command("FLUSHALL")

    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url), shared_connections=8) as pool,
    ):
        proxy.delay(0.001, jitter=0.01)

        async with asyncio.timeout(60):
            while not await overtaken(pool, by_command):  # by chance, in one of some rounds
                redis_server.command("FLUSHALL")


@pytest.mark.parametrize("write", [by_command, by_special_command, by_pipeline])
async def test_on_a_cluster(cluster_servers: ClusterServers, cluster_url: str, write: Write) -> None:
    """A command after a cancelled one takes its connection there, too."""
    cluster_servers.wait_whole()

    async with RedisPool(url=cluster_url, cluster=True, shared_connections=3) as pool:
        assert pool._backend is not None
        assert pool._backend.topology is not None
        topology = pool._backend.topology
        node = topology.node_of(topology.keys.slot(Command(("GET", "k"))))
        writing = asyncio.ensure_future(write(pool, "k", 1))

        while not any(shared.connection.pending for shared in node.shared_connections):
            await asyncio.sleep(0)

        (shared,) = (shared for shared in node.shared_connections if shared.connection.pending)
        writing.cancel()
        await asyncio.sleep(0)  # the loop has not read the reply yet
        assert node.pick(("GET", "k")) is shared
        await asyncio.wait([writing])


async def test_a_repeated_write_is_not_overtaken(redis_server: RedisServer) -> None:
    """A command after one that was cancelled while it was repeated takes its connection."""
    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url), shared_connections=3) as pool,
    ):
        assert pool._backend is not None
        assert pool._backend.node is not None
        shared_connections = pool._backend.node.shared_connections
        first = {shared.connection for shared in shared_connections}
        proxy.drop_reply(match="INCRBY")
        writing = asyncio.ensure_future(pool.redis.with_retry("at_least_once").incr("k"))

        while not any(s.connection.pending for s in shared_connections if s.connection not in first):
            await asyncio.sleep(0)

        (shared,) = (shared for shared in shared_connections if shared.connection not in first)
        writing.cancel()
        await asyncio.sleep(0)  # the loop has not read the reply yet
        assert shared.must_follow(("GET", "k"))
        await asyncio.wait([writing])


async def test_what_was_answered_is_forgotten() -> None:
    """Keys count until the reply has come or the link has gone; names and values don't."""
    connection = PipelinedConnection(SilentOwner(), Limits())
    cancelled_keys = CancelledKeys(lambda value: value if isinstance(value, bytes) else str(value).encode())
    connection.pending.append(asyncio.get_running_loop().create_future())
    cancelled_keys.add(connection, [("MULTI",), ("SET", "k", "v"), ("EVAL", "return 1", 1, "e"), ("EXEC",)])

    same: list[tuple[object, ...]] = [("GET", b"k"), ("GET k",), ("GET", "e"), ("OBJECT", "ENCODING", "k")]
    other: list[tuple[object, ...]] = [
        ("MULTI",),
        ("SET", "v", "k"),
        ("GET", "SET"),
        ("EVAL", "return 1", 1, "f"),
    ]

    for command in same:
        assert cancelled_keys.cover(connection, [command])
        assert not cancelled_keys.cover(PipelinedConnection(SilentOwner(), Limits()), [command])

    for command in other:
        assert not cancelled_keys.cover(connection, [command])

    cancelled_keys.add(connection, [("GET", "only read"), ("HGETALL", "only read")])
    assert not cancelled_keys.cover(connection, [("SET", "only read", 1)])

    for number in range(2_000):
        connection.answered += 1
        cancelled_keys.add(connection, [("SET", f"k:{number}", 1)])

    assert len(cancelled_keys._last) <= 1_001
    assert not cancelled_keys.cover(connection, [("GET", "k")])
    assert cancelled_keys.cover(connection, [("GET", "k:1999")])
    connection.answered += 1
    assert not cancelled_keys.cover(connection, [("GET", "k:1999")])
