"""Handing a lock over: one round trip to a waiter of the same client, and a cost that does not grow."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import broken, until_waiting
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import MutexLock, ReadWriteLock, Semaphore
from ws_redislock.errors import UnavailableError

pytestmark = pytest.mark.outage


async def script_calls(redis: Redis) -> int:
    """Return how many scripts the server has run since its statistics were reset."""
    stats: dict[str, Any] = await redis.info("commandstats")  # Any: as the driver types it
    return sum(stats.get(f"cmdstat_{kind}", {"calls": 0})["calls"] for kind in ("evalsha", "eval"))


class TestOneRoundTrip:
    """A RELEASE hands the lock to the first waiter of its own client."""

    async def test_without_an_enter(self, redis: Redis):
        """The waiter sends nothing after it was handed the lock, has a larger fence and a whole lease."""
        for turn in range(2):  # in the second one all scripts are known, and the subscription stands
            await self.hand_over(redis, last=turn == 1)

    async def hand_over(self, redis: Redis, *, last: bool) -> None:
        """Hand a lock over, and check it at the last time."""
        first, second = MutexLock(redis, "k", 60), MutexLock(redis, "k", 30)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        fence = first.fence
        await redis.config_resetstat()
        assert await first.release()
        assert await waiting
        assert not last or await script_calls(redis) == 1
        assert second.fence > fence
        assert 29 < second.remaining < 30
        assert await second.owner() == second.current().token
        assert await second.waiters() == 0
        assert await second.release()

    async def test_not_past_one_who_came_first(self, any_redis: RedisServer, redis: Redis):
        """A waiter of another client that came before goes first."""
        async with Redis.from_url(any_redis.url) as elsewhere:
            first, second = MutexLock(redis, "k", 60), MutexLock(elsewhere, "k", 60)
            third = MutexLock(redis, "k", 60)
            assert await first.acquire()
            earlier = asyncio.create_task(second.acquire(None))
            await until_waiting(first)
            later = asyncio.create_task(third.acquire(None))
            await until_waiting(first, 2)
            assert await first.release()
            assert await earlier
            assert not later.done()
            assert await second.release()
            assert await later
            assert await third.release()

    async def test_past_one_is_seen(self, redis_url: str, redis7: Redis):
        """The control: when the script does not look at who is first, it is not."""
        with broken("redis.call('ZRANGE', queue, 0, 0)[1] ~= following", "false", "release"):
            async with Redis.from_url(redis_url) as elsewhere:
                first, second = MutexLock(redis7, "k", 60), MutexLock(elsewhere, "k", 60)
                third = MutexLock(redis7, "k", 60)
                assert await first.acquire()
                earlier = asyncio.create_task(second.acquire(20))
                await until_waiting(first)
                later = asyncio.create_task(third.acquire(20))
                await until_waiting(first, 2)
                assert await first.release()
                assert await later
                assert not earlier.done()
                assert await third.release()
                assert await earlier
                assert await second.release()

    async def test_to_a_reader_with_room(self, redis: Redis):
        """A writer hands over to the first reader, and the others follow."""
        lock = ReadWriteLock(redis, "rw", 60)
        writer, readers = lock.write(), [lock.read() for _ in range(3)]
        assert await writer.acquire()
        waiting = [asyncio.create_task(reader.acquire(10)) for reader in readers]
        await until_waiting(writer, 3)
        assert await writer.release()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert len(await writer.holders()) == 3
        await asyncio.gather(*(reader.release() for reader in readers))

    async def test_replicas_must_confirm(self, redis: Redis):
        """A waiter with min_replicas is not handed the lock: its ENTER must be confirmed, here by none."""
        first, second = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60, min_replicas=1)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(10))
        await until_waiting(first)
        assert await first.release()

        with pytest.raises(UnavailableError, match="only 0 of 1"):
            await waiting

        await second.aclose()
        assert not await first.exists()

    async def test_a_lost_reply(self, any_redis: RedisServer, redis: Redis):
        """The reply that hands over is lost: released is the answer, and the waiter has the lock soon."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            first, second = MutexLock(client, "k", 60, heartbeat=30), MutexLock(client, "k", 60, heartbeat=30)
            assert await first.acquire()
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(MutexLock(redis, "k"))
            proxy.drop_reply(1, match="EVALSHA")
            assert await first.release()

            async with asyncio.timeout(5):
                assert await waiting

            assert await second.owner() == second.current().token
            assert await second.release()

    async def test_to_a_waiter_that_has_gone(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """A waiter that is cancelled while it is handed the lock passes it on."""
        first, second, third = (MutexLock(redis, "k", 60, heartbeat=30) for _ in range(3))
        assert await first.acquire()
        one = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        two = asyncio.create_task(third.acquire(None))
        await until_waiting(first, 2)
        releasing = asyncio.create_task(first.release())
        await asyncio.sleep(0)
        one.cancel()
        assert await releasing

        async with asyncio.timeout(5):
            assert await two

        await asyncio.wait([one])
        await third.release()
        await asyncio.gather(*(lock.aclose() for lock in (first, second, third)))
        assert not await redis.keys("wsl:*:holders")


class TestCost:
    """What the server spends on a hand-off, by its own clock."""

    async def server_time(self, redis: Redis, waiters: int) -> float:
        """Return microseconds per hand-off among so many tasks that want the lock again and again."""
        turns, total = 0, 4 * waiters + 200
        await redis.config_resetstat()

        async def work() -> None:
            nonlocal turns

            while turns < total:
                async with MutexLock(redis, "k", 60).hold():
                    turns += 1

        await asyncio.gather(*(work() for _ in range(waiters)))
        stats: dict[str, Any] = await redis.info("commandstats")  # Any: as the driver types it
        spent: float = stats["cmdstat_evalsha"]["usec"] / turns
        return spent

    async def growth(self, redis: Redis) -> float:
        """Return how much more a hand-off costs among 500 waiters than among 10, the best of three each."""
        await self.server_time(redis, 10)
        few = [await self.server_time(redis, 10) for _ in range(3)]
        many = [await self.server_time(redis, 500) for _ in range(3)]
        return min(many) / min(few)

    async def test_does_not_grow(self, redis: Redis):
        """It is at most twice as much."""
        assert await self.growth(redis) <= 2

    async def test_a_look_carries_no_waiters(self, redis7: Redis):
        """A heartbeat names every waiter, once in a third of its period; a look in between names none."""
        first, second = MutexLock(redis7, "k", 60), MutexLock(redis7, "k", 60)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        coordinator = second._bind()
        (queue,) = coordinator._queues.values()
        (token,) = queue.waiters
        queue.beat_at = 0.0
        assert coordinator._beat_call(queue)[2][4:] == (token,)
        assert coordinator._beat_call(queue)[2][4:] == ()
        queue.beat_at -= queue.keys.heartbeat / 3000
        assert coordinator._beat_call(queue)[2][4:] == (token,)
        assert await first.release()
        assert await waiting
        assert await second.release()


class TestSemaphores:
    """Users of one name that do not agree on the number of permits."""

    async def test_no_wake_up_is_missed(self, redis: Redis):
        """The release of one who knows of one permit wakes a waiter who knows of three."""
        one, *three = (Semaphore(redis, "s", permits, 60, heartbeat=30) for permits in (1, 3, 3))
        waiter = Semaphore(redis, "s", 3, 60, heartbeat=30)
        assert await one.acquire()
        assert [await lock.acquire() for lock in three] == [True, True]
        waiting = asyncio.create_task(waiter.acquire(20))
        await until_waiting(one)
        began = time.monotonic()
        assert await one.release()
        assert await waiting
        assert time.monotonic() - began < 2
        await asyncio.gather(*(lock.release() for lock in (*three, waiter)))
