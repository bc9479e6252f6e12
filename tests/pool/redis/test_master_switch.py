"""Everything follows a new master, also when the old one lives on and takes itself for the master."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import WatchError

from tests.servers import StartServer
from tools.servers import ClusterServers, RedisServer, SentinelServers
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.keys import hash_slot
from ws_pool.errors import UnavailableError
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.deployment


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.once)], ids=["redis", "valkey"])
def servers(start_server: StartServer, request: pytest.FixtureRequest) -> SentinelServers:
    """Start a master that cannot be demoted: it stays a master when the Sentinels have chosen another."""
    servers = start_server(SentinelServers, valkey=request.param)
    servers.master.command("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
    return servers


@pytest.fixture
async def pool(servers: SentinelServers) -> AsyncIterator[RedisPool]:
    """Start a pool that follows the master."""
    async with RedisPool(
        sentinels=servers.addresses, service="mymaster", outage_timeout=20.0, decode_responses=True
    ) as pool:
        yield pool


async def switch(servers: SentinelServers) -> RedisServer:
    """Promote the replica; return the old master, which lives on."""
    before = servers.master
    await asyncio.to_thread(servers.failover)
    assert before.info("replication")["role"] == "master"
    return before


async def blocked(server: RedisServer, count: int) -> None:
    """Wait until so many clients are blocked at a server."""
    async with asyncio.timeout(10):
        while int(server.info("clients")["blocked_clients"]) != count:
            await asyncio.sleep(0.02)


async def read_on(pubsub: PubSub) -> None:
    """Read messages until there is an error."""
    while True:
        await pubsub.get_message(timeout=1)


def master_port(node: RedisServer) -> object:
    """Return the port of a replica's master."""
    return node.info("replication").get("master_port")


class TestSentinels:
    """A ``+switch-master`` while the old master is alive."""

    async def test_blocked_commands(self, servers: SentinelServers, pool: RedisPool) -> None:
        """A blocked command is unblocked at the old master and waits for its item at the new one."""
        old = servers.master
        forever = asyncio.ensure_future(pool.redis.blpop("jobs", timeout=0))
        short = asyncio.ensure_future(pool.redis.blpop("none", timeout=15))
        reading = asyncio.ensure_future(pool.redis.xread({"stream": "$"}, block=0))
        await blocked(old, 3)
        await switch(servers)
        await blocked(servers.master, 3)
        assert int(old.info("clients")["blocked_clients"]) == 0
        servers.master.command("RPUSH", "jobs", "job")
        servers.master.command("XADD", "stream", "*", "k", "v")
        assert list(await asyncio.wait_for(forever, 10) or ()) == ["jobs", "job"]
        assert await asyncio.wait_for(reading, 10)
        assert await asyncio.wait_for(short, 20) is None

    async def test_subscribers(self, servers: SentinelServers, pool: RedisPool) -> None:
        """A subscriber gets one error, the sign of its gap, and then the messages of the new master."""
        async with pool.redis.pubsub() as pubsub:
            await pubsub.subscribe("news")
            assert await pubsub.get_message(timeout=5)
            old = await switch(servers)

            with pytest.raises(DriverConnectionError):
                await asyncio.wait_for(read_on(pubsub), 10)

            async with asyncio.timeout(10):
                while servers.master.command("PUBLISH", "news", "new") != 1:
                    await asyncio.sleep(0.02)

            assert old.command("PUBLISH", "news", "old") == 0
            message = None

            while message is None or message["type"] != "message":
                message = await pubsub.get_message(timeout=5)

            assert message["data"] == "new"

    async def test_sessions(self, servers: SentinelServers, pool: RedisPool) -> None:
        """A session on the old master is over, and a transaction that watches keys there is not executed."""
        async with pool.get_client(alone=True) as client, pool.redis.pipeline() as pipe:
            await client.client_setname("mine")
            await pipe.watch("k")
            old = await switch(servers)
            await asyncio.sleep(1)

            with pytest.raises(UnavailableError, match="session"):
                await client.client_getname()

            pipe.multi()
            pipe.set("k", "stale")

            with pytest.raises(WatchError):
                await pipe.execute()

        assert old.command("EXISTS", "k") == 0
        assert await pool.redis.set("k", "new")
        assert servers.master.command("GET", "k") == "new"


@pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
async def test_a_cluster_fails_over_on_request(start_server: StartServer, *, valkey: bool) -> None:
    """After CLUSTER FAILOVER a blocked command waits at the new master, within its timeout."""
    cluster = start_server(ClusterServers, replicas=1, valkey=valkey)

    async with RedisPool(url=cluster.url, cluster=True, outage_timeout=20.0, decode_responses=True) as pool:
        await pool.redis.set("jobs-are-here", 1)
        old = cluster.node_of(hash_slot(b"jobs"))
        waiting = asyncio.ensure_future(pool.redis.blpop("jobs", timeout=0))
        await blocked(old, 1)
        replica = next(
            node for node in cluster.nodes if node.info("replication").get("master_port") == str(old.port)
        )

        while replica.info("replication")["role"] != "master":  # an attempt ends when the replica lags behind
            replica.command("CLUSTER", "FAILOVER")
            await asyncio.sleep(0.5)

        await blocked(replica, 1)
        assert await pool.redis.rpush("jobs", "job")
        assert list(await asyncio.wait_for(waiting, 10) or ()) == ["jobs", "job"]


def test_a_shorter_wait() -> None:
    """The time that a blocking command has waited already is not waited for again."""
    assert Command(("BLMPOP", "2.5", 1, "q", "LEFT")).shortened(1).args == ("BLMPOP", 1.5, 1, "q", "LEFT")
    assert Command(("XREAD", "BLOCK", 900, "STREAMS", "s", "$")).shortened(0.5).block_seconds == 0.4
    assert Command(("BLPOP", "q", 1)).shortened(5).block_seconds == 0.001
    assert Command(("BLPOP", "q", 0)).shortened(5).block_seconds is None
