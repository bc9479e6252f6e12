"""Several processes: exclusion, kill -9, SIGSTOP."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import broken, child, lag, says, until_waiting
from tools.servers import RedisServer
from ws_redislock import MutexLock
from ws_redislock.fencing import guarded_update

PROCESSES, ROUNDS = 100, 3


pytestmark = pytest.mark.deployment


class TestExclusion:
    """A hundred processes read a number, sleep, and write it back."""

    async def count(self, url: str, file: Path, kind: str) -> int:
        """Let the fleet count, and return the number."""
        file.write_text("0")  # noqa: ASYNC240 - one byte

        async with child("fleet", url, PROCESSES, ROUNDS, file, kind) as fleet:
            assert await says(fleet, "ended") == ["ended", "0"]

        return int(file.read_text())  # noqa: ASYNC240 - a few bytes

    async def test_the_count_is_exact(self, any_redis: RedisServer, tmp_path: Path):
        """Under the lock no increment is lost."""
        assert await self.count(any_redis.url, tmp_path / "count", "lock") == PROCESSES * ROUNDS

    async def test_without_a_lock_it_is_not(self, redis_url: str, tmp_path: Path):
        """The control: the same program with a lock that does nothing loses increments."""
        assert await self.count(redis_url, tmp_path / "count", "none") < PROCESSES * ROUNDS


class TestKill:
    """kill -9."""

    HEARTBEAT = 1.2

    async def test_of_the_holder(self, any_redis: RedisServer, redis: Redis):
        """The next one holds it within the lease and 0.3 s."""
        lease = 1.0

        async with child("hold", any_redis.url, "k", lease) as holder, lag() as late:
            await says(holder, "held")
            lock = MutexLock(redis, "k", 60)
            waiting = asyncio.create_task(lock.acquire(None))
            await until_waiting(lock)
            killed = time.monotonic()
            holder.kill()
            assert await waiting
            assert time.monotonic() - killed <= lease + 0.3 + late.worst
            await lock.release()

    async def next_after_the_head(self, url: str, redis: Redis, within: float) -> bool:
        """Kill the first waiter, release, and report whether the second one is served in time."""
        first, second = (MutexLock(redis, "k", 60, heartbeat=self.HEARTBEAT) for _ in range(2))
        await first.acquire()

        async with child("wait", url, "k", self.HEARTBEAT) as head, lag() as late:
            await says(head, "waiting")
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first, 2)
            killed = time.monotonic()
            head.kill()
            await head.wait()
            await first.release()
            await asyncio.wait([waiting], timeout=killed + within - time.monotonic())

            if not waiting.done():
                await asyncio.wait([waiting], timeout=2 * late.worst)

            served = waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await second.aclose()
            return served

    async def test_of_the_head_waiter(self, any_redis: RedisServer, redis: Redis):
        """A dead waiter at the head of the queue is passed over within its heartbeat and 0.3 s."""
        assert await self.next_after_the_head(any_redis.url, redis, self.HEARTBEAT + 0.3)

    async def test_a_queue_that_keeps_its_dead_is_stuck(self, any_redis: RedisServer, redis: Redis):
        """The control: scripts that do not look whose heart beats wait for the dead one."""
        dead = "redis.call('ZRANGEBYSCORE', alive, '-inf', int(now))"

        with broken(dead, "{}", "enter", "beat", "release", "abandon"):
            assert not await self.next_after_the_head(any_redis.url, redis, self.HEARTBEAT + 0.3)

    async def test_a_holder_that_lives_keeps_it(self, any_redis: RedisServer, redis: Redis):
        """The control: without the kill nobody else gets it within the same time."""
        async with child("hold", any_redis.url, "k", 0.6) as holder:
            await says(holder, "held")
            assert not await MutexLock(redis, "k", 60).acquire(timeout=1.2)


class TestStop:
    """SIGSTOP past the lease."""

    async def test_the_late_holder_is_told_and_refused(
        self, any_redis: RedisServer, redis: Redis, tmp_path: Path
    ):
        """After it is resumed it gets LockLost, and its write with the old fence changes nothing."""
        database = tmp_path / "stock.db"

        with closing(sqlite3.connect(database)) as db, db:
            db.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER, fence INTEGER DEFAULT 0)")
            db.execute("INSERT INTO stock (id, amount) VALUES (7, 100)")

        async with child("write", any_redis.url, "k", 0.6, database) as holder:
            _, old = await says(holder, "held")
            holder.send_signal(signal.SIGSTOP)

            async with MutexLock(redis, "k", 60).hold() as held:
                assert held.fence > int(old)

                with closing(sqlite3.connect(database)) as db, db:
                    statement = guarded_update("stock", ["amount"], key="id")
                    assert db.execute(statement, {"amount": 90, "id": 7, "fence": held.fence}).rowcount == 1

                holder.send_signal(signal.SIGCONT)
                await says(holder, "lost")
                await says(holder, "refused")
                held.check()

        with closing(sqlite3.connect(database)) as db, db:
            assert db.execute("SELECT amount FROM stock").fetchone() == (90,)

    async def test_without_a_fence_the_late_write_goes_through(self, tmp_path: Path):
        """The control: a store that does not compare fences takes the late write."""
        db = sqlite3.connect(tmp_path / "stock.db")
        db.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER, fence INTEGER DEFAULT 0)")
        db.execute("INSERT INTO stock (id, amount, fence) VALUES (7, 90, 34)")
        assert db.execute("UPDATE stock SET amount = 1, fence = 33 WHERE id = 7").rowcount == 1
        db.close()
