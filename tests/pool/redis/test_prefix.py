"""A prefix of all keys and channels: commands get it, replies lose it, and nothing of others is seen."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio

from tests.pool.redis import test_typed_commands as typed
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.key_specs import KeyPositions
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool.errors import ConfigError, UsageError
from ws_pool.events import RedisEventBus, StreamEventBus
from ws_pool.redis import RedisPool

# One that is also a glob pattern: it must match itself only.
PREFIX = "sh*p[1]:"

# Any below: commands and replies of all kinds.


def command_of(server: RedisServer) -> list[Any]:
    """Return the server's table of commands."""
    table: list[Any] = server.command("COMMAND")
    return table


def normal(outcome: Any) -> str:
    """Write a result without the prefix, and without what a hash table decides: cursors, order of keys."""
    kind, reply = outcome

    if kind is tuple and len(reply) == 2 and isinstance(reply[0], int):
        reply = reply[1]

    if isinstance(reply, list):
        reply = sorted(map(str, reply))

    return str((kind, reply)).replace(PREFIX, "")


class TestPositions:
    """All keys of a command are found, and nothing else."""

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            (("GET", "k"), [1]),
            (("GET", ""), [1]),
            ((b"get", b"k"), [1]),
            (("MSET", "a", 1, "b", 2), [1, 3]),
            (("DEL", "a", "b", "c"), [1, 2, 3]),
            (("BITOP", "AND", "d", "a", "b"), [2, 3, 4]),
            (("BLPOP", "a", "b", 5), [1, 2]),
            (("EVAL", "script", 2, "a", "b", "arg"), [3, 4]),
            (("EVALSHA", "sha", 0, "arg"), []),
            (("EVAL", "script", "many", "a"), []),
            (("ZUNIONSTORE", "d", 2, "a", "b", "WEIGHTS", 1, 2), [1, 3, 4]),
            (("ZINTER", 2, "a", "b", "WITHSCORES"), [2, 3]),
            (("BLMPOP", 0, 2, "a", "b", "LEFT"), [3, 4]),
            (("XREAD", "COUNT", 5, "STREAMS", "a", "b", "0", "0"), [4, 5]),
            (("XREADGROUP", "GROUP", "STREAMS", "c", "STREAMS", "a", ">"), [5]),
            (("XGROUP CREATE", "a", "g", "$"), [2]),
            (("XINFO", "STREAM", "a"), [2]),
            (("OBJECT ENCODING", "a"), [2]),
            (("MEMORY", "USAGE", "a"), [2]),
            (("GEORADIUS", "a", 1, 1, 1, "km", "STORE", "d"), [1, 7]),
            (("MIGRATE", "host", 1, "a", 0, 10), [3]),
            (("MIGRATE", "host", 1, "", 0, 10, "KEYS", "a", "b"), [7, 8]),
            (("SORT", "a", "LIMIT", 0, 1), [1]),
            (("PING",), []),
            (("CLIENT ID",), []),
            (("CONFIG", "GET", "a"), []),
            (("NOSUCH", "a"), []),
        ],
    )
    def test_of_each_shape(
        self, any_redis: RedisServer, command: tuple[Any, ...], expected: list[int]
    ) -> None:
        """Key specifications of all kinds are followed."""
        assert KeyPositions(command_of(any_redis)).of(Command(command)) == expected

    def test_an_old_server_has_none(self) -> None:
        """Without key specifications no key is found, so that a prefix can be refused."""
        assert KeyPositions([["get", 2, [], 1, 1, 1]]).of(Command(("GET", "k"))) == []


class TestCommands:
    """Commands that hold more than keys."""

    @pytest.fixture
    def prefix(self, redis_server: RedisServer) -> KeyPrefix:
        """Return a prefix."""
        encode = redis.asyncio.ConnectionPool().get_encoder().encode
        return KeyPrefix("p*:", KeyPositions(command_of(redis_server)), encode)

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            (("GET", "k"), ("GET", "p*:k")),
            (("GET", b"k"), ("GET", b"p*:k")),
            (("GET", 5), ("GET", b"p*:5")),
            (("GET k",), ("GET", "p*:k")),
            (("OBJECT ENCODING", "k"), ("OBJECT ENCODING", "p*:k")),
            (("OBJECT", "ENCODING", "k"), ("OBJECT", "ENCODING", "p*:k")),
            (("KEYS", "a*"), ("KEYS", "p\\*:a*")),
            (("KEYS", b"a*"), ("KEYS", b"p\\*:a*")),
            (("SCAN", 0), ("SCAN", 0, "MATCH", "p\\*:*")),
            (("SCAN", 0, "COUNT", 5, "MATCH", "a*"), ("SCAN", 0, "COUNT", 5, "MATCH", "p\\*:a*")),
            (("PUBLISH", "c", "m"), ("PUBLISH", "p*:c", "m")),
            (("PUBSUB CHANNELS",), ("PUBSUB CHANNELS", "p\\*:*")),
            (("PUBSUB", "NUMSUB", "a", "b"), ("PUBSUB", "NUMSUB", "p*:a", "p*:b")),
            (
                ("SORT", "l", "BY", "w:*", "LIMIT", 0, 5, "GET", "#", "GET", b"v:*", "DESC", "STORE", "d"),
                (
                    *("SORT", "p*:l", "BY", "p*:w:*", "LIMIT", 0, 5),
                    *("GET", "#", "GET", b"p*:v:*", "DESC", "STORE", "p*:d"),
                ),
            ),
            (("SORT", "l", "BY", "nosort"), ("SORT", "p*:l", "BY", "nosort")),
            (("FLUSHDB",), ("FLUSHDB",)),
        ],
    )
    def test_words(self, prefix: KeyPrefix, command: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
        """Patterns are escaped, and names of several words stay whole."""
        assert tuple(prefix.apply(command)) == expected

    def test_a_random_key_is_refused(self, prefix: KeyPrefix) -> None:
        """The server would choose among the keys of others."""
        with pytest.raises(UsageError, match="scan_iter"):
            prefix.apply(("RANDOMKEY",))


@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")
@pytest.mark.parametrize("cache", [0, 100], ids=["plain", "cache"])
@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
async def test_all_typed_commands(start_server: StartServer, *, decode: bool, cache: int) -> None:
    """What redis-py's commands return is the same as without a prefix, and each key begins with it."""
    server = start_server(RedisServer)
    calls = [
        *(*typed.STRINGS, *typed.KEYS, *typed.HASHES, *typed.LISTS, *typed.SETS, *typed.SORTED_SETS),
        *(*typed.STREAMS, *typed.OTHERS[:-1]),  # all but FLUSHDB
    ]
    mine = typed.url_of(server, 2)

    async with (
        redis.asyncio.Redis.from_url(typed.url_of(server, 1), decode_responses=decode, protocol=3) as theirs,
        RedisPool(mine, decode_responses=decode, protocol=3, prefix=PREFIX, cache=cache) as pool,
    ):
        for client in (theirs, pool.redis):
            await client.set("m2", "two")
            await client.set("s_is_string", "x")

        for number, call in enumerate(calls):
            try:
                actual = await typed.outcome(call, pool.redis)
            except UsageError:  # RANDOMKEY
                continue

            expected = await typed.outcome(call, theirs)
            assert (number, normal(actual)) == (number, normal(expected))

    async with RedisPool(mine, decode_responses=True) as plain:
        keys = await plain.redis.keys()
        assert keys
        assert [key for key in keys if not str(key).startswith(PREFIX)] == []


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize(
    "work",
    [
        lambda client: typed.pipelined(client, transaction=True, raise_on_error=False),
        lambda client: typed.pipelined(client, transaction=False, raise_on_error=False),
        typed.watched,
        typed.scripted,
        typed.locked,
    ],
)
async def test_pipelines_scripts_and_locks(
    start_server: StartServer, work: typed.Call, *, decode: bool
) -> None:
    """Pipelines, transactions, WATCH, scripts and redis-py's lock do the same below a prefix."""
    server = start_server(RedisServer)

    async with (
        redis.asyncio.Redis.from_url(typed.url_of(server, 1), decode_responses=decode) as theirs,
        RedisPool(typed.url_of(server, 2), decode_responses=decode, prefix=PREFIX) as pool,
    ):
        expected = str(await typed.outcome(work, theirs))
        assert str(await typed.outcome(work, pool.redis)).replace(PREFIX, "") == expected

        async with RedisPool(typed.url_of(server, 2), decode_responses=True) as plain:
            assert [key for key in await plain.redis.keys() if not str(key).startswith(PREFIX)] == []


class TestPool:
    """All that a pool has works below its prefix."""

    async def test_two_prefixes_do_not_meet(self, any_redis_url: str) -> None:
        """Keys, scans and channels of one are not those of the other, nor of a pool without a prefix."""
        async with (
            RedisPool(any_redis_url, prefix="a:", decode_responses=True) as one,
            RedisPool(any_redis_url, prefix="b:", decode_responses=True) as two,
            RedisPool(any_redis_url, decode_responses=True) as plain,
        ):
            for number, pool in enumerate((one, two)):
                await pool.redis.set("k", number)

            assert [await one.redis.get("k"), await two.redis.get("k")] == ["0", "1"]
            assert [key async for key in one.redis.scan_iter()] == ["k"]
            assert sorted(await plain.redis.keys()) == ["a:k", "b:k"]
            assert await one.redis.unprefixed.get("b:k") == "1"
            assert await plain.redis.unprefixed.get("b:k") == "1"

            async with one.redis.pubsub() as mine, two.redis.pubsub() as other:
                await mine.subscribe("c")
                await mine.psubscribe("*")
                await other.subscribe("c")
                confirmed = [await mine.get_message(timeout=5) for _ in range(2)]
                assert [message and message["channel"] for message in confirmed] == ["c", "*"]
                assert (await other.get_message(timeout=5) or {})["channel"] == "c"
                assert await one.redis.publish("c", "x") == 2
                found = [await mine.get_message(timeout=5) for _ in range(2)]
                assert [message and (message["pattern"], message["channel"]) for message in found] == [
                    (None, "c"),
                    ("*", "c"),
                ]
                assert await other.get_message(timeout=0.05) is None
                assert await one.redis.pubsub_channels() == ["c"]
                assert await one.redis.pubsub_numsub("c") == [("c", 1)]

    async def test_keyspace_notifications(self, start_server: StartServer) -> None:
        """Notifications are those of the prefixed keys, with the names that the pool's user knows."""
        server = start_server(RedisServer, config={"notify-keyspace-events": "KEA"})

        async with RedisPool(server.url, prefix=PREFIX) as pool, pool.redis.pubsub() as pubsub:
            await pubsub.psubscribe("__keyspace@*__:k*")
            await pubsub.subscribe("__keyevent@0__:set")
            await pubsub.get_message(timeout=5)
            await pubsub.get_message(timeout=5)
            await pool.redis.set("k1", 1)
            found = [await pubsub.get_message(timeout=5) for _ in range(2)]
            assert sorted((m["channel"], m["data"]) for m in found if m) == [
                (b"__keyevent@0__:set", b"k1"),
                (b"__keyspace@0__:k1", b"set"),
            ]

    async def test_dedicated_clients(self, any_redis_url: str) -> None:
        """A client that is alone, its pipelines and its subscribers have the prefix as well."""
        async with (
            RedisPool(any_redis_url, prefix=PREFIX, decode_responses=True) as pool,
            pool.get_client(alone=True) as client,
            client.pubsub() as pubsub,
        ):
            await client.set("k", 1)
            assert await client.keys("*") == ["k"]

            async with client.pipeline() as pipe:
                await pipe.watch("k")
                pipe.multi()
                pipe.incr("k")
                assert await pipe.execute() == [2]

            await pubsub.subscribe("c")
            assert (await pubsub.get_message(timeout=5) or {})["channel"] == "c"
            await client.publish("c", "m")
            assert (await pubsub.get_message(timeout=5) or {})["data"] == "m"
            await pubsub.ping()
            assert await pubsub.get_message(timeout=5) is not None

            async with pool.redis.pubsub(push_handler_func=lambda message: message) as own:
                await own.subscribe("c")

            assert await pool.redis.unprefixed.keys() == [f"{PREFIX}k"]

    async def test_a_cache_is_told_of_changes(self, any_redis_url: str) -> None:
        """Replies below a prefix are cached, and dropped when another changes the whole key."""
        async with (
            RedisPool(any_redis_url, prefix=PREFIX, cache=10) as pool,
            RedisPool(any_redis_url) as other,
        ):
            await pool.redis.set("k", 1)
            assert [await pool.redis.get("k") for _ in range(2)] == [b"1", b"1"]
            await other.redis.set(f"{PREFIX}k", 2)

            while await pool.redis.get("k") != b"2":
                pass

            statistics = pool.statistics().cache
            assert statistics is not None
            assert statistics.hits >= 1

    async def test_a_cluster(self, cluster_url: str) -> None:
        """Keys go to the slot of their whole name; commands over many nodes and scans too."""
        async with RedisPool(cluster_url, cluster=True, prefix=PREFIX, decode_responses=True) as pool:
            keys = [f"k{number}" for number in range(20)]
            await pool.redis.mset(dict.fromkeys(keys, 1))
            assert await pool.redis.mget(keys) == ["1"] * 20
            assert sorted([key async for key in pool.redis.scan_iter("k*")]) == sorted(keys)
            assert sorted(await pool.redis.keys("*")) == sorted(keys)
            await pool.redis.rpush("list", "x")
            assert list(await pool.redis.blpop(["list"], 1) or ()) == ["list", "x"]

            async with pool.redis.pipeline(transaction=True) as pipe:
                pipe.set("{t}a", 1)
                pipe.incr("{t}a")
                assert await pipe.execute() == [True, 2]

            async with pool.redis.pubsub() as pubsub:
                await pubsub.ssubscribe("c")
                assert (await pubsub.get_message(timeout=5) or {})["channel"] == "c"
                await pool.redis.execute_command("SPUBLISH", "c", "m")
                assert (await pubsub.get_message(timeout=5) or {})["data"] == "m"

            assert all(str(key).startswith(PREFIX) for key in await pool.redis.unprefixed.keys())
            assert await pool.redis.delete(*keys, "{t}a") == 21

        async with RedisPool(cluster_url, cluster=True, prefix=PREFIX, cache=10) as pool:
            await pool.redis.set("k", 1)
            assert [await pool.redis.get("k") for _ in range(2)] == [b"1", b"1"]
            await pool.redis.delete("k")

    async def test_buses(self, any_redis_url: str) -> None:
        """Event buses live below the prefix of their pool."""
        received: list[object] = []

        async def listen(value: object) -> None:
            received.append(value)

        async with (
            RedisPool(any_redis_url, prefix=PREFIX, decode_responses=True) as pool,
            RedisEventBus(pool, "bus") as bus,
            StreamEventBus(pool, "stream", "group") as stream,
        ):
            bus.add_listener("t", listen)
            stream.add_listener("t", listen)
            await bus.publish("t", 1)
            await stream.publish("t", 2)

            while len(received) < 2:
                await pool.redis.ping()

            assert sorted(map(str, received)) == ["1", "2"]
            assert await pool.redis.unprefixed.keys() == [f"{PREFIX}stream"]

    async def test_a_server_that_hides_its_commands(self, start_server: StartServer) -> None:
        """Without COMMAND the keys of commands are not known: the pool refuses to start."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-command")

        with pytest.raises(ConfigError, match="prefix needs the command COMMAND"):
            await RedisPool(server.url, username="u", password="p", prefix="p:").start()
