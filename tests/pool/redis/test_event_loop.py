"""A pool belongs to the event loop that has started it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.client import NEVER_DECODE

from tools.servers import ClusterServers
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
