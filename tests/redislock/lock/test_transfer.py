"""Handing an acquisition to another object, also in another process."""

from __future__ import annotations

import asyncio

import pytest
import redis as blocking
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_redislock import ConfigError, LockLost, MutexLock, UsageError, sync


class TestTransfer:
    """`transfer` returns a token, by which another object can `adopt` the acquisition."""

    async def test_to_another_client(self, any_redis: RedisServer, redis: Redis):
        """The lock is held all the time, with the same fence; it is renewed and released by the other."""
        async with Redis.from_url(any_redis.url) as elsewhere:
            first, second = MutexLock(redis, "k", 60), MutexLock(elsewhere, "k", 30)
            assert await first.acquire()
            fence = first.fence
            token = await first.transfer()
            assert not first.locked
            assert await first.exists()
            assert not await MutexLock(redis, "k", 60).acquire()
            assert await second.adopt(token)
            assert second.fence == fence
            assert 29 < second.remaining <= 30
            assert not await first.release()
            assert await second.exists()
            assert await second.renew()
            assert await second.release()
            assert not await second.exists()

    async def test_is_renewed_by_the_other_only(self, redis: Redis):
        """The watchdog of the first stops, that of the second begins."""
        first, second = MutexLock(redis, "k", 0.6), MutexLock(redis, "k", 0.6)
        assert await first.acquire()
        token = await first.transfer()
        assert await second.adopt(token)
        await asyncio.sleep(1.5)
        assert second.locked
        assert await second.release()

    async def test_not_adopted(self, redis: Redis):
        """A lock that is not adopted in time ends with its lease, and goes to the next."""
        first, second = MutexLock(redis, "k", 0.6), MutexLock(redis, "k", 60)
        assert await first.acquire()
        token = await first.transfer()
        assert await second.acquire(5)
        third = MutexLock(redis, "k", 60)
        assert not await third.adopt(token)
        assert second.locked
        assert await second.release()

    async def test_a_waiter_is_served_after_it(self, redis: Redis):
        """The queue stays as it is, and the release of the second object serves it."""
        first, second, third = (MutexLock(redis, "k", 60) for _ in range(3))
        assert await first.acquire()
        waiting = asyncio.create_task(third.acquire(10))
        await until_waiting(first)
        assert await second.adopt(await first.transfer())
        assert not waiting.done()
        assert await second.release()
        assert await waiting
        assert await third.release()

    async def test_lost(self, redis: Redis):
        """What was taken away cannot be handed on."""
        first = MutexLock(redis, "k", 60)
        assert await first.acquire()
        await redis.delete("wsl:m:{k}:holders")

        with pytest.raises(LockLost):
            await first.transfer()

        await first.aclose()

    async def test_wrong_use(self, redis7: Redis):
        """A lock that is not held, is held twice, and a token that is not one are refused."""
        lock = MutexLock(redis7, "k", 60, reentrant=True)

        with pytest.raises(UsageError, match="not held"):
            await lock.transfer()

        for token in ("", "x1", "x1/", "/1", 5):
            with pytest.raises(ConfigError, match="not a token"):
                await lock.adopt(token)  # type: ignore[arg-type]

        async with lock:
            assert await lock.acquire()
            assert await lock.acquire()

            with pytest.raises(UsageError, match="held 2 times"):
                await lock.transfer()

            with pytest.raises(UsageError, match="already"):
                await lock.adopt("x1/1")

    async def test_to_a_thread(self, any_redis: RedisServer, redis: Redis):
        """A task can hand a lock to a thread."""
        first = MutexLock(redis, "k", 60)
        assert await first.acquire()
        token = await first.transfer()

        def work() -> bool:
            with blocking.Redis.from_url(any_redis.url) as client, sync.MutexLock(client, "k", 60) as lock:
                return lock.adopt(token) and lock.locked and lock.release()

        assert await asyncio.to_thread(work)
        assert not await first.exists()
