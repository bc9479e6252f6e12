"""Locks that several may hold: Semaphore and ReadWriteLock."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import open_to_all, until_waiting
from ws_redislock import LockLost, ReadWriteLock, Semaphore
from ws_redislock.errors import ConfigError


class TestSemaphore:
    """A number of permits."""

    async def crowd(self, redis: Redis, together: int) -> tuple[int, int]:
        """
        Let forty tasks take one of three permits; return how many had one at a time, and in the end.

        The first ones keep theirs until so many have one together.
        """
        inside = most = done = 0

        async def work() -> None:
            nonlocal inside, most, done
            async with Semaphore(redis, "s", 3, 60).hold():
                inside += 1
                most = max(most, inside)

                while most < together:
                    await asyncio.sleep(0)

                inside -= 1
                done += 1

        async with asyncio.timeout(30):
            await asyncio.gather(*(work() for _ in range(40)))

        return most, done

    async def test_never_more_than_its_permits(self, redis: Redis):
        """However many tasks want a permit, only so many have one at a time, and all get theirs."""
        assert await self.crowd(redis, 3) == (3, 40)

    async def test_permits_without_end_are_seen(self, redis7: Redis):
        """The control: when everybody may enter, more have one."""
        with open_to_all():
            most, done = await self.crowd(redis7, 4)

        assert most > 3
        assert done == 40

    async def test_a_lost_permit_leaves_the_others(self, redis: Redis):
        """Each permit has a lease of its own; the one that ends makes room, the others go on."""
        short = Semaphore(redis, "s", 2, 0.5, auto_renew=False)
        long = Semaphore(redis, "s", 2, 60)
        third = Semaphore(redis, "s", 2, 60)
        assert await short.acquire()
        assert await long.acquire()
        assert not await third.acquire()
        assert await third.acquire(timeout=5)
        assert not short.locked
        assert long.locked
        assert await long.renew()
        assert not await short.release()
        assert await third.release()
        assert await long.release()

    async def test_fences_differ(self, redis: Redis):
        """Holders at the same time have different fences."""
        locks = [Semaphore(redis, "s", 5, 60) for _ in range(5)]
        assert [await lock.acquire() for lock in locks] == [True] * 5
        assert len({lock.fence for lock in locks}) == 5
        assert len(await locks[0].holders()) == 5
        assert [await lock.release() for lock in locks] == [True] * 5

    async def test_one_release_wakes_as_many_as_fit(self, redis: Redis):
        """After force_release all permits are free, and as many waiters come in without another hint."""
        holders = [Semaphore(redis, "s", 3, 60) for _ in range(3)]
        assert [await lock.acquire() for lock in holders] == [True] * 3
        others = [Semaphore(redis, "s", 3, 60) for _ in range(3)]
        tasks = [asyncio.create_task(lock.acquire(30)) for lock in others]
        await until_waiting(others[0], 3)
        assert await others[0].force_release()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert [await lock.release() for lock in others] == [True] * 3

    @pytest.mark.parametrize("permits", [0, -1, 1.5, True, None, 2**31])
    def test_permits_that_cannot_be(self, permits: object):
        """The number of permits is a whole number from 1."""
        with pytest.raises(ConfigError, match="permits"):
            Semaphore("redis://localhost:6379/0", "s", permits)  # type: ignore[arg-type]

    def test_says_its_permits(self):
        """The number can be read."""
        assert Semaphore("redis://localhost:6379/0", "s", 3).permits == 3


class TestReadWriteLock:
    """Readers and writers."""

    async def test_readers_share_writers_do_not(self, redis: Redis):
        """Two readers hold it together; a writer neither with a reader nor with a writer."""
        lock = ReadWriteLock(redis, "rw", 60)
        assert lock.name == "rw"

        async with lock.read().hold(), lock.read().hold():
            assert not await lock.write().acquire()

        async with lock.write().hold():
            assert not await lock.write().acquire()
            assert not await lock.read().acquire()

    async def test_a_waiting_writer_goes_first(self, redis: Redis):
        """New readers wait behind a writer that waits; it comes before readers that waited longer."""
        lock = ReadWriteLock(redis, "rw", 60)
        order: list[str] = []
        first = lock.write()
        await first.acquire()

        async def read() -> None:
            async with lock.read().hold():
                order.append("reader")

        async def write() -> None:
            async with lock.write().hold():
                order.append("writer")

        tasks = [asyncio.create_task(read()) for _ in range(3)]
        await until_waiting(first, 3)
        tasks.append(asyncio.create_task(write()))
        await until_waiting(first, 4)
        assert not await lock.read().acquire()
        await first.release()
        await asyncio.gather(*tasks)
        assert order == ["writer", "reader", "reader", "reader"]

    async def test_a_writer_waits_for_all_readers(self, redis: Redis):
        """The last reader's release lets the writer in."""
        lock = ReadWriteLock(redis, "rw", 60)
        one, two, writer = lock.read(), lock.read(), lock.write()
        await one.acquire()
        await two.acquire()
        waiting = asyncio.create_task(writer.acquire(None))
        await until_waiting(writer)
        await one.release()
        assert not waiting.done()
        await two.release()
        assert await waiting
        await writer.release()

    async def test_readers_come_in_together(self, redis: Redis):
        """All readers that waited hold it at the same time after the writer."""
        lock = ReadWriteLock(redis, "rw", 60)
        writer = lock.write()
        await writer.acquire()
        together = asyncio.Barrier(10)

        async def read() -> None:
            async with lock.read().hold():
                await together.wait()

        tasks = [asyncio.create_task(read()) for _ in range(10)]
        await until_waiting(writer, 10)
        await writer.release()
        await asyncio.gather(*tasks)

    async def meetings(self, redis: Redis) -> set[tuple[int, int]]:
        """Let many read and write; return how many readers and writers there were at a time."""
        lock = ReadWriteLock(redis, "rw", 60)
        readers = writers = 0
        seen: set[tuple[int, int]] = set()

        async def read() -> None:
            nonlocal readers
            async with lock.read().hold():
                readers += 1
                seen.add((readers, writers))
                await asyncio.sleep(0)
                seen.add((readers, writers))
                readers -= 1

        async def write() -> None:
            nonlocal writers
            async with lock.write().hold():
                writers += 1
                seen.add((readers, writers))
                await asyncio.sleep(0)
                seen.add((readers, writers))
                writers -= 1

        await asyncio.gather(*(write() if n % 4 == 0 else read() for n in range(60)))
        return seen

    async def test_excludes_under_load(self, redis: Redis):
        """No reader ever sees a writer inside, and no writer another."""
        seen = await self.meetings(redis)
        assert all(not writers or (readers, writers) == (0, 1) for readers, writers in seen)
        assert (0, 1) in seen

    async def test_a_lock_that_excludes_nobody_is_seen(self, redis7: Redis):
        """The control: when everybody may enter, writers meet others."""
        with open_to_all():
            seen = await self.meetings(redis7)

        assert any(writers and (readers, writers) != (0, 1) for readers, writers in seen)

    async def test_a_lost_reader_hears_of_it(self, redis: Redis):
        """A reader whose lease is lost is cancelled like any holder."""

        async def body() -> None:
            async with ReadWriteLock(redis, "rw", 0.6).read().hold():
                await redis.flushall()
                await asyncio.sleep(30)

        with pytest.raises(LockLost):
            await body()

    def test_names_itself(self):
        """Its repr names it."""
        assert repr(ReadWriteLock("redis://localhost:6379/0", "rw")) == "<ReadWriteLock 'rw'>"
