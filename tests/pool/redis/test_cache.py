"""Client-side caching: what is cached is true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tools.servers import ClusterServers, RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.client.cache import ClientCache, fresh
from ws_pool._redis.client.caching import CachingRedis
from ws_pool._redis.client.pipeline import MAX_SHARED
from ws_pool._redis.statistics import CacheStatistics
from ws_pool.errors import ConfigError, UsageError
from ws_pool.redis import RedisPool


def cached(pool: RedisPool) -> CacheStatistics:
    """Return the cache's counters."""
    cache = pool.statistics().cache
    assert cache is not None
    return cache


@pytest.fixture
async def pools(any_redis_url: str) -> AsyncIterator[tuple[RedisPool, RedisPool]]:
    """Yield a pool with a cache and a foreign one without."""
    async with (
        RedisPool(url=any_redis_url, decode_responses=True, cache=100) as caching,
        RedisPool(url=any_redis_url) as foreign,
    ):
        yield caching, foreign


class TestReads:
    """What comes from the cache."""

    async def test_a_second_read_asks_nobody(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """Reads of all types are answered without the server the second time, with equal replies."""
        caching, foreign = pools
        await foreign.redis.set("s", "v")
        await foreign.redis.hset("h", mapping={"a": 1, "b": 2})
        await foreign.redis.rpush("l", 1, 2)
        await foreign.redis.sadd("set", "m")
        await foreign.redis.zadd("z", {"m": 1.5})
        redis = caching.redis

        async def read() -> list[object]:
            return [
                await redis.get("s"),
                await redis.get("absent"),
                await redis.mget("s", "absent"),
                await redis.hgetall("h"),
                await redis.hget("h", "a"),
                await redis.lrange("l", 0, -1),
                await redis.smembers("set"),
                await redis.zrange("z", 0, -1, withscores=True),
                await redis.exists("s", "absent"),
            ]

        first = await read()
        before = caching.statistics().shared[0].commands
        assert await read() == first
        assert caching.statistics().shared[0].commands == before
        assert cached(caching).hits >= 8

    async def test_a_caller_who_changes_a_reply_changes_nobody_elses(
        self, pools: tuple[RedisPool, RedisPool]
    ) -> None:
        """Each caller gets a reply of its own."""
        caching, foreign = pools
        await foreign.redis.hset("h", "a", "1")

        for _ in range(3):
            reply = await caching.redis.hgetall("h")
            assert reply == {"a": "1"}
            reply["a"] = "changed"

    async def test_a_foreign_write_is_seen_by_the_next_read(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """Once the news of a foreign write has come, no read finds the old value."""
        caching, foreign = pools

        for number in range(200):
            await foreign.redis.set("k", number)

            while cached(caching).invalidations < number:
                await asyncio.sleep(0)

            assert await caching.redis.get("k") == str(number)
            assert await caching.redis.get("k") == str(number)

    async def test_own_writes_are_seen_at_once(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """A task that writes and reads finds what it wrote, by commands, pipelines, scripts and FLUSHDB."""
        redis = pools[0].redis

        for number in range(100):
            await redis.set("k", number)
            assert await redis.get("k") == str(number)

            async with redis.pipeline() as pipe:
                pipe.set("k", f"p{number}")
                await pipe.execute()

            assert await redis.get("k") == f"p{number}"
            await redis.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "k", f"s{number}")
            assert await redis.get("k") == f"s{number}"

        await redis.flushdb()
        assert await redis.get("k") is None

    async def test_readers_and_writers_at_once(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """With readers and writers at once, values never go back, and in the end all read the last one."""
        caching, foreign = pools
        chance = random.Random(5)
        written = 0

        async def write() -> None:
            nonlocal written

            for number in range(1, 500):
                client = caching.redis if chance.random() < 0.3 else foreign.redis
                await client.set("k", number)
                written = number

        async def read(done: asyncio.Event) -> None:
            last = 0

            while not done.is_set():
                value = int(await caching.redis.get("k") or 0)
                assert value >= last
                last = value
                await asyncio.sleep(0)

        done = asyncio.Event()

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(read(done))

            await write()
            done.set()

        while await caching.redis.get("k") != str(written):
            await asyncio.sleep(0)

    @pytest.mark.parametrize(("shared_connections", "ahead"), [(1, False), (1, True), (3, False)])
    async def test_news_that_have_arrived_are_read_first(
        self,
        any_redis: RedisServer,
        shared_connections: int,
        ahead: bool,
    ) -> None:
        """A read finds a foreign write whose news wait in the socket, on any connection, behind any reply."""
        any_redis.command("FLUSHALL")

        async with RedisPool(
            url=any_redis.url, decode_responses=True, cache=100, shared_connections=shared_connections
        ) as caching:
            redis = caching.redis
            assert caching._backend is not None
            assert caching._backend.node is not None
            connections = [shared.connection for shared in caching._backend.node.shared_connections]
            await redis.set("long", "x" * 500_000)
            tasks: list[asyncio.Future[object]] = []  # kept, because a task's identity chooses the connection

            def start(*command: object) -> asyncio.Future[object]:
                tasks.append(asyncio.ensure_future(redis.execute_command(*command)))
                return tasks[-1]

            for number in range(20):
                for _ in range(4):
                    await start("GET", "k")

                if ahead:
                    start("GETRANGE", "long", 0, -1 - number)
                    await asyncio.sleep(0)

                any_redis.command("SET", "k", str(number))  # our loop stands still meanwhile

                while not any(connection.unread() for connection in connections):
                    pass

                assert await start("GET", "k") == str(number)
                await asyncio.gather(*tasks)

    async def test_another_rule_for_lost_connections_keeps_the_cache(
        self, pools: tuple[RedisPool, RedisPool], cluster_servers: ClusterServers
    ) -> None:
        """``with_retry`` returns a client on the same cache, on one server and on a cluster."""
        async with RedisPool(url=cluster_servers.url, cluster=True, cache=10) as cluster:
            for pool in (pools[0], cluster):
                client = pool.redis.with_retry("at_least_once")
                assert type(client) is type(pool.redis)
                await client.set("k", "v")
                await client.get("k")
                hits = cached(pool).hits
                await pool.redis.get("k")
                assert cached(pool).hits == hits + 1

    async def test_a_lost_connection_empties_the_cache(self, redis_server: RedisServer) -> None:
        """Nobody vouches for what was cached once the connection is gone."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url), cache=10) as pool,
        ):
            await pool.redis.set("k", "old")
            assert await pool.redis.get("k") == b"old"
            assert cached(pool).entries == 1
            proxy.cut()

            while pool.statistics().shared[0].losses == 0:
                await asyncio.sleep(0)

            redis_server.command("SET", "k", "new")
            assert cached(pool).entries == 0
            assert await pool.redis.get("k") == b"new"

    @pytest.mark.parametrize("how", ["watched", "at once", "long"])
    async def test_own_writes_on_dedicated_connections(
        self, pools: tuple[RedisPool, RedisPool], monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """A pipeline that watches, or is long, is an own write too: no news of the server are waited for."""
        pool = pools[0]
        redis = pool.redis
        assert pool._backend is not None
        assert pool._backend.node is not None
        monkeypatch.setattr(pool._backend.node.shared_connections[0], "_on_push", lambda _: None)
        await redis.set("k", "old")
        assert await redis.get("k") == "old"
        assert cached(pool).entries == 1

        async with redis.pipeline(transaction=how != "long") as pipe:
            if how != "long":
                await pipe.watch("k")

            if how == "at once":
                await pipe.set("k", "new")
            else:
                if how == "watched":
                    pipe.multi()

                for _ in range(MAX_SHARED + 1 if how == "long" else 1):
                    pipe.set("k", "new")

                await pipe.execute()

        assert await redis.get("k") == "new"

    async def test_a_connection_that_is_gone_hides_nothing(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While one of several shared connections is down, the others' replies are cached."""
        async with RedisPool(url=redis_url, cache=10, shared_connections=2) as pool:
            assert pool._backend is not None
            assert pool._backend.node is not None
            down, up = pool._backend.node.shared_connections
            monkeypatch.setattr(pool.redis, "_pick", lambda _: up)
            monkeypatch.setattr(down, "_reconnect", lambda: None)
            down.drop("test")
            await pool.redis.set("k", "v")
            await asyncio.sleep(0)

            for _ in range(3):
                assert await pool.redis.get("k") == b"v"

            assert (cached(pool).misses, cached(pool).hits) == (1, 2)

    async def test_a_flush_empties_the_cache(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """A foreign FLUSHALL is reported without names of keys."""
        caching, foreign = pools
        await foreign.redis.set("k", "v")
        assert await caching.redis.get("k") == "v"
        await foreign.redis.flushall()

        while cached(caching).entries:
            await asyncio.sleep(0)

        assert await caching.redis.get("k") is None

    async def test_a_key_that_is_no_text(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """The news of a key whose name cannot be decoded costs the connection, never a wrong reply."""
        caching, foreign = pools
        await foreign.redis.set(b"\xff", "old")
        assert await caching.redis.get(b"\xff") == "old"
        await foreign.redis.set(b"\xff", "new")

        while cached(caching).entries:
            await asyncio.sleep(0)

        assert await caching.redis.get(b"\xff") == "new"

    async def test_equal_arguments_of_other_types(self, pools: tuple[RedisPool, RedisPool]) -> None:
        """1, 1.0 and True are equal in Python and are not in Redis."""
        caching, foreign = pools
        await foreign.redis.set("1", "int")
        await foreign.redis.set("1.0", "float")
        assert [await caching.redis.execute_command("GET", key) for key in (1, 1.0, 1, 1.0)] == [
            "int",
            "float",
            "int",
            "float",
        ]


class TestClientCache:
    """The cache itself, without a server."""

    def test_a_change_during_a_read_is_not_cached(self) -> None:
        """A reply whose key has changed since the question was sent is not kept."""
        cache = ClientCache(10, ttl=60, clock=lambda: 0.0)
        read, other = cache.begin((b"k",)), cache.begin((b"other",))
        cache.invalidate([b"k"])
        cache.keep(("GET", "k"), read, b"old")
        cache.keep(("GET", "other"), other, b"v")

        assert cache.find(("GET", "k")) == (False, None)
        assert cache.find(("GET", "other")) == (True, b"v")

    def test_a_flush_during_a_read(self) -> None:
        """A reply that comes after everything was dropped is not kept."""
        cache = ClientCache(10, ttl=60, clock=lambda: 0.0)
        read = cache.begin((b"k",))
        cache.flush()
        cache.keep(("GET", "k"), read, b"old")
        assert cache.statistics() == CacheStatistics(entries=0, hits=0, misses=0, invalidations=0, flushes=1)

    def test_size_and_time_are_bounded(self) -> None:
        """The least recently used reply goes first, and none outlives its time."""
        now = 0.0
        cache = ClientCache(2, ttl=10, clock=lambda: now)

        for key in ("a", "b"):
            cache.keep(("GET", key), cache.begin((key.encode(),)), key)

        cache.find(("GET", "a"))
        cache.keep(("GET", "c"), cache.begin((b"c",)), "c")
        assert [cache.find(("GET", key))[0] for key in "abc"] == [True, False, True]
        now = 10.0
        assert [cache.find(("GET", key))[0] for key in "abc"] == [False, False, False]
        assert not cache._replies
        assert not cache._by_key
        assert not cache._reads

    def test_copies_are_deep(self) -> None:
        """What can be changed is copied, on every level."""
        reply = [[b"a", {b"k": [1]}], {b"m"}, b"b"]
        copy = fresh(reply)
        assert copy == reply
        copy[0][1][b"k"].append(2)
        copy[1].add(b"n")
        assert reply == [[b"a", {b"k": [1]}], {b"m"}, b"b"]


class TestKeys:
    """Which keys a kept reply depends on."""

    async def test_replies_of_several_keys(self, redis_url: str) -> None:
        """A reply goes with any of its keys; one that has none of them stays."""
        async with RedisPool(url=redis_url, cache=10, decode_responses=True) as pool:
            await pool.redis.mset({"a": 1, "b": 2, "c": 3})
            assert await pool.redis.mget("a", "b") == ["1", "2"]
            assert await pool.redis.mget("a", "c") == ["1", "3"]
            await pool.redis.set("b", 4)
            assert await pool.redis.mget("a", "b") == ["1", "4"]
            hits = pool.statistics().cache
            assert hits is not None
            assert await pool.redis.mget("a", "c") == ["1", "3"]
            after = pool.statistics().cache
            assert after is not None
            assert after.hits == hits.hits + 1

    async def test_reads_that_are_not_kept(self, redis_url: str) -> None:
        """A read of the whole database is asked of the server, and keeps what is known."""
        async with RedisPool(url=redis_url, cache=10, decode_responses=True) as pool:
            await pool.redis.set("a", 1)
            await pool.redis.get("a")
            assert await pool.redis.dbsize() == await pool.redis.dbsize()
            statistics = pool.statistics().cache
            assert statistics is not None
            assert statistics.entries == 1

            async with pool.redis.pipeline() as pipe:
                await pipe.watch("a")
                assert await pipe.get("a") == "1"


class TestModes:
    """Which reads are kept."""

    async def hits(self, pool: RedisPool, client: Any, *reads: tuple[Any, ...]) -> int:
        """Do each read twice, and count the replies that came from the cache."""
        before = pool.statistics().cache
        assert before is not None

        for read in reads:
            await client.execute_command(*read)
            await client.execute_command(*read)

        after = pool.statistics().cache
        assert after is not None
        return after.hits - before.hits

    async def test_opt_in(self, any_redis_url: str) -> None:
        """Only clients of `caching()` keep replies; all of them see foreign changes."""
        async with (
            RedisPool(any_redis_url, cache=10, cache_mode="opt_in") as pool,
            RedisPool(any_redis_url) as other,
        ):
            assert isinstance(pool.redis, CachingRedis)
            assert await self.hits(pool, pool.redis, ("GET", "k")) == 0
            client = pool.redis.caching()
            assert await self.hits(pool, client, ("GET", "k"), ("HGETALL", "h")) == 2
            await other.redis.set("k", "new")

            while await client.get("k") != b"new":
                pass

            assert await self.hits(pool, pool.redis.caching(ttl=0), ("GET", "k")) == 0
            await pool.redis.set("k", "own")
            assert await client.get("k") == b"own"

            with pytest.raises(UsageError, match="ttl"):
                pool.redis.caching(ttl=-1)

    def test_a_shorter_time(self) -> None:
        """A reply of `caching(ttl)` is kept no longer than that, and never longer than `cache_ttl`."""
        now = 0.0
        cache = ClientCache(10, ttl=60, clock=lambda: now)
        cache.keep(("GET", "a"), cache.begin((b"a",)), b"1", ttl=5)
        cache.keep(("GET", "b"), cache.begin((b"b",)), b"1", ttl=500)
        now = 5.0
        assert [cache.find(("GET", key))[0] for key in "ab"] == [False, True]
        now = 60.0
        assert cache.find(("GET", "b")) == (False, None)

    async def test_broadcast(self, any_redis_url: str) -> None:
        """Keys below the prefixes are kept, of which every change is reported; others never are."""
        options: dict[str, Any] = {"cache": 10, "cache_mode": "broadcast", "cache_prefixes": ["a:", "b:"]}

        async with RedisPool(any_redis_url, **options) as pool, RedisPool(any_redis_url) as other:
            reads = [("GET", "a:1"), ("MGET", "a:1", "b:1")]
            assert await self.hits(pool, pool.redis, *reads) == 2
            assert await self.hits(pool, pool.redis, ("GET", "c:1"), ("MGET", "a:1", "c:1")) == 0
            await other.redis.set("a:1", "new")

            while await pool.redis.get("a:1") != b"new":
                pass

            assert (await pool.redis.mget("a:1", "b:1"))[0] == b"new"

        async with RedisPool(any_redis_url, prefix="p:", cache=10, cache_mode="broadcast") as pool:
            assert await self.hits(pool, pool.redis, ("GET", "c:1")) == 1
            assert await self.hits(pool, pool.redis.unprefixed, ("GET", "c:1")) == 0

    @pytest.mark.parametrize(
        "options",
        [{"cache_mode": "opt_in"}, {"cache": 5, "cache_prefixes": ["a"]}, {"cache": 5, "cache_mode": "some"}],
    )
    def test_what_does_not_fit(self, options: dict[str, Any]) -> None:
        """The error names the option."""
        with pytest.raises(ConfigError, match="cache_"):
            RedisPool(**options)
