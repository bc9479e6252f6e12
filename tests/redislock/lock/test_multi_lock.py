"""Locks of several names, one of which fails."""

from __future__ import annotations

import pytest
from redis import exceptions
from redis.asyncio import Redis

from ws_redislock import MultiLock, MutexLock
from ws_redislock.errors import UnavailableError


class TestMultiLock:
    """Several locks, of which one fails."""

    async def test_one_cannot_be_acquired(self, redis_url: str, redis7: Redis):
        """The others are given back, and the client of the object's own is closed."""
        await redis7.set("wsl:m:{b}:holders", "x")
        lock = MultiLock(redis_url, ["a", "b"], 60)

        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            async with lock.hold(0):
                pytest.fail("not all were acquired")

        assert not lock.locked
        assert not await MutexLock(redis7, "a", 60).exists()

    async def test_one_cannot_be_released(self, redis7: Redis):
        """The others are released all the same, and the error is the caller's."""
        lock = MultiLock(redis7, ["a", "b"], 60)
        assert await lock.acquire()
        await redis7.set("wsl:m:{b}:holders", "x")

        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await lock.release()

        assert not await MutexLock(redis7, "a", 60).exists()
        await lock.aclose()

    async def test_unreachable_at_the_end(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """A block whose work is done does not fail because giving back does."""
        release = MutexLock.release

        async def lose_reply(lock: MutexLock) -> bool:
            await release(lock)
            raise UnavailableError("the reply was lost")

        monkeypatch.setattr(MutexLock, "release", lose_reply)
        lock = MultiLock(redis7, ["a", "b"], 60)
        done = False

        async with lock.hold(0) as fences:
            done = set(fences) == {"a", "b"}

        assert done
        assert not lock.locked

    async def test_one_cannot_be_closed(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """The others are closed before the error is raised."""
        aclose, closed = MutexLock.aclose, []

        async def fail(lock: MutexLock) -> None:
            await aclose(lock)
            closed.append(lock.name)

            if lock.name == "b":
                raise UnavailableError("not now")

        monkeypatch.setattr(MutexLock, "aclose", fail)

        with pytest.raises(UnavailableError, match="not now"):
            await MultiLock(redis7, ["a", "b", "c"], 60).aclose()

        assert sorted(closed) == ["a", "b", "c"]
