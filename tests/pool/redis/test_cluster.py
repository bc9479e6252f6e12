"""A cluster behind the same class: commands find their node, also while slots are on their way."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ClusterDownError, RedisClusterException, ResponseError

from tests.servers import StartServer
from tools.servers import ClusterServers
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.keys import KeySpecs, hash_slot
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool.errors import MaybeExecuted, UnavailableError, UsageError
from ws_pool.events import RedisEventBus
from ws_pool.redis import RedisPool


@pytest.fixture
async def pool(cluster_url: str) -> Any:
    """Yield a pool on the shared cluster."""
    async with RedisPool(url=cluster_url, cluster=True, decode_responses=True) as opened:
        yield opened


def shared_connections(pool: RedisPool) -> list[ReconnectingConnection]:
    """Return all shared connections."""
    assert pool._backend is not None
    assert pool._backend.topology is not None
    return [shared for node in pool._backend.topology.nodes for shared in node.shared_connections]


class TestCommands:
    """Typed commands on a cluster."""

    async def test_keys_are_spread_and_found(self, pool: RedisPool) -> None:
        """Keys of all slots are written and read, each over the connection to its node."""
        await asyncio.gather(*(pool.redis.set(f"key:{number}", number) for number in range(300)))
        values = await asyncio.gather(*(pool.redis.get(f"key:{number}") for number in range(300)))

        assert values == [str(number) for number in range(300)]
        assert await pool.redis.dbsize() == 300
        assert len(await pool.redis.keys("key:*")) == 300
        assert len([key async for key in pool.redis.scan_iter(match="key:*", count=1000)]) == 300
        assert all(shared.commands > 50 for shared in pool.statistics().shared)

    async def test_commands_of_all_kinds(self, pool: RedisPool) -> None:
        """Commands find their keys wherever these stand among the arguments."""
        redis = pool.redis
        assert await redis.eval("return KEYS[1]", 1, "some") == "some"
        script = redis.register_script("return redis.call('INCR', KEYS[1])")
        assert [await script(keys=[f"n:{number}"]) for number in range(5)] == [1] * 5
        await redis.zadd("{z}1", {"a": 1})
        await redis.zadd("{z}2", {"a": 2})
        assert await redis.zunion(["{z}1", "{z}2"], withscores=True) == [("a", 3.0)]
        await redis.xadd("stream", {"f": 1}, id="1-1")
        read: Any = await redis.xread({"stream": 0})  # Any: its type allows for other protocol versions
        assert read[0][0] == "stream"
        assert await redis.xgroup_create("stream", "group", id=0)
        read = await redis.xreadgroup("group", "me", {"stream": ">"}, block=10)
        assert read[0][0] == "stream"
        assert await redis.object("ENCODING", "{z}1") == "listpack"
        assert await redis.memory_usage("stream")
        assert await redis.execute_command("object", b"encoding", "{z}1") == "listpack"
        assert await redis.exists("{z}1", "{z}2", "stream", "absent") == 3
        assert await redis.delete("{z}1", "{z}2", "stream") == 3
        await redis.rpush("queue", "item")
        assert list(await redis.blpop("queue", timeout=1) or ()) == ["queue", "item"]
        assert await redis.dump("absent") is None
        assert await redis.script_exists("0" * 40) == [False]
        assert await redis.mget("{m}1", "{m}2") == [None, None]
        assert await redis.lmpop(1, "absent", direction="LEFT") is None
        assert await redis.ping()

    async def test_pipelines(self, pool: RedisPool) -> None:
        """A pipeline is split by node and its replies keep their order; a transaction keeps to one slot."""
        async with pool.redis.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.incrby(f"key:{number}", number)

            pipe.lpush("key:1", "wrong type")
            replies = await pipe.execute(raise_on_error=False)

        assert replies[:100] == list(range(100))
        assert isinstance(replies[100], Exception)

        async with pool.redis.pipeline() as pipe:
            pipe.set("{t}a", 1)
            pipe.incr("{t}a")
            assert await pipe.execute() == [True, 2]

        async with pool.redis.pipeline() as pipe:
            pipe.set("a", 1)
            pipe.set("b", 1)

            with pytest.raises(RedisClusterException, match="one slot"):
                await pipe.execute()

        async with pool.redis.pipeline(transaction=False) as pipe:
            for number in range(2_500):
                pipe.echo(str(number))
                pipe.set(f"long:{number}", number)

            assert len(await pipe.execute()) == 5_000

        async with pool.redis.pipeline(transaction=False) as pipe:
            pipe.blpop("queue", 1)

            with pytest.raises(UsageError, match="cannot hold BLPOP"):
                await pipe.execute()

        async with pool.redis.pipeline() as pipe:
            await pipe.watch("{t}a")
            assert await pipe.get("{t}a") == "2"
            pipe.multi()
            pipe.set("{t}a", 3)
            assert await pipe.execute() == [True]

    async def test_what_a_cluster_cannot_do_is_refused(self, pool: RedisPool) -> None:
        """A single cursor and a single session do not exist on a cluster."""
        with pytest.raises(UsageError, match="scan_iter"):
            await pool.redis.scan()

        with pytest.raises(UsageError, match="no single session"):
            async with pool.get_client(alone=True):
                pass

        with pytest.raises(UsageError, match="no single session"):
            pool.redis.client()

    async def test_sharded_pubsub(self, pool: RedisPool) -> None:
        """A sharded bus subscribes at the node of its channel, and receives what is published there."""
        heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

        async def listen(name: str, number: int) -> None:
            await heard.put((name, number))

        for name in ("one", "two", "three", "four"):
            async with RedisEventBus(pool, name, sharded=True) as bus:
                bus.add_listener("tag", listen)
                assert await bus.publish("tag", name, 1) == 1
                assert await asyncio.wait_for(heard.get(), 5) == (name, 1)

    async def test_options_and_views(self, pool: RedisPool) -> None:
        """Special options, ``with_retry`` and the choice of nodes work as on a single server."""
        redis = pool.redis
        await redis.set("binary", b"\xff")
        assert await redis.execute_command("GET", "binary", **{NEVER_DECODE: []}) == b"\xff"
        assert (
            await redis.execute_command("GETDEL", "binary", **{EMPTY_RESPONSE: "x", NEVER_DECODE: []})
            == b"\xff"
        )
        assert await redis.execute_command("NOSUCH", "k", **{EMPTY_RESPONSE: "empty"}) == "empty"
        assert await redis.with_retry("at_least_once").incr("n") == 1
        assert await redis.exists("n") == 1
        assert await redis.config_set("maxmemory-samples", 5)

        async with redis.pubsub() as pubsub:
            await pubsub.subscribe("plain")
            assert await pubsub.get_message(timeout=5)
            await redis.publish("plain", "m")
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            assert message["data"] == "m"

        with pytest.raises(ResponseError):
            await redis.execute_command("GET", "k", "too many", **{NEVER_DECODE: []})

    async def test_lost_connections(self, cluster_servers: ClusterServers, pool: RedisPool) -> None:
        """A read is repeated when its connection is lost; a write, or a pipeline with one, is not."""
        node = cluster_servers.node_of_key("k")

        shared = next(
            shared for shared in shared_connections(pool) if str(shared.endpoint).endswith(str(node.port))
        )

        async def cut_after(work: Any) -> Any:
            while not shared.connected:
                await asyncio.sleep(0.001)

            task = asyncio.ensure_future(work)

            while not shared.connection.in_flight:
                await asyncio.sleep(0)

            shared.drop("cut by the test")
            return await task

        await pool.redis.set("k", 1)
        assert await cut_after(pool.redis.get("k")) == "1"
        assert await cut_after(pool.redis.execute_command("OBJECT", "ENCODING", "k")) == "int"

        with pytest.raises(MaybeExecuted):
            await cut_after(pool.redis.incr("k"))

        pipe = pool.redis.pipeline(transaction=False)
        pipe.incr("k")

        with pytest.raises(MaybeExecuted):
            await cut_after(pipe.execute())

        pipe.get("k")
        assert await cut_after(pipe.execute())

    async def test_a_single_server_is_no_cluster(self, redis_url: str) -> None:
        """A server that is not a node of a cluster is refused at the start."""
        with pytest.raises(Exception, match="cluster support disabled"):
            await RedisPool(url=redis_url, cluster=True).start()

    async def test_caching_works_on_a_cluster_too(self, cluster_url: str) -> None:
        """The client-side cache notices changes on every node."""
        async with (
            RedisPool(url=cluster_url, cluster=True, decode_responses=True, cache=100) as caching,
            RedisPool(url=cluster_url, cluster=True) as foreign,
        ):
            for number in range(10):
                await foreign.redis.set(f"key:{number}", "old")

            for _ in range(2):
                assert {await caching.redis.get(f"key:{number}") for number in range(10)} == {"old"}

            for number in range(10):
                await foreign.redis.set(f"key:{number}", "new")

            assert caching._backend is not None
            cache = caching._backend.cache
            assert cache is not None

            while cache.statistics().entries:
                await asyncio.sleep(0.001)

            assert {await caching.redis.get(f"key:{number}") for number in range(10)} == {"new"}


async def move(cluster: ClusterServers, slot: int) -> None:
    """Move a slot to another node in small steps, with time for clients to see each."""
    moving = cluster.move_slot(slot)
    await asyncio.to_thread(moving.begin)

    while await asyncio.to_thread(moving.move_keys, 5):
        await asyncio.sleep(0.02)

    await asyncio.to_thread(moving.finish)


class Counters:
    """Keys that are counted up, here and at the server, until they are stopped."""

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()
        self.stopped = False

    @property
    def total(self) -> int:
        """How far all have come."""
        return sum(self.values.values())

    async def until(self, total: int) -> None:
        """Wait until all together have come so far."""
        while self.total < total:
            await asyncio.sleep(0.01)

    async def count(self, pool: RedisPool, name: str) -> None:
        """Count by single commands."""
        while not self.stopped:
            self.values[name] += 1
            assert await pool.redis.incr(name) == self.values[name]

    async def transact(self, pool: RedisPool, name: str) -> None:
        """Count by transactions."""
        while not self.stopped:
            self.values[name] += 2

            async with pool.redis.pipeline() as pipe:
                pipe.incr(name)
                pipe.incr(name)
                assert await pipe.execute() == [self.values[name] - 1, self.values[name]]

    async def batch(self, pool: RedisPool, name: str) -> None:
        """Count by pipelines."""
        while not self.stopped:
            self.values[name] += 1

            async with pool.redis.pipeline(transaction=False) as pipe:
                pipe.incr(name)
                pipe.echo("x")
                assert await pipe.execute() == [self.values[name], "x"]


def replicated(info: str) -> bool:
    """Return from INFO whether a replica has all that its master has."""
    mine, theirs = re.search(r"master_repl_offset:(\d+)", info), re.search(r"slave0:.*?offset=(\d+)", info)
    return mine is not None and theirs is not None and theirs[1] == mine[1]


class TestChanges:
    """Slots that move, and nodes that die, under load."""

    async def test_a_sharded_bus_follows_its_channel(self, start_server: StartServer) -> None:
        """When the channel's slot goes to another node, the bus subscribes there and reports the gap."""
        cluster = start_server(ClusterServers)
        heard: asyncio.Queue[int] = asyncio.Queue()
        gap = asyncio.Event()

        async def listen(number: int) -> None:
            await heard.put(number)

        async def tell(**_: object) -> None:
            gap.set()

        async with (
            RedisPool(url=cluster.url, cluster=True) as pool,
            RedisEventBus(pool, "channel", sharded=True) as bus,
        ):
            bus.add_listener("tag", listen)
            bus.add_listener("gap", tell)
            await bus.publish("tag", 1)
            assert await asyncio.wait_for(heard.get(), 10) == 1
            await asyncio.to_thread(cluster.move_slot(hash_slot(b"channel")).run)
            await asyncio.wait_for(gap.wait(), 20)
            assert await bus.publish("tag", 2) == 1
            assert await asyncio.wait_for(heard.get(), 10) == 2

    async def test_a_reply_stays_bytes_while_its_slot_moves(self, start_server: StartServer) -> None:
        """What is never decoded is not decoded either when the key has gone to another node (ASK)."""
        cluster = start_server(ClusterServers)
        moving = cluster.move_slot(hash_slot(b"key"))

        async with RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool:
            await pool.redis.set("key", "value")
            dumped = await pool.redis.dump("key")
            await asyncio.to_thread(moving.begin)
            await asyncio.to_thread(moving.move_keys)
            assert await pool.redis.dump("key") == dumped
            assert await pool.redis.get("key") == "value"

    @pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
    async def test_a_slot_is_moved_under_load(self, start_server: StartServer, *, valkey: bool) -> None:
        """While a slot goes to another node step by step, nothing is lost, doubled or refused."""
        cluster = start_server(ClusterServers, valkey=valkey)
        slot = hash_slot(b"{moving}")
        counters = Counters()
        # A transaction cannot follow its slot before that has arrived: on a busy machine, later than in 2 s.
        options: dict[str, Any] = {"decode_responses": True, "outage_timeout": 20}

        async with RedisPool(url=cluster.url, cluster=True, **options) as pool:
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(counters.count(pool, f"{{moving}}:{number}"))
                    group.create_task(counters.count(pool, f"elsewhere:{number}"))

                for number in range(5):
                    group.create_task(counters.transact(pool, f"{{moving}}:transaction:{number}"))
                    group.create_task(counters.batch(pool, f"{{moving}}:batch:{number}"))

                for _ in range(2):
                    await move(cluster, slot)
                    await counters.until(counters.total + 500)

                counters.stopped = True

            for name, value in counters.values.items():
                assert await pool.redis.get(name) == str(value)

        assert counters.total > 1_000

    async def test_a_node_that_is_down_costs_its_own_keys_only(self, start_server: StartServer) -> None:
        """With a node down at the start all other keys are served; when it is back, all are."""
        cluster = start_server(ClusterServers, config={"cluster-require-full-coverage": "no"})
        node = cluster.masters[2]
        keys = {cluster.node_of_key(f"key:{number}").port: f"key:{number}" for number in range(50)}
        await asyncio.to_thread(node.kill)

        async with RedisPool(url=cluster.url, cluster=True, outage_timeout=0.05) as pool:
            for port, key in keys.items():
                if port == node.port:
                    with pytest.raises((UnavailableError, ClusterDownError)):
                        await pool.redis.set(key, 1)
                else:
                    assert await pool.redis.set(key, 1)

            assert not (await pool.health()).ok
            await asyncio.to_thread(node.restart)

            async with asyncio.timeout(30):
                while not (await pool.health()).ok:
                    await asyncio.sleep(0.02)

            await asyncio.to_thread(cluster.wait_whole)
            assert await pool.redis.set(keys[node.port], 1)
            await pool.redis.topology.refresh_soon()  # type: ignore[attr-defined]  # it is a cluster's client
            assert pool._backend is not None
            topology = pool._backend.topology
            assert topology is not None
            topology._owner[hash_slot(b"nowhere")] = None

            with pytest.raises(UnavailableError, match="slot"):
                topology.node_of(hash_slot(b"nowhere"))

            assert await pool.redis.get("nowhere") is None

    async def test_a_master_dies_and_its_replica_takes_over(self, start_server: StartServer) -> None:
        """After a fail-over all keys are served again, without any call to make."""
        cluster = start_server(ClusterServers, replicas=1, config={"cluster-node-timeout": 500})

        async with RedisPool(url=cluster.url, cluster=True, outage_timeout=0.5) as pool:
            for number in range(30):
                await pool.redis.set(f"key:{number}", number)

            for node in cluster.masters:  # WAIT would only wait for what its own connection has written
                async with asyncio.timeout(10):
                    while not replicated(str(node.command("INFO", "replication"))):
                        await asyncio.sleep(0.01)

            await asyncio.to_thread(cluster.masters[1].kill)
            found: dict[int, object] = {}

            async with asyncio.timeout(30):
                while len(found) < 30:
                    for number in set(range(30)) - found.keys():
                        try:
                            found[number] = await pool.redis.get(f"key:{number}")
                        except (UnavailableError, MaybeExecuted, OSError):
                            await asyncio.sleep(0.05)

            assert found == {number: str(number).encode() for number in range(30)}


class TestKeyTable:
    """Where commands have their keys."""

    TABLE = KeySpecs(
        [
            [b"get", 2, [], 1, 1, 1],
            [b"mset", -3, [], 1, -1, 2],
            [b"object", -2, [], 0, 0, 0, [], [], [], [[b"object|encoding", 3, [], 2, 2, 1]]],
            [b"ping", -1, [], 0, 0, 0],
            [b"bitop", -4, [], 2, -1, 1],
        ],
        lambda value: value.encode() if isinstance(value, str) else value,
    )

    @pytest.mark.parametrize(
        ("args", "keys"),
        [
            (("GET", "k"), ["k"]),
            ((b"get", b"k"), [b"k"]),
            (("MSET", "a", 1, "b", 2), ["a", "b"]),
            (("OBJECT ENCODING", "k"), ["k"]),
            (("OBJECT", "ENCODING", "k"), ["k"]),
            (("PING",), []),
            (("NEVERHEARD", "k"), []),
            (("EVAL", "script", 2, "a", "b", "arg"), ["a", "b"]),
            (("EVAL", "script", 0, "arg"), []),
            (("EVAL", "script", "nonsense"), []),
            (("ZUNION", 2, "a", "b", "WITHSCORES"), ["a", "b"]),
            (("BLMPOP", 0, 2, "a", "b", "LEFT"), ["a", "b"]),
            (("XREAD", "COUNT", 1, "STREAMS", "a", "b", "0", "0"), ["a", "b"]),
            (("XREAD", "COUNT", 1), []),
            (("SPUBLISH", "channel", "m"), ["channel"]),
            (("BITOP", "AND", "to", "a", "b"), ["to", "a", "b"]),
        ],
    )
    def test_keys(self, args: tuple[Any, ...], keys: list[Any]) -> None:
        """The keys of a command are found by the server's table, or by what the command counts."""
        assert list(self.TABLE.keys(Command(args))) == keys

    @pytest.mark.parametrize("key", ["", "foo", "{foo}x", "{}foo", "a{foo", "a{b}c{d}", "}{", "{{b}}"])
    def test_slots(self, cluster_servers: ClusterServers, key: str) -> None:
        """Slots are those that the server computes."""
        assert hash_slot(key.encode()) == cluster_servers.slot_of(key)
