"""Connections: how many are used, and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from redis.asyncio import ConnectionPool, Redis

from tools.servers import RedisServer
from ws_redislock import FrequencyLimiter, MutexLock, RunClaims, TokenBucketLimiter, _wire


class TestOnePool:
    """All that works on one pool shares one of its connections."""

    async def test_many_limiters_and_locks(self, any_redis: RedisServer):
        """However many limiters, claims and hubs there are, the pool keeps its connections."""
        pool = ConnectionPool.from_url(any_redis.url, max_connections=10)

        async with Redis.from_pool(pool) as client:
            for number in range(15):
                assert await FrequencyLimiter(client, 60, 5).hit(f"k{number}")
                assert await TokenBucketLimiter(client, 5, 5).hit(f"k{number}")
                assert await RunClaims(client).claim(f"run{number}", 60)

                async with MutexLock(client, f"k{number}", 60).hold():
                    pass

                gc.collect()

            assert await client.ping()
            assert len(await client.client_list()) <= 2

    async def test_lives_as_long_as_its_connection(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """A wire that nobody uses is found again while it has a connection, and then is forgotten."""
        monkeypatch.setattr(_wire, "IDLE", 0.3)

        async with MutexLock(redis, "k", 60).hold():
            wire = weakref.ref(_wire.Wire.to(redis.connection_pool))

        gc.collect()
        assert wire() is _wire.Wire.to(redis.connection_pool)

        while wire() is not None:
            await asyncio.sleep(0.01)
            gc.collect()
