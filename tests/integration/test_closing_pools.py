"""A Redis pool is closed while others still listen over its connections."""

from __future__ import annotations

import asyncio

from ws_pool.redis import RedisPool
from ws_redislock import MutexLock


async def test_a_subscription_of_a_lock_does_not_keep_a_pool_open(redis_url: str) -> None:
    """The wake-up subscription of locks outlives their waiters; closing the pool cuts it at once."""
    pool = RedisPool(url=redis_url)
    await pool.start()

    async def hold() -> None:
        async with MutexLock(pool, "closing", 10).hold(timeout=10):
            await asyncio.sleep(0)

    await asyncio.gather(*(hold() for _ in range(5)))

    async with asyncio.timeout(20):
        await pool.close(timeout=60)


async def test_a_subscriber_does_not_keep_a_pool_open(redis_url: str) -> None:
    """A task that waits for messages gets an error when the pool is closed."""
    pool = RedisPool(url=redis_url)
    await pool.start()
    pubsub = pool.redis.pubsub()
    await pubsub.subscribe("channel")
    await pubsub.get_message(timeout=5)
    listening = asyncio.create_task(pubsub.get_message(timeout=None))
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await pool.close(timeout=60)

    assert isinstance((await asyncio.gather(listening, return_exceptions=True))[0], Exception)
