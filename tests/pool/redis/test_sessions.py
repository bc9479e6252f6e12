"""Whose session is whose: nothing that one user does to a connection reaches another."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import redis.exceptions

from tools.servers import ClusterServers, RedisServer
from ws_core.testing import FaultProxy
from ws_pool.errors import MaybeExecuted, UnavailableError, UsageError
from ws_pool.redis import RedisPool


@pytest.fixture
async def pool(redis_url: str) -> AsyncIterator[RedisPool]:
    """Return a pool with one dedicated connection only."""
    async with RedisPool(url=redis_url, decode_responses=True, maxsize=1, command_timeout=2) as pool:
        yield pool


async def database(pool: RedisPool) -> int:
    """Return which database the next holder of the dedicated connection finds."""
    async with pool.get_client(alone=True) as alone:
        return int((await alone.client_info())["db"])


class TestNamesOfSeveralWords:
    """redis-py splits a command's name; so do we before we look at it."""

    async def test_a_session_command(self, pool: RedisPool) -> None:
        """SELECT as one word with its argument changes nobody's session."""
        mine = await database(pool)
        await pool.redis.execute_command(f"SELECT {mine + 1}")
        assert (await pool.redis.client_info())["db"] == mine
        assert await database(pool) == mine

    async def test_a_blocking_command(self, pool: RedisPool) -> None:
        """BLPOP as one word with its arguments holds nobody up."""
        waiting = asyncio.ensure_future(pool.redis.execute_command("BLPOP queue 0"))

        while not (await pool.redis.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)

        await pool.redis.rpush("queue", "item")
        assert await waiting == ("queue", "item") or await waiting == ["queue", "item"]

    async def test_a_consumer_group_called_streams(self, pool: RedisPool) -> None:
        """The name of a group is not taken for an option."""
        await pool.redis.xgroup_create("s", "streams", mkstream=True)
        waiting = asyncio.ensure_future(pool.redis.xreadgroup("streams", "c", {"s": ">"}, block=0))

        while not (await pool.redis.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)

        await pool.redis.xadd("s", {"a": 1})
        assert await waiting

    async def test_on_a_cluster(self, cluster_servers: ClusterServers) -> None:
        """The keys within the name lead to the right nodes, also to several."""
        async with RedisPool(url=cluster_servers.url, cluster=True, decode_responses=True) as pool:
            for number in range(20):
                await pool.redis.set(f"one{number}", number)
                assert await pool.redis.execute_command(f"GET one{number}") == str(number)

            assert await pool.redis.execute_command("EXISTS one1 one2 one3") == 3
            assert await pool.redis.execute_command("DEL one1 one2", "one3") == 3

    async def test_own_writes_are_forgotten_by_the_cache(self, redis_url: str) -> None:
        """A key within the name is forgotten too."""
        async with RedisPool(url=redis_url, decode_responses=True, cache=10) as pool:
            await pool.redis.set("k", "old")
            assert await pool.redis.get("k") == "old"
            await pool.redis.execute_command("SET k", "new")
            assert await pool.redis.get("k") == "new"


class TestPipelines:
    """What a pipeline does to the session of a dedicated connection ends with it."""

    async def test_of_the_shared_client(self, pool: RedisPool) -> None:
        """SELECT in a pipeline, and after WATCH, is not found by the next holder."""
        mine = await database(pool)

        async with pool.redis.pipeline(transaction=False) as pipe:
            pipe.select(mine + 1)
            pipe.get("k")
            await pipe.execute()

        assert await database(pool) == mine

        async with pool.redis.pipeline() as pipe:
            await pipe.watch("k")
            await pipe.execute_command("SELECT", mine + 1)
            pipe.multi()
            pipe.get("k")
            await pipe.execute()

        assert await database(pool) == mine

    async def test_of_a_client_that_is_alone(self, pool: RedisPool) -> None:
        """Nor is what a client's pipeline did on the client's own connection."""
        mine = await database(pool)

        async with pool.get_client(alone=True) as alone:
            pipe = alone.pipeline(transaction=False)
            pipe.select(mine + 1)
            await pipe.execute()
            assert (await alone.client_info())["db"] == mine + 1

        assert await database(pool) == mine

    async def test_a_clean_one_costs_no_connection(self, pool: RedisPool) -> None:
        """WATCH, MULTI and EXEC undo each other, so their connection is kept."""
        for _ in range(3):
            async with pool.redis.pipeline() as pipe:
                await pipe.watch("k")
                pipe.multi()
                pipe.set("k", 1)
                await pipe.execute()

        assert pool.statistics().leased[0].opened == 1

    async def test_from_another_loop_on_a_cluster(self, cluster_servers: ClusterServers) -> None:
        """A pipeline in another event loop is refused, not left waiting."""
        async with RedisPool(url=cluster_servers.url, cluster=True) as pool:

            async def foreign() -> None:
                async with pool.redis.pipeline(transaction=False) as pipe:
                    pipe.set("k", 1)
                    await pipe.execute()

            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, foreign())


class TestLostSessions:
    """A client that is alone never goes on with another session than its own."""

    async def test_a_lost_connection(self, redis_server: RedisServer) -> None:
        """After a cut its commands and pipelines are refused; another client works."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url), decode_responses=True) as pool,
        ):
            mine = await database(pool)

            async with pool.get_client(alone=True) as alone:
                await alone.select(mine + 1)
                proxy.cut()

                with pytest.raises(MaybeExecuted):
                    await alone.set("lost", 1)

                with pytest.raises(UnavailableError, match="take another client"):
                    await alone.set("lost", 2)

                pipe = alone.pipeline()
                pipe.set("lost", 3)

                with pytest.raises(redis.exceptions.ConnectionError, match="take another client"):
                    await pipe.execute()

            async with pool.get_client(alone=True) as alone:
                assert (await alone.client_info())["db"] == mine
                assert not await alone.exists("lost")

    async def test_a_cancelled_command(self, pool: RedisPool) -> None:
        """A cancelled command closes the connection, so its session is over as well."""
        async with pool.get_client(alone=True) as alone:
            waiting = asyncio.ensure_future(alone.get("k"))
            await asyncio.sleep(0)  # it is sent
            waiting.cancel()
            await asyncio.wait([waiting])

            with pytest.raises(UnavailableError, match="take another client"):
                await alone.get("k")

    async def test_a_single_connection_client(self, pool: RedisPool) -> None:
        """``client()`` has a session as well."""
        async with pool.redis.client() as single:
            await single.ping()
            assert single.connection is not None
            await single.connection.disconnect()

            with pytest.raises(UnavailableError, match="take another client"):
                await single.get("k")

        assert await pool.redis.blpop("nothing", timeout=0.01) is None


async def test_a_forgotten_pubsub_gives_its_connection_back(pool: RedisPool) -> None:
    """A PubSub that nobody closes is warned of, and costs no capacity."""
    for _ in range(2):
        pubsub = pool.redis.pubsub()
        await pubsub.subscribe("channel")

        with pytest.warns(ResourceWarning, match="not closed"):  # noqa: PT031 - whichever of both ends it
            del pubsub
            gc.collect()

    await pool.redis.blpop("nothing", timeout=0.01)

    async with pool.redis.pubsub() as pubsub:
        await pubsub.subscribe("channel")


async def test_a_callback_of_no_module(redis_url: str) -> None:
    """A method of a built-in type has no module, and is a callback all the same."""
    async with RedisPool(url=redis_url) as pool:
        await pool.redis.set("k", "a")
        pool.redis.set_response_callback("GET", {b"a": b"b"}.get)  # type: ignore[arg-type]  # it will do
        assert await pool.redis.get("k") == b"b"
