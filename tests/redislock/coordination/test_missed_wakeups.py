"""A release between the time of a waiter's ENTER and the time its coordinator begins to listen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import redis as blocking
from redis.asyncio import Redis

from tests.redislock._threads import until
from tools.servers import RedisServer
from ws_redislock import MutexLock, sync
from ws_redislock._coordination import wakeups
from ws_redislock.sync._concurrency import Job


class TestMissedWakeUps:
    """The waiter looks again, and does not wait for its next heartbeat, here 10 s away."""

    async def test_of_tasks(self, redis: Redis, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """Another waiter of the same coordinator began the subscription meanwhile."""
        begin = wakeups.WakeupSubscription.begin
        first = MutexLock(redis, "k", 60)
        other = MutexLock(redis, "other", 60)
        assert await first.acquire()
        assert await other.acquire()

        async with Redis.from_url(any_redis.url) as client:
            bystander = MutexLock(client, "other", 60, heartbeat=30)
            waiting: list[asyncio.Task[bool]] = []

            async def late(self: wakeups.WakeupSubscription, end: float | None, asked_at: float) -> bool:
                monkeypatch.setattr(wakeups.WakeupSubscription, "begin", begin)
                assert await first.release()  # its wake-up is heard by nobody
                waiting.append(asyncio.create_task(bystander.acquire(None)))

                while self._job is None:
                    await asyncio.sleep(0)

                await self._ready.wait()
                return await begin(self, end, asked_at)

            monkeypatch.setattr(wakeups.WakeupSubscription, "begin", late)
            second = MutexLock(client, "k", 60, heartbeat=30)

            async with asyncio.timeout(5):
                assert await second.acquire(None)
                assert await other.release()
                await asyncio.gather(*waiting)

            await second.aclose()
            await bystander.aclose()

    def test_of_threads(self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """The thread that listens was faster than the one that waits."""
        with (
            blocking.Redis.from_url(any_redis.url) as client,
            blocking.Redis.from_url(any_redis.url) as apart,
        ):
            first = sync.MutexLock(client, "k", 60)
            assert first.acquire()
            second = sync.MutexLock(apart, "k", 60, heartbeat=30)
            coordinator = second._bind()
            spawn = coordinator.spawn

            def fast(work: Callable[[], None]) -> Job:
                assert first.release()  # its wake-up is heard by nobody
                job = spawn(work)
                until(coordinator._wakeups._ready.is_set)
                return job

            monkeypatch.setattr(coordinator, "spawn", fast)
            waiting = threading.Thread(target=second.acquire, args=(5,), daemon=True)
            waiting.start()
            waiting.join()
            assert second.locked
            second.release()
            second.close()
