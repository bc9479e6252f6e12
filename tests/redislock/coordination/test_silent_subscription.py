"""A subscription that receives nothing although its connection stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis as blocking
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import MutexLock, sync
from ws_redislock._coordination import wakeups
from ws_redislock.sync._coordination import wakeups as sync_listen

pytestmark = pytest.mark.outage


async def hand_over(
    any_redis: RedisServer, proxy: FaultProxy, wait: Callable[[], asyncio.Future[bool]]
) -> None:
    """Hold a lock until its waiter's subscription receives nothing; the waiter must get it by a wake-up."""
    async with Redis.from_url(any_redis.url) as direct:
        first = MutexLock(direct, "k", 60)
        assert await first.acquire()
        lost = proxy.drop_request(1, match="PING", then="silence")
        waiting = wait()
        await until_waiting(first)

        async with asyncio.timeout(10):  # without wake-ups the waiter looks every 20 s
            await lost.wait()
            assert await first.release()
            assert await waiting


class TestSilentSubscription:
    """It is noticed by a PING, and begins anew."""

    async def test_of_tasks(self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """A task is woken through the next subscription."""
        monkeypatch.setattr(wakeups, "QUIET", 0.2)

        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
            MutexLock(client, "k", 60, heartbeat=60) as second,
        ):
            await hand_over(any_redis, proxy, lambda: asyncio.ensure_future(second.acquire(30)))

    async def test_of_threads(self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """A thread is woken through the next subscription."""
        monkeypatch.setattr(sync_listen, "QUIET", 0.2)

        async with FaultProxy(*any_redis.address) as proxy:
            client = blocking.Redis.from_url(proxy.url(any_redis.url))
            second = sync.MutexLock(client, "k", 60, heartbeat=60)
            await hand_over(
                any_redis, proxy, lambda: asyncio.ensure_future(asyncio.to_thread(second.acquire, 30))
            )
            await asyncio.to_thread(second.close)
            await asyncio.to_thread(second._bind().close)
            client.close()
