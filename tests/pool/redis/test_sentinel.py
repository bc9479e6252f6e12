"""Sentinel behind the same class: the pool follows the master."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from redis.exceptions import ReadOnlyError, RedisError

from tests.servers import StartServer
from tools.servers import RedisServer, SentinelServers
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.sentinel import FailoverListener, MasterResolver
from ws_pool.errors import MaybeExecuted, UnavailableError
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage


@pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
async def test_a_fail_over_under_load(start_server: StartServer, *, valkey: bool) -> None:
    """Through an ordered fail-over under load every command is served, or fails with a clear error."""
    servers = start_server(SentinelServers, valkey=valkey)
    outcomes: dict[str, int] = {"done": 0, "unknown": 0, "unsent": 0}
    stop = asyncio.Event()

    async def write(pool: RedisPool, name: str) -> None:
        while not stop.is_set():
            try:
                await pool.redis.incr(name)
                outcomes["done"] += 1
            except MaybeExecuted:
                outcomes["unknown"] += 1
            except UnavailableError:
                outcomes["unsent"] += 1
                await asyncio.sleep(0.01)

    async with RedisPool(sentinels=servers.addresses, service="mymaster", outage_timeout=20.0) as pool:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(write(pool, f"n:{number}"))

            while outcomes["done"] < 500:
                await asyncio.sleep(0.01)

            before = servers.master.port
            await asyncio.to_thread(servers.failover)
            reached = outcomes["done"]

            while outcomes["done"] < reached + 500:
                await asyncio.sleep(0.01)

            stop.set()

        after = servers.master.port
        (shared,) = pool.statistics().shared

    assert before != after
    assert shared.endpoint.endswith(f":{after}")
    assert outcomes["unsent"] == 0


async def test_a_killed_master_is_replaced(start_server: StartServer) -> None:
    """After SIGKILL of the master the pool finds the new one by itself; blocking commands do so too."""
    servers = start_server(SentinelServers)

    async with RedisPool(sentinels=servers.addresses, service="mymaster", outage_timeout=0.2) as pool:
        await pool.redis.set("k", "v")
        await pool.redis.wait(1, 5000)
        before = servers.master
        before.kill()
        await asyncio.to_thread(servers.wait_failover, before)

        async with asyncio.timeout(10):
            while not (await pool.health()).ok:
                await asyncio.sleep(0.02)

        assert await pool.redis.get("k") == b"v"
        assert await pool.redis.blpop("empty", timeout=0.01) is None


async def test_a_sentinel_that_is_down_is_passed_over(
    sentinel_servers: SentinelServers, sentinel_url: str
) -> None:
    """The first Sentinel that answers is believed."""
    addresses = [("127.0.0.1", 1), *sentinel_servers.addresses]

    async with RedisPool(sentinels=addresses, service="mymaster", db=1) as pool:
        assert await pool.redis.ping()


async def test_no_sentinel_knows_the_service(sentinel_servers: SentinelServers, sentinel_url: str) -> None:
    """An unknown service and Sentinels that are down are named."""
    pool = RedisPool(sentinels=[*sentinel_servers.addresses, "127.0.0.1:1"], service="nobody")

    with pytest.raises(UnavailableError, match=r"master of 'nobody'.*does not know it.*127\.0\.0\.1:1"):
        await pool.start()


async def test_a_demoted_master_is_left(start_server: StartServer) -> None:
    """When writes are refused because the master was demoted, the write goes to the new one, unnoticed."""
    servers = start_server(SentinelServers)
    master, (replica,) = servers.master, servers.replicas

    async with RedisPool(sentinels=servers.addresses, service="mymaster", outage_timeout=20.0) as pool:
        await pool.redis.set("k", 1)
        master.command("REPLICAOF", replica.host, replica.port)  # behind the Sentinels' back
        replica.command("REPLICAOF", "NO", "ONE")
        writing = asyncio.ensure_future(pool.redis.set("k", 2))
        assert await asyncio.wait_for(writing, 20)


async def test_dedicated_connections_leave_a_demoted_master(start_server: StartServer) -> None:
    """A blocking command that the old master refuses goes to the new one."""
    servers = start_server(SentinelServers)
    master, (replica,) = servers.master, servers.replicas

    async with RedisPool(sentinels=servers.addresses, service="mymaster", outage_timeout=20.0) as pool:
        assert pool._backend is not None
        assert pool._backend.node is not None
        await pool.redis.rpush("{q}", 1)
        assert await pool.redis.blpop(["{q}"], 1)

        while not pool.statistics().leased[0].idle:
            await asyncio.sleep(0)

        idle = pool._backend.node.pool._state.idle[0].conn
        master.command("REPLICAOF", replica.host, replica.port)  # behind the Sentinels' back
        replica.command("REPLICAOF", "NO", "ONE")
        waiting = asyncio.ensure_future(pool.redis.blpop(["{q}"], 20))

        while not waiting.done():
            # A Sentinel that reconfigures a server closes the connections of all its clients, even ours.
            with contextlib.suppress(ConnectionResetError):
                if int(replica.info("clients")["blocked_clients"]):
                    break

            await asyncio.sleep(0.01)

        replica.command("RPUSH", "{q}", 2)
        assert await asyncio.wait_for(waiting, 30)
        assert not idle.is_connected


async def test_a_master_that_moves_replaces_dedicated_connections(redis_url: str) -> None:
    """Also when the shared connections were quicker, and are with the new master already."""
    async with RedisPool(url=redis_url) as pool:
        assert pool._backend is not None
        assert pool._backend.node is not None

        for shared in pool._backend.node.shared_connections:
            shared.drop_unless_at = lambda *_: False  # type: ignore[method-assign]

        connection = await pool._backend.node.dedicated.get_connection()
        pool._backend.follow_master("old", 1)
        pool._backend.follow_master("old", 1)
        await pool._backend.node.dedicated.release(connection)

        while not pool.statistics().leased[0].idle:
            await asyncio.sleep(0)

        pool._backend.follow_master("new", 1)

        while pool.statistics().leased[0].size:
            await asyncio.sleep(0)


async def test_without_sentinel_a_read_only_error_is_the_callers(start_server: StartServer) -> None:
    """A pool on one address does not look for another master."""
    master, replica = start_server(RedisServer), start_server(RedisServer)
    replica.command("REPLICAOF", master.host, master.port)

    async with RedisPool(url=replica.url) as pool:
        with pytest.raises(ReadOnlyError):
            await pool.redis.set("k", 1)


async def test_listening_uses_tls_as_asking_does() -> None:
    """The connection for fail-over events begins with a TLS handshake when Sentinels want TLS."""
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.readexactly(1))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        resolver = MasterResolver(
            [server.sockets[0].getsockname()],
            "mymaster",
            sentinel_endpoint=Endpoint(tls=ssl.create_default_context()),
            master_endpoint=Endpoint(),
            encoder=CommandEncoder(lambda value: str(value).encode(), fast=True),
        )

        with pytest.raises((OSError, RedisError)):
            async with resolver.listener():
                pass

        assert await first == b"\x16"


async def test_nonsense_of_a_sentinel_is_survived(sentinel_servers: SentinelServers) -> None:
    """A message that does not report a fail-over is ignored, and the next one is handled."""
    heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    resolver = MasterResolver(
        sentinel_servers.addresses,
        "mymaster",
        sentinel_endpoint=Endpoint(protocol=2),
        master_endpoint=Endpoint(),
        encoder=CommandEncoder(lambda value: str(value).encode(), fast=True),
    )
    watch = FailoverListener(resolver, lambda host, port: heard.put_nowait((host, port)))

    for nonsense in ("", "mymaster", "mymaster a b c d e", "mymaster 127.0.0.1 1 127.0.0.1 port"):
        watch._on_message(nonsense)

    assert heard.empty()
    watch._on_message("mymaster 127.0.0.1 1 127.0.0.1 2")
    assert await heard.get() == ("127.0.0.1", 2)
    await watch.close()
