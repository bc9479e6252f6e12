"""A cluster that loses a master: what waits for it is served by its successor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.exceptions import ClusterDownError

from tests.pool.redis._support import topology_of
from tests.pool.redis.test_cluster import replicated
from tests.servers import StartServer
from tools.servers import ClusterServers
from ws_pool._redis.commands.keys import SLOTS
from ws_pool.errors import ConfigError, UnavailableError
from ws_pool.redis import RedisPool


async def test_what_waits_for_a_dead_master_goes_to_its_replica(start_server: StartServer) -> None:
    """Commands of all kinds wait through a fail-over, with nobody else calling, and none fails."""
    cluster = start_server(ClusterServers, replicas=1, config={"cluster-node-timeout": 500})

    async with RedisPool(url=cluster.url, cluster=True, outage_timeout=60.0) as pool:
        redis, master = pool.redis, cluster.masters[0]
        key = next(f"k{n}" for n in range(1000) if cluster.node_of_key(f"k{n}").port == master.port)
        await redis.set(key, "v")

        async with asyncio.timeout(10):
            while not replicated(str(master.command("INFO", "replication"))):
                await asyncio.sleep(0.01)

        await asyncio.to_thread(master.kill)

        async with asyncio.timeout(20):
            while all(s.connected for node in topology_of(pool).nodes for s in node.shared_connections):
                await asyncio.sleep(0.005)

        several = redis.pipeline(transaction=False)
        several.get(key)
        several.get(key)
        transaction = redis.pipeline()
        transaction.get(key)
        transaction.incr(f"{{{key}}}m")
        waiting: list[Awaitable[Any]] = [
            redis.get(key),
            redis.incr(f"{{{key}}}n"),
            several.execute(),
            transaction.execute(),
            redis.dbsize(),
        ]

        async with asyncio.timeout(40):
            got = await asyncio.gather(*waiting)

        assert got[:4] == [b"v", 1, [b"v", b"v"], [b"v", 1]]
        assert got[4] >= 1
        assert master.port not in {node.key[1] for node in topology_of(pool).nodes if node.key}


async def test_a_cluster_that_is_down_is_waited_for(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands wait for a cluster that is not whole as long as for a server, not for some attempts only."""
    cluster = start_server(ClusterServers, config={"cluster-node-timeout": 500})
    node = cluster.masters[0]
    key = next(f"k{n}" for n in range(1000) if cluster.node_of_key(f"k{n}").port == cluster.masters[1].port)

    async with (
        RedisPool(url=cluster.url, cluster=True, outage_timeout=60.0) as pool,
        RedisPool(url=cluster.url, cluster=True, outage_timeout=0.01) as hasty,
    ):
        await asyncio.to_thread(node.kill)

        async def use() -> None:
            while True:
                await hasty.redis.set(key, 1)
                await asyncio.sleep(0.01)

        with pytest.raises(ClusterDownError):
            await asyncio.wait_for(use(), 30)

        topology = topology_of(pool)
        refresh, asked = topology.refresh_soon, 0

        def count() -> asyncio.Task[None]:
            nonlocal asked
            asked += asyncio.current_task() is writing
            return refresh()

        monkeypatch.setattr(topology, "refresh_soon", count)
        writing = asyncio.ensure_future(pool.redis.set(key, 1))

        async with asyncio.timeout(30):
            while asked < 20 and not writing.done():
                await asyncio.sleep(0.01)

        assert not writing.done()
        await asyncio.to_thread(node.restart)

        async with asyncio.timeout(40):
            assert await writing


class TestSeeds:
    """Where a cluster is looked for."""

    async def test_the_first_that_answers_is_asked(self, cluster_servers: ClusterServers) -> None:
        """Seeds that are down are passed over."""
        last = cluster_servers.masters[2]

        async with RedisPool(cluster=True, seeds=["127.0.0.1:1", (last.host, last.port)]) as pool:
            assert len(topology_of(pool).nodes) == 3
            assert await pool.redis.ping()

        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:2"):
            await RedisPool(cluster=True, seeds=["127.0.0.1:1", "127.0.0.1:2"]).start()

    async def test_they_are_asked_again_when_no_node_answers(self, cluster_url: str) -> None:
        """With no known node connected, the seeds know where the cluster is now."""
        async with RedisPool(url=cluster_url, cluster=True) as pool:
            topology = topology_of(pool)
            topology._owner = [None] * SLOTS

            for node in topology.nodes:
                for shared in node.shared_connections:
                    await shared.close()

            await topology.refresh_soon()
            assert None not in topology._owner

    def test_options(self) -> None:
        """Seeds come after the node that is named by itself, and need a cluster."""
        pool = RedisPool(url="redis://a:1", cluster=True, password="p", seeds=["b:2", "c"])
        assert [str(seed) for seed in pool._settings.seed_endpoints] == ["a:1", "b:2", "c:6379"]
        assert {seed.password for seed in pool._settings.seed_endpoints} == {"p"}

        with pytest.raises(ConfigError, match="cluster"):
            RedisPool(seeds=["b:2"])

        with pytest.raises(ConfigError, match="empty"):
            RedisPool(cluster=True, seeds=[])
