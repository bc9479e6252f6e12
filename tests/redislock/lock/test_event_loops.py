"""Locks that are used in another event loop than that of their first use."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from ws_redislock import FrequencyLimiter, MutexLock, RunClaims
from ws_redislock.errors import UsageError

USES: dict[str, Callable[[MutexLock], Awaitable[object]]] = {
    "acquire": lambda lock: lock.acquire(),
    "acquire with budget": lambda lock: lock.acquire(1),
    "exists": lambda lock: lock.exists(),
    "force_release": lambda lock: lock.force_release(),
    "hold": lambda lock: lock.hold(1).__aenter__(),
    "release": lambda lock: lock.release(),
    "renew": lambda lock: lock.renew(),
    "renew what is held": lambda lock: lock.current().renew(),
    "wait": lambda lock: lock.wait(1),
    "wait_lost": lambda lock: lock.current().wait_lost(),
}


async def refused(use: Callable[[], Awaitable[object]]) -> None:
    """Check that a use in the loop of another thread is an error."""

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.wait_for(use(), 5)

    await asyncio.to_thread(asyncio.run, elsewhere())


class TestAnotherLoop:
    """An error, not a hang, and nothing is changed by it."""

    @pytest.mark.parametrize("use", USES)
    async def test_of_a_lock(self, redis7: Redis, use: str):
        """Whatever is tried elsewhere, the lock stays held, and can be released where it belongs."""
        lock = MutexLock(redis7, "k", 60)
        assert await lock.acquire()
        await refused(lambda: USES[use](lock))
        assert lock.locked
        assert await lock.renew()
        assert await lock.release()
        assert not await lock.exists()

    async def test_of_limiters_and_claims(self, redis7: Redis):
        """The same for what is not a lock."""
        limiter, claims = FrequencyLimiter(redis7, 60, 5), RunClaims(redis7)
        assert (await limiter.hit("k")).allowed
        assert await claims.claim("k", 60)
        await refused(lambda: limiter.hit("k"))
        await refused(lambda: claims.claim("other", 60))


class TestAfterALoop:
    """Where each test has a loop of its own, what stands in a module is used in one after the other."""

    def test_of_a_limiter(self, redis_url: str):
        """Its hits of an earlier loop, which is closed, are counted; it takes its pool's new client."""

        class Manager:
            redis: Redis

            def get_pool(self, name: str = "default") -> Manager:
                return self

        manager = Manager()
        limiter = FrequencyLimiter(manager, 60, 2, namespace=secrets.token_hex(8))

        async def hit() -> bool:
            async with Redis.from_url(redis_url) as manager.redis:
                return (await limiter.hit("k")).allowed

        assert [asyncio.run(hit()) for _ in range(3)] == [True, True, False]

    def test_of_claims(self, redis_url: str):
        """Claims on a pool that each loop starts anew go on as well."""

        class Pool:
            client: Redis

            @property
            def redis(self) -> Redis:
                return self.client

        pool = Pool()
        claims = RunClaims(pool, namespace=secrets.token_hex(8))

        async def claim() -> bool:
            async with Redis.from_url(redis_url) as pool.client:
                return await claims.claim("run", 60)

        assert [asyncio.run(claim()) for _ in range(3)] == [True, False, False]
