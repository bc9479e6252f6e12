"""Cancellation at every await of acquire and release."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import cast

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from ws_redislock import MutexLock, ReadWriteLock, Semaphore, UnavailableError
from ws_redislock._lock.acquisition import AcquireProtocol
from ws_redislock._lock.base import BaseLock

CANCELS = 5_000
CLIENTS = 25


class LeakyProtocol(AcquireProtocol):
    """The broken twin: it does not undo what was cancelled."""

    def _undo(self, *_arguments: object) -> None:
        """Do nothing."""


class LeakyLock(MutexLock):
    """A lock on that twin."""

    def __init__(self, redis: Redis, name: str, expire: float) -> None:
        super().__init__(redis, name, expire)
        self._protocol = LeakyProtocol(name, self._keys, self._options, "x")


async def use(lock: BaseLock, chance: random.Random) -> None:
    """Use a lock in one of the ways there are."""
    way = chance.randrange(4)

    if way == 0:
        async with lock:
            await lock.acquire(0)
    elif way == 1:
        # A server that does not answer within so short a time is an error, and must leave nothing either.
        with contextlib.suppress(UnavailableError):
            async with lock:
                await lock.acquire(0.005)
    elif way == 2:
        async with lock.hold():
            await asyncio.sleep(0)
    else:
        await lock.acquire(None)
        await lock.renew()
        await lock.release()


async def cancel_often(redis: Redis, count: int, seed: int, make: type[MutexLock] | None = None) -> int:
    """Begin and cancel acquisitions at random moments; return how many were cut short."""
    chance = random.Random(seed)
    cut = 0

    async def client_kind(number: int) -> None:
        nonlocal cut

        for turn in itertools.count():
            # How many are cut short depends on how fast the server is; go on until it is a good part.
            if turn >= count // CLIENTS and (make is not None or cut > count // 4):
                break

            # Locks that leak would soon block a shared name, and nothing more would happen.
            name = f"k{number}.{turn}" if make else f"k{number % 3}"
            lock: BaseLock = [
                (make or MutexLock)(redis, name, 60),
                Semaphore(redis, name, 2, 60),
                ReadWriteLock(redis, name, 60).read(),
                ReadWriteLock(redis, name, 60).write(),
            ][0 if make else chance.randrange(4)]
            task = asyncio.create_task(use(lock, chance))

            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)

            task.cancel()

            with contextlib.suppress(asyncio.CancelledError):
                await task

            cut += task.cancelled()
            await lock.aclose()

    await asyncio.gather(*(client_kind(number) for number in range(CLIENTS)))
    return cut


async def left_behind(redis: Redis) -> list[bytes]:
    """Return the keys that hold or queue anything, and those that live for ever."""
    keys = cast("list[bytes]", await redis.keys("wsl:*"))
    lasting = [key for key in keys if key.rsplit(b":", 1)[-1] in {b"holders", b"queue", b"alive"}]
    return lasting + [key for key in keys if await redis.pttl(key) == -1]


class TestCancellation:
    """Cancelled at any moment, nothing stays behind."""

    async def test_at_every_await(self, redis: Redis):
        """After thousands of cancels at seeded random moments no lock is held or waited for."""
        cut = await cancel_often(redis, CANCELS, seed=7)
        assert cut > CANCELS // 4
        assert await left_behind(redis) == []

    async def test_a_lock_that_does_not_undo_leaks(self, redis7: Redis):
        """The control: without ABANDON the same run leaves locks behind that nobody holds."""
        await cancel_often(redis7, 500, seed=7, make=LeakyLock)
        assert await left_behind(redis7) != []

    async def test_a_cancelled_head_wakes_the_next(self, redis: Redis):
        """A waiter that is cancelled just when it is woken passes the wake-up on."""
        first, second, third = (MutexLock(redis, "k", 60, heartbeat=30) for _ in range(3))
        await first.acquire()
        one = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        two = asyncio.create_task(third.acquire(None))
        await until_waiting(first, 2)
        await first.release()
        one.cancel()

        async with asyncio.timeout(5):
            assert await two

        with pytest.raises(asyncio.CancelledError):
            await one

        await third.release()

    async def test_a_cancelled_release_releases(self, redis: Redis):
        """The lock is given back although the release was cancelled."""
        lock = MutexLock(redis, "k", 60)
        await lock.acquire()
        task = asyncio.create_task(lock.release())
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        await lock.aclose()
        assert not lock.locked
        assert not await lock.exists()
