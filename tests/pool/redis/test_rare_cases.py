"""What Redis pools do in rare cases."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.client import NEVER_DECODE
from redis.exceptions import ExecAbortError, ResponseError

from tools.servers import ClusterServers
from ws_pool._redis import extensions
from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits
from ws_pool.errors import UsageError
from ws_pool.redis import RedisPool

Use = Callable[[RedisPool], Awaitable[object]]

USES: dict[str, Use] = {
    "plain": lambda pool: pool.redis.get("k"),
    "raw": lambda pool: pool.redis.execute_command("GET", "k", **{NEVER_DECODE: True}),
}


class TestAnotherLoop:
    """A pool belongs to the loop that has started it."""

    @pytest.mark.parametrize("use", USES)
    async def test_of_a_server(self, redis_url: str, use: str) -> None:
        """Every way to send a command refuses another loop."""
        async with RedisPool(url=redis_url) as pool:
            await self.refused(pool, USES[use])

    async def test_of_a_cluster(self, cluster_servers: ClusterServers) -> None:
        """A cluster's client refuses it too."""
        async with RedisPool(url=cluster_servers.url, cluster=True) as pool:
            await self.refused(pool, USES["plain"])

    async def test_with_a_cache(self, redis_url: str) -> None:
        """What the cache could answer is refused all the same."""
        async with RedisPool(url=redis_url, cache=10) as pool:
            await pool.redis.get("k")
            await self.refused(pool, USES["plain"])

    async def refused(self, pool: RedisPool, use: Use) -> None:
        """Use a pool in a loop of another thread."""

        async def foreign() -> None:
            await use(pool)

        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, foreign())


class TestCache:
    """Client-side caching."""

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


class TestTransactions:
    """MULTI and EXEC of a pipeline that shares the connection."""

    async def test_a_command_that_the_server_does_not_take(self, redis_url: str) -> None:
        """A wrong command among others undoes them all, and its own error is told."""
        async with RedisPool(url=redis_url) as pool, pool.redis.pipeline() as pipe:
            pipe.set("k", 1)
            pipe.execute_command("SET", "only-a-key")

            with pytest.raises((ExecAbortError, ResponseError), match="wrong number of arguments"):
                await pipe.execute()

            assert await pool.redis.get("k") is None


class _Owner:
    """Hears of nothing."""

    def link_has_room(self, link: PipelinedConnection) -> None: ...

    def link_lost(self, link: PipelinedConnection, reason: str) -> None: ...

    def link_pushed(self, link: PipelinedConnection, message: list[Any]) -> None: ...


async def test_a_flood_of_cancelled_commands_is_forgotten() -> None:
    """Of more than a thousand cancelled keys those that were answered are dropped."""
    link = PipelinedConnection(_Owner(), Limits())
    abandoned = CancelledKeys(lambda value: str(value).encode())

    for number in range(1_001):
        link.pending.append(asyncio.get_running_loop().create_future())
        abandoned.add(link, [("SET", f"k{number}", 0)])

        if number == 999:
            link.answered = 900

    assert not abandoned.concern(link, [("GET", "k10")])
    assert abandoned.concern(link, [("GET", "k950")])
    assert len(abandoned._last) < 1_001


def test_an_extension_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second use of a service looks nothing up."""
    loaded: list[str] = []

    class Found:
        def load(self) -> type:
            loaded.append("once")
            return dict

    monkeypatch.setattr(extensions, "_loaded", {})
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [Found()])

    assert extensions.load_extension("lock", "ws-redislock") is dict
    assert extensions.load_extension("lock", "ws-redislock") is dict
    assert loaded == ["once"]
