"""Losses at awkward moments: nothing but the block is cancelled, and nothing is left behind."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from typing import Any

import pytest
from redis.asyncio import Redis

from tools.servers import RedisServer
from ws_redislock import LeaderElection, LockLost, MultiLock, MutexLock
from ws_redislock._redis.script_client import ScriptClient


class RefusedError(Exception):
    """What a body raises by itself."""


async def take_away(redis: Redis, name: str = "k", kind: str = "m") -> None:
    """Delete a lock's holders, so that nobody is notified."""
    assert await redis.delete(f"wsl:{kind}:{{{name}}}:holders")


class TestFoundByTheBody:
    """A body that finds the loss itself."""

    @pytest.mark.parametrize("raises", [True, False])
    async def test_no_cancel_is_left_over(self, redis: Redis, raises: bool):
        """After the block the task goes on undisturbed, whatever the block ended with."""

        async def body() -> None:
            async with MutexLock(redis, "k", 60).hold() as held:
                await take_away(redis)

                if not await held.renew() and raises:
                    raise RefusedError

        async def work() -> str:
            with pytest.raises(RefusedError if raises else LockLost):
                await body()

            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0.01)
            return "went on"

        assert await asyncio.create_task(work()) == "went on"

    async def test_a_cancel_from_outside_is_kept(self, redis: Redis):
        """A cancel that comes with the loss is not taken away with it."""

        async def body() -> None:
            async with MutexLock(redis, "k", 60).hold() as held:
                await take_away(redis)

                if not await held.renew():
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    raise RefusedError

        task = asyncio.create_task(body())
        await asyncio.wait([task])
        assert task.cancelled()

    async def test_given_back_by_the_body(self, redis: Redis):
        """A body that releases the lock itself has not lost it; of several locks as of one."""
        one, several = MutexLock(redis, "a", 60), MultiLock(redis, ["b", "c"], 60)

        async with one.hold():
            assert await one.release()

        async with several.hold():
            assert await several.release()

        assert not await one.exists()


class TestHint:
    """A hint that the lock was taken away."""

    async def test_during_a_renewal(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """It is not forgotten when it comes while a renewal that was answered before is under way."""
        once = ScriptClient.once
        answered, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(self: ScriptClient, *args: Any) -> object:  # as `once` takes them
            reply = await once(self, *args)
            answered.set()
            await go_on.wait()
            return reply

        lock = MutexLock(redis, "k", 60)
        assert await lock.acquire()
        monkeypatch.setattr(ScriptClient, "once", slowly)
        held = lock.current()
        assert held._watchdog is not None
        held._watchdog.look()
        await answered.wait()
        await take_away(redis)
        held._watchdog.look()
        go_on.set()

        async with asyncio.timeout(10):
            await held.wait_lost()

        assert not await lock.release()


class TestReentrant:
    """A reentrant lock after its loss."""

    async def test_a_late_release_leaves_the_next_one(self, redis: Redis):
        """The release of the lost acquisition does not forget the one after it."""
        first, second, third = (MutexLock(redis, "k", 60, reentrant=True) for _ in range(3))
        assert await first.acquire()
        await take_away(redis)
        assert not await first.renew()
        assert await second.acquire()
        assert not await first.release()
        assert await third.acquire()
        assert third.fence == second.fence
        await third.release()
        await second.release()


class TestLeader:
    """Office lost outside of the term's block."""

    async def test_only_the_block_is_cancelled(self, redis: Redis):
        """A loss before the block cancels nothing until the block begins, and then ends it at once."""
        steps: list[str] = []

        async with LeaderElection(redis, "k", lease=60) as election:
            async for term in election:
                if not steps:
                    assert await LeaderElection(redis, "k").depose()
                    await asyncio.wait_for(term.wait_over(), 10)
                    await asyncio.sleep(0.01)
                    steps.append("before")

                    async with term:
                        await asyncio.sleep(10)
                        steps.append("never")
                else:
                    steps.append("again")
                    break

        assert steps == ["before", "again"]


PROGRAM = """
import asyncio, sys
from redis.asyncio import Redis
from ws_redislock import MutexLock

async def main():
    client = Redis.from_url(sys.argv[1])
    await MutexLock(client, "k", 60).acquire()
    locks = [MutexLock(client, "k", 60) for _ in range(5)]
    tasks = [asyncio.create_task(lock.acquire(None)) for lock in locks]

    while await locks[0].waiters() < 5:
        await asyncio.sleep(0)

    main.tasks = tasks, locks

asyncio.run(main())
"""


class TestEndOfTheLoop:
    """A program that ends while tasks wait."""

    async def test_waiters_leave_the_queue(self, redis: Redis, any_redis: RedisServer):
        """They leave the queue on the way out, and nothing is said about pending tasks."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, any_redis.url, stdout=PIPE, stderr=PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b"Task was destroyed" not in said
        assert await MutexLock(redis, "k", 60).waiters() == 0
