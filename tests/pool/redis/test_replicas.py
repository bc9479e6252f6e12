"""Commands that only read may go to replicas, by redis-py's strategies; nothing else does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.servers import StartServer
from tools.servers import ClusterServers, RedisServer, SentinelServers, wait_until
from ws_pool._redis.cluster import topology
from ws_pool.errors import ConfigError
from ws_pool.redis import RedisPool


def gets(server: RedisServer) -> int:
    """Count the GETs that a server has executed."""
    return calls(server, "get")


def calls(server: RedisServer, command: str) -> int:
    """Count the calls of a command that a server has executed."""
    try:
        found = server.info("commandstats")
    except ConnectionResetError:
        # Sentinels end all connections of a server that is back when they tell it who its master is.
        found = server.info("commandstats")

    statistics: Any = found.get(f"cmdstat_{command}", "calls=0,")
    text = str(statistics["calls"]) if isinstance(statistics, dict) else str(statistics)
    return int(text.removeprefix("calls=").split(",")[0])


async def connected(pool: RedisPool, count: int) -> None:
    """Wait until the pool has so many shared connections, all connected."""
    async with asyncio.timeout(20):
        while True:
            shared = pool.statistics().shared

            if len(shared) >= count and all(connection.connected for connection in shared):
                return

            await asyncio.sleep(0.01)


async def replicated(pool: RedisPool, key: str, servers: list[RedisServer], value: str) -> None:
    """Write a key, and wait until all replicas have it."""
    await pool.redis.set(key, value)

    async with asyncio.timeout(20):
        while not all(server.info("replication").get("slave_repl_offset") for server in servers):
            await asyncio.sleep(0.01)

        await pool.redis.wait(len(servers), 10_000)


class TestOptions:
    """Where replicas are not known, or not exact, the option is refused."""

    @pytest.mark.parametrize(
        "options",
        [
            {"read_from": "random_replica"},
            {"read_from": "round_robin", "cluster": True, "cache": 10},
            {"read_from": "nearest", "cluster": True},
        ],
    )
    def test_what_does_not_fit(self, options: dict[str, Any]) -> None:
        """The error names the option."""
        with pytest.raises(ConfigError, match="read_from"):
            RedisPool(**options)


class TestSentinel:
    """Replicas that the Sentinels know."""

    @pytest.mark.parametrize("strategy", ["round_robin", "round_robin_replicas", "random_replica"])
    async def test_reads_are_spread(self, start_server: StartServer, strategy: str) -> None:
        """Reads go where the strategy says, writes and scans to the master."""
        group = start_server(SentinelServers, replicas=2)
        master, replicas = group.master, group.replicas
        options: dict[str, Any] = {"sentinels": group.addresses, "service": group.name}

        async with RedisPool(**options, read_from=strategy, decode_responses=True) as pool:
            await connected(pool, 3)
            await replicated(pool, "k", replicas, "v")
            before = [gets(server) for server in (master, *replicas)]
            values = await asyncio.gather(*(pool.redis.get("k") for _ in range(60)))
            assert set(values) == {"v"}
            counts = [gets(server) - old for server, old in zip((master, *replicas), before, strict=True)]
            assert sum(counts) == 60
            assert (counts[0] == 0) == (strategy != "round_robin")
            assert min(counts[1:]) > 0

            assert [key async for key in pool.redis.scan_iter()] == ["k"]
            assert await pool.redis.incr("n") == 1
            assert await pool.redis.reading_from_master().get("n") == "1"
            assert gets(master) - before[0] == counts[0] + 1
            assert calls(master, "scan") == 1

            async with pool.redis.pipeline() as pipe:
                pipe.incr("n")
                pipe.get("n")
                assert await pipe.execute() == [2, "2"]

    async def test_a_replica_that_dies_is_not_missed(self, start_server: StartServer) -> None:
        """Reads go on at the others and at the master; a replica that is back is used again."""
        group = start_server(SentinelServers, replicas=2)
        options: dict[str, Any] = {"sentinels": group.addresses, "service": group.name}

        async with RedisPool(**options, read_from="round_robin_replicas", decode_responses=True) as pool:
            await connected(pool, 3)
            await replicated(pool, "k", group.replicas, "v")
            reading = asyncio.ensure_future(read_on(pool, "k", 400))
            await asyncio.sleep(0.02)
            replica = group.replicas[0]
            replica.kill()
            assert await reading == {"v"}

            for other in group.replicas[1:]:
                other.kill()

            assert await read_on(pool, "k", 20) == {"v"}
            replica.restart()
            before = gets(replica)

            async with asyncio.timeout(30):
                while gets(replica) == before:
                    await pool.redis.get("k")
                    await asyncio.sleep(0.01)

    async def test_a_replica_that_leaves_passes_on_what_waits(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A read that is queued for it goes to the master, as its connection would never come back."""
        group = start_server(SentinelServers, down_after=60.0)  # the test takes it away, not the Sentinels
        options: dict[str, Any] = {"sentinels": group.addresses, "service": group.name}

        async with RedisPool(**options, read_from="round_robin_replicas", decode_responses=True) as pool:
            await connected(pool, 2)
            await replicated(pool, "k", group.replicas, "v")
            assert pool._backend is not None
            replicas = pool._backend._replicas
            assert replicas is not None
            (node,) = replicas.nodes.values()
            (shared,) = node.shared_connections
            group.replicas[0].kill()

            async with asyncio.timeout(20):
                while shared.statistics().connected:
                    await asyncio.sleep(0.01)

            # The choice avoids nodes that are not connected; this read was made a moment before the loss.
            with monkeypatch.context() as patched:
                patched.setattr(replicas._balancer, "choose", lambda *_: node)
                reading = asyncio.ensure_future(pool.redis.get("k"))
                await asyncio.sleep(0)

            assert not reading.done()
            replicas.update(())
            assert await reading == "v"

    async def test_a_replica_without_data_is_passed_over(self, start_server: StartServer) -> None:
        """A replica that may not serve old data costs a second try at the master, no error."""
        group = start_server(SentinelServers)
        options: dict[str, Any] = {"sentinels": group.addresses, "service": group.name}

        async with RedisPool(**options, read_from="round_robin_replicas", decode_responses=True) as pool:
            await connected(pool, 2)
            await replicated(pool, "k", group.replicas, "v")
            unlink(group.replicas, [group.master])
            assert [await pool.redis.get("k") for _ in range(5)] == ["v"] * 5
            before = calls(group.replicas[0], "get")
            assert await pool.redis.execute_command("GET", "k", NEVER_DECODE=True) == b"v"
            assert calls(group.replicas[0], "get") >= before


def unlink(replicas: list[RedisServer], masters: list[RedisServer]) -> None:
    """Take their masters from replicas, which then refuse to serve what they have."""
    for node in replicas:
        node.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        node.command("CONFIG", "SET", "masterauth", "wrong")
        node.command("CONFIG", "SET", "masteruser", "nobody")

    for node in masters:
        node.command("CLIENT", "KILL", "TYPE", "replica")

    wait_until(
        lambda: all(node.info("replication")["master_link_status"] == "down" for node in replicas),
        "the replicas have lost their masters",
    )


async def read_on(pool: RedisPool, key: str, times: int) -> set[Any]:
    """Read a key again and again, one after the other."""
    found: set[Any] = set()  # Any: what redis-py declares for GET

    for _ in range(times):
        found.add(await pool.redis.get(key))
        await asyncio.sleep(0)

    return found


class TestCluster:
    """Replicas that the cluster knows: those that have received something."""

    @pytest.fixture(autouse=True)
    def _look_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(topology, "POLL_INTERVAL", 0.2)

    async def test_reads_go_to_replicas(self, start_server: StartServer) -> None:
        """Single reads, and those that are split, go to replicas of their slots; the rest to masters."""
        cluster = start_server(ClusterServers, replicas=1)
        roles = {id(node): node.info("replication")["role"] for node in cluster.nodes}
        masters = [node for node in cluster.nodes if roles[id(node)] == "master"]
        replicas = [node for node in cluster.nodes if roles[id(node)] == "slave"]
        keys = [f"k{number}" for number in range(30)]

        async with RedisPool(
            cluster.url, cluster=True, read_from="round_robin_replicas", decode_responses=True
        ) as pool:
            await pool.redis.mset(dict.fromkeys(keys, "v"))
            await connected(pool, 6)

            async with asyncio.timeout(20):
                while sum(node.command("DBSIZE") for node in replicas) < 30:
                    await asyncio.sleep(0.01)

            before = sum(map(gets, masters))
            assert [await pool.redis.get(key) for key in keys] == ["v"] * 30
            assert await pool.redis.mget(keys) == ["v"] * 30
            assert sum(map(gets, replicas)) == 30
            assert sum(map(gets, masters)) == before
            assert sum(calls(node, "mget") for node in masters) == 0
            assert await pool.redis.reading_from_master().get("k0") == "v"
            assert sum(map(gets, masters)) == before + 1
            assert len([key async for key in pool.redis.scan_iter()]) == 30
            assert await pool.redis.incr("n") == 1

            for node in replicas:
                node.kill()

            assert [await pool.redis.get(key) for key in keys] == ["v"] * 30

    async def test_a_replica_without_data_is_passed_over(self, start_server: StartServer) -> None:
        """A replica that has lost its master and may not serve old data costs a second try, no error."""
        cluster = start_server(ClusterServers, replicas=1, config={"cluster-allow-reads-when-down": "yes"})
        replicas = [node for node in cluster.nodes if node.info("replication")["role"] == "slave"]

        async with RedisPool(
            cluster.url, cluster=True, read_from="round_robin_replicas", decode_responses=True
        ) as pool:
            await pool.redis.mset({f"k{number}": "v" for number in range(30)})
            await connected(pool, 6)

            async with asyncio.timeout(20):
                while sum(node.command("DBSIZE") for node in replicas) < 30:
                    await asyncio.sleep(0.01)

            unlink(replicas, [node for node in cluster.nodes if node not in replicas])
            assert [await pool.redis.get(f"k{number}") for number in range(30)] == ["v"] * 30
            assert await pool.redis.mget("k0", "other") == ["v", None]
