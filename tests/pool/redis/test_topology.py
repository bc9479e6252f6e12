"""Nodes of a cluster that come and go while their callers do."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ClusterDownError

from tests.pool.redis._support import topology_of
from tests.servers import StartServer
from tools.servers import ClusterServers
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.commands.keys import hash_slot
from ws_pool._redis.dedicated.connection import state_of
from ws_pool._redis.node import Node
from ws_pool.errors import MaybeExecuted
from ws_pool.redis import RedisPool


async def forget(topology: Topology, node: Node) -> tuple[str, int]:
    """Take a node out of the topology, as if it had never been known, and return its address."""
    assert node.key is not None
    del topology._nodes[node.key]
    await node.close(timeout=5)
    return node.key


async def test_a_cancelled_caller_does_not_leave_a_new_node_half_open(cluster_url: str) -> None:
    """A caller that is cancelled while it follows a redirection to a new node harms no later one."""
    async with RedisPool(url=cluster_url, cluster=True) as pool:
        topology = topology_of(pool)
        known, other = topology.nodes[:2]
        address = await forget(topology, other)
        caller = asyncio.ensure_future(topology.node_at(*address, known))
        await asyncio.sleep(0)
        caller.cancel()

        async with asyncio.timeout(10):
            node = await topology.node_at(*address, known)

            while not node.pick().connected:
                await asyncio.sleep(0.001)

            connection = await node.dedicated.get_connection()

        await node.dedicated.release(connection)
        assert caller.cancelled()


async def test_a_node_that_leaves_while_it_is_opened_is_closed(cluster_url: str) -> None:
    """Closing a node ends an opening that is under way: no connection stays behind."""
    async with RedisPool(url=cluster_url, cluster=True, minsize=1) as pool:
        topology = topology_of(pool)
        known, other = topology.nodes[:2]
        address = await forget(topology, other)
        caller = asyncio.ensure_future(topology.node_at(*address, known))
        await asyncio.sleep(0)
        node = topology._nodes[address]
        await forget(topology, node)
        await caller
        assert not node.pick().connected
        assert not node.pool.ready


async def test_a_node_that_leaves_before_it_is_asked(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that was sent on to a node is not lost with it: it finds its way again."""
    cluster = start_server(ClusterServers)

    async with RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool:
        await pool.redis.set("{way}k", "v")
        topology = topology_of(pool)
        node_at, left = topology.node_at, list[Node]()

        async def leaving(host: str, port: int, known: Node) -> Node:
            node = await node_at(host, port, known)

            if not left:
                left.append(node)
                await forget(topology, node)

            return node

        monkeypatch.setattr(topology, "node_at", leaving)
        moving = cluster.move_slot(hash_slot(b"way"))
        await asyncio.to_thread(moving.begin)

        while await asyncio.to_thread(moving.move_keys, 5):
            pass

        assert await pool.redis.get("{way}k") == "v"
        assert left


@pytest.mark.parametrize("minsize", [0, 2])
async def test_a_node_that_is_down_with_connections_to_keep(start_server: StartServer, minsize: int) -> None:
    """With ``minsize`` too, a node that is down at the start keeps nobody from the others, and comes back."""
    cluster = start_server(ClusterServers, config={"cluster-require-full-coverage": "no"})
    down, up = cluster.masters[2], cluster.masters[0]
    keys = {cluster.node_of_key(f"key:{number}").port: f"key:{number}" for number in range(50)}
    await asyncio.to_thread(down.kill)

    async with RedisPool(
        url=cluster.url, cluster=True, minsize=minsize, outage_timeout=30, decode_responses=True
    ) as pool:
        assert await pool.redis.set(keys[up.port], 1)
        await pool.redis.rpush(f"{{{keys[up.port]}}}list", "x")
        assert await pool.redis.blpop([f"{{{keys[up.port]}}}list"], 1)
        waiting = asyncio.ensure_future(pool.redis.blpop([f"{{{keys[down.port]}}}list"], 30))
        await asyncio.to_thread(down.restart)
        await asyncio.to_thread(cluster.wait_whole)
        await pool.redis.rpush(f"{{{keys[down.port]}}}list", "item")
        assert list(await waiting or ())[1] == "item"


async def pipeline(pool: RedisPool, *, transaction: bool) -> list[object]:
    """Read a key by a pipeline."""
    async with pool.redis.pipeline(transaction=transaction) as pipe:
        pipe.get("key")
        return await pipe.execute()


class TestBlockingCommands:
    """Commands on a connection of their own follow their key as all others do."""

    async def test_a_slot_on_its_way(self, start_server: StartServer) -> None:
        """BLPOP finds a key that is still there, one that has gone ahead, and one that has arrived."""
        cluster = start_server(ClusterServers)

        async with RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool:
            await pool.redis.rpush("{way}queue", "first", "second", "third")
            moving = cluster.move_slot(hash_slot(b"way"))
            await asyncio.to_thread(moving.begin)
            assert list(await pool.redis.blpop(["{way}queue"], 5) or ()) == ["{way}queue", "first"]

            while await asyncio.to_thread(moving.move_keys, 5):
                pass

            assert list(await pool.redis.blpop(["{way}queue"], 5) or ()) == ["{way}queue", "second"]
            await asyncio.to_thread(moving.finish)
            assert list(await pool.redis.blpop(["{way}queue"], 5) or ()) == ["{way}queue", "third"]

    async def test_a_slot_that_goes_away_from_under_a_waiter(self, start_server: StartServer) -> None:
        """A command that blocks at the old node goes on at the new one."""
        cluster = start_server(ClusterServers)

        async with RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop(["{way}queue"], 30))
            owner = topology_of(pool).node_of(hash_slot(b"way"))

            while not owner.pool.statistics().leased:
                await asyncio.sleep(0)

            await asyncio.to_thread(cluster.move_slot(hash_slot(b"way")).run)
            await pool.redis.rpush("{way}queue", "item")
            assert list(await waiting or ()) == ["{way}queue", "item"]

    @pytest.mark.parametrize("retry", ["safe", "at_least_once"])
    async def test_a_lost_connection(
        self, cluster_servers: ClusterServers, cluster_url: str, retry: str
    ) -> None:
        """A blocking read is repeated on a cluster too; what takes something is repeated on request only."""
        server = cluster_servers.node_of_key("{k}")

        async with RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool:
            in_use = topology_of(pool).node_of(hash_slot(b"k")).dedicated._in_use

            async def wait_and_cut(*command: object) -> asyncio.Future[object]:
                waiting = asyncio.ensure_future(pool.redis.execute_command(*command, retry=retry))

                while not int(server.info("clients")["blocked_clients"]):
                    await asyncio.sleep(0)

                server.command("CLIENT", "KILL", "ID", state_of(next(iter(in_use))).client_id)
                return waiting

            reading = await wait_and_cut("XREAD", "BLOCK", 20_000, "STREAMS", "{k}s", "0")
            await pool.redis.execute_command("XADD", "{k}s", "*", "f", "v")
            assert await reading
            taking = await wait_and_cut("BLPOP", "{k}q", 20)

            if retry == "safe":
                with pytest.raises(MaybeExecuted):
                    await taking
            else:
                await pool.redis.rpush("{k}q", "x")
                assert await taking


class TestClusterDown:
    """How long a cluster is waited for that says it is down."""

    async def test_only_the_first_wait(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once somebody has waited in vain, later commands of the slot fail at once, until one is served."""
        cluster = start_server(ClusterServers)

        async with RedisPool(url=cluster.url, cluster=True, outage_timeout=0.01) as pool:
            topology, slot, other = topology_of(pool), hash_slot(b"key"), hash_slot(b"other")
            owner = cluster.node_of(other)
            await pool.redis.set("key", 1)

            for node in sorted(
                cluster.masters, key=lambda node: node is not owner
            ):  # else others hear of it again
                node.command("CLUSTER", "DELSLOTS", other)

            with pytest.raises(ClusterDownError):
                await pool.redis.get("key")

            assert topology.is_given_up(slot)
            refreshed = 0

            def refresh() -> None:
                nonlocal refreshed
                refreshed += 1

            monkeypatch.setattr(topology, "refresh_soon", refresh)

            for command in (
                pool.redis.get("key"),
                pool.redis.execute_command("get", "key"),
                pool.redis.blpop(["key"], 1),
                pipeline(pool, transaction=True),
                pipeline(pool, transaction=False),
            ):
                with pytest.raises(ClusterDownError):
                    await command

            assert not refreshed
            monkeypatch.undo()
            owner.command("CLUSTER", "ADDSLOTS", other)
            await asyncio.to_thread(cluster.wait_whole)
            assert await pool.redis.get("key") == b"1"
            assert not topology.is_given_up(slot)
