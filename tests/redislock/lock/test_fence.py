"""How long the last fence of a lock is remembered."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from ws_redislock import ConfigError, MutexLock, ReadWriteLock, Semaphore

FENCE = "wsl:m:{k}:fence"


class TestLifeOfTheFence:
    """The option ``fence_ttl``: one key per name that lives as long as it serves."""

    @pytest.mark.parametrize(("options", "seconds"), [({}, 3600), ({"fence_ttl": 120}, 120)])
    async def test_is_an_option(self, redis: Redis, options: dict[str, float], seconds: float):
        """It lives for an hour after its last use, or for as long as asked for."""
        async with MutexLock(redis, "k", 10, **options) as lock:  # type: ignore[arg-type]
            assert await lock.acquire()
            await redis.pexpire(FENCE, 5000)
            assert await lock.renew()
            assert seconds - 5 < await redis.ttl(FENCE) <= seconds

    async def test_of_many_at_once(self, redis: Redis):
        """The same for locks whose calls go together."""
        locks = [MutexLock(redis, f"k{number}", 10, fence_ttl=120) for number in range(50)]
        assert all(await asyncio.gather(*(lock.acquire() for lock in locks)))
        lives = [await redis.ttl(f"wsl:m:{{k{number}}}:fence") for number in range(50)]
        assert all(115 < life <= 120 for life in lives)
        await asyncio.gather(*(lock.release() for lock in locks))

    async def test_after_a_hand_over(self, redis: Redis):
        """The same for a lock that was handed over."""
        first, second = (MutexLock(redis, "k", 10, fence_ttl=120) for _ in range(2))
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        assert await first.release()
        assert await waiting
        assert 115 < await redis.ttl(FENCE) <= 120
        assert await second.release()

    async def test_outlives_the_lease(self, redis: Redis):
        """It is never shorter than the lease."""
        for lock in (
            MutexLock(redis, "k", 60, fence_ttl=1),
            Semaphore(redis, "k", 2, 60, fence_ttl=1),
            ReadWriteLock(redis, "k", 60, fence_ttl=1).write(),
        ):
            assert await lock.acquire()
            assert await redis.ttl(lock._keys.shared[3]) >= 60
            assert await lock.release()

    async def test_increases_when_it_was_forgotten(self, redis: Redis):
        """After its end the server's clock keeps the order."""
        lock = MutexLock(redis, "k", 60)
        fences = []

        for _ in range(3):
            assert await lock.acquire()
            fences.append(lock.fence)
            assert await lock.release()
            await redis.delete(FENCE)

        assert fences == sorted(set(fences))

    @pytest.mark.parametrize("value", [0, -1, "1", float("nan")])
    def test_bad_values(self, redis7: Redis, value: object):
        """It is a number of seconds above 0."""
        with pytest.raises(ConfigError, match="fence_ttl"):
            MutexLock(redis7, "k", 60, fence_ttl=value)  # type: ignore[arg-type]
