"""A hundred waiters: order, fairness, and what a hand-off costs the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import broken, until_waiting
from tools.servers import RedisServer
from ws_redislock import MutexLock
from ws_redislock._coordination.coordinator import Coordinator, QueueWatch, coordinator_for
from ws_redislock._redis.connection import CommandSender
from ws_redislock._redis.scripts import load

WAITERS = 100


class TestHundredWaiters:
    """One lock, a hundred tasks of two clients."""

    async def order(self, redis: Redis, url: str, clients: int) -> list[int]:
        """Return the order in which the waiters of so many clients are served."""
        first = MutexLock(redis, "k", 60)
        await first.acquire()
        order: list[int] = []

        async with contextlib.AsyncExitStack() as stack:
            others = [await stack.enter_async_context(Redis.from_url(url)) for _ in range(clients)]

            async def work(number: int) -> None:
                async with MutexLock(others[number % clients], "k", 60).hold():
                    order.append(number)

            tasks = []

            for number in range(WAITERS):
                tasks.append(asyncio.create_task(work(number)))
                await until_waiting(first, number + 1)

            await first.release()
            await asyncio.gather(*tasks)

        return order

    @pytest.mark.parametrize("clients", [1, 4])
    async def test_first_come_first_served(self, any_redis: RedisServer, redis: Redis, clients: int):
        """They are served in the order in which they queued, whatever client each of them waits on."""
        assert await self.order(redis, any_redis.url, clients) == list(range(WAITERS))

    async def test_a_queue_without_order_is_seen(self, redis_url: str, redis7: Redis):
        """The control: when a newcomer's place is drawn by lot, they are not."""
        place = "last and tonumber(last) + 1 or place"

        with broken(place, "place + us % 7919", "enter"):
            assert await self.order(redis7, redis_url, 4) != list(range(WAITERS))

    async def test_shares_are_even(self, any_redis: RedisServer, redis: Redis):
        """When all want it again and again, none has more than twice as often as another."""
        turns: Counter[int] = Counter()
        left = 1_000

        async with Redis.from_url(any_redis.url) as other:

            async def work(number: int) -> None:
                nonlocal left

                while left > 0:
                    async with MutexLock((redis, other)[number % 2], "k", 60).hold():
                        left -= 1
                        turns[number] += 1

            await asyncio.gather(*(work(number) for number in range(WAITERS)))

        assert len(turns) == WAITERS
        assert max(turns.values()) <= 2 * min(turns.values())

    async def test_calls_do_not_grow_with_the_waiters(self, redis: Redis):
        """A hand-off costs a few calls, however many wait."""

        async def calls_per_turn(waiters: int) -> float:
            turns = 0

            async def work() -> None:
                nonlocal turns

                for _ in range(5):
                    async with MutexLock(redis, "k", 60).hold():
                        turns += 1

            await asyncio.gather(*(work() for _ in range(waiters)))
            stats = await redis.info("commandstats")
            await redis.config_resetstat()
            calls: int = sum(
                stats[f"cmdstat_{name}"]["calls"]
                for name in ("evalsha", "eval")
                if f"cmdstat_{name}" in stats
            )
            return calls / turns

        await calls_per_turn(2)
        assert await calls_per_turn(WAITERS) <= 4.0

    async def test_calls_do_not_grow_with_others_under_way(
        self, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ):
        """What goes together when many call at once does not for a lock that is known to be waited for."""
        coordinator = coordinator_for(redis)
        scripts = coordinator.scripts
        sent: list[str] = []
        send = CommandSender.send

        def count(
            self: CommandSender, command: tuple[str | bytes | int, ...], within: float
        ) -> Awaitable[Any]:
            if command[0] == "EVALSHA":
                sent.append(names[command[1]])

            return send(self, command, within)

        names: dict[object, str] = {
            load(name).sha: name for name in ("abandon", "beat", "enter", "fast", "release", "status")
        }

        async with MutexLock(redis, "warm", 60).hold():
            pass  # the server knows the scripts from now on

        first, second, third = (MutexLock(redis, "k", 60) for _ in range(3))
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)

        while all(waiter._future is None for waiter in coordinator._waiters.values()):
            await asyncio.sleep(0)

        monkeypatch.setattr(CommandSender, "send", count)
        scripts._calling += 100
        assert not await third.acquire()
        assert await first.release()
        assert await waiting
        scripts._calling -= 100
        assert await second.release()
        assert [name for name in sent if name != "beat"] == [
            "enter",
            "release",
            "release",
        ]  # the release hands over

    async def looks(
        self, redis: Redis, monkeypatch: pytest.MonkeyPatch, *, heartbeat: float, pause: float = 0
    ) -> int:
        """Return how often a hundred workers look at their lock while it is handed over 600 times."""
        looks = 0
        beat = Coordinator._beat_round

        async def count(self: Coordinator, queues: list[QueueWatch]) -> None:
            nonlocal looks
            looks += 1
            await beat(self, queues)

        monkeypatch.setattr(Coordinator, "_beat_round", count)

        async def work() -> None:
            for _ in range(6):
                async with MutexLock(redis, "k", 60, heartbeat=heartbeat).hold():
                    await asyncio.sleep(pause)

        await asyncio.gather(*(work() for _ in range(WAITERS)))
        return looks

    async def test_nobody_polls(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """While a lock goes from hand to hand, its waiters do not look at it."""
        assert await self.looks(redis, monkeypatch, heartbeat=600) <= 2

    async def test_polling_is_seen(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """The control: waiters that look at their lock all the time are seen to."""
        assert await self.looks(redis, monkeypatch, heartbeat=0.11, pause=0.002) > 2

    async def test_a_waiter_sends_nothing_while_it_waits(self, redis: Redis):
        """Between two heartbeats a hundred waiters cost the server no call at all."""
        first = MutexLock(redis, "k", 60)
        await first.acquire()
        locks = [MutexLock(redis, "k", 60, heartbeat=60) for _ in range(WAITERS)]
        tasks = [asyncio.create_task(lock.acquire(None)) for lock in locks]
        await until_waiting(first, WAITERS)
        await asyncio.sleep(0.2)
        before = (await redis.info("stats"))["total_commands_processed"]
        await asyncio.sleep(0.5)
        after = (await redis.info("stats"))["total_commands_processed"]
        assert after - before == 1

        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(lock.aclose() for lock in locks))
        assert await first.waiters() == 0
        await first.release()
