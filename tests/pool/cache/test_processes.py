"""Caches of several processes: one run for all of them, and changes that all of them see."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ws_pool.cache import ShareCache
from ws_pool.redis import RedisPool

WORKER = Path(__file__).with_name("_single_flight_worker.py")
ROOT = Path(__file__).resolve().parents[3]


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a process."""
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestSingleFlight:
    """Four processes with 60 callers each, of three keys."""

    async def runs(self, url: str, *words: str) -> dict[bytes, bytes]:
        """Let the processes run, and return how often each key was computed."""
        async with Redis.from_url(url) as redis:
            await redis.flushdb()
            command = [sys.executable, str(WORKER), url, "4", "60", *words]
            started = [await asyncio.to_thread(start, command) for _ in range(4)]
            ended = [await asyncio.to_thread(process.communicate, None, 90) for process in started]
            assert [process.returncode for process in started] == [0] * 4, ended
            runs: Any = await redis.hgetall("test:runs")  # bytes here, without decode_responses
            return dict(runs)

    async def test_once_for_all_processes(self, redis_url: str) -> None:
        """With a lock each key is computed exactly once."""
        assert await self.runs(redis_url, "locked") == {b"0": b"1", b"1": b"1", b"2": b"1"}

    async def test_once_per_process_without_a_lock(self, redis_url: str) -> None:
        """Without one, each process computes: the test above can fail."""
        found = await self.runs(redis_url, "unlocked")
        assert all(1 < int(count) <= 4 for count in found.values())
        assert len(found) == 3


class TestTracking:
    """Over a pool that keeps replies until the server reports a change (`RedisPool(cache=…)`)."""

    @pytest.fixture
    async def pools(self, redis_url: str) -> AsyncIterator[tuple[RedisPool, RedisPool]]:
        """Return two pools, as of two processes."""
        async with RedisPool(url=redis_url, cache=100) as one, RedisPool(url=redis_url, cache=100) as two:
            yield one, two

    async def test_hits_need_no_server(self, redis_url: str, pools: tuple[RedisPool, RedisPool]) -> None:
        """After the first hit no command is sent."""
        one, _ = pools
        runs = 0

        @ShareCache("tracked", ttl=60, redis=one, redis_timeout=30)
        async def value() -> int:
            nonlocal runs
            runs += 1
            return runs

        assert [await value() for _ in range(3)] == [1] * 3

        async with Redis.from_url(redis_url) as redis:
            before = (await redis.info("stats"))["total_commands_processed"]
            assert [await value() for _ in range(100)] == [1] * 100
            after = (await redis.info("stats"))["total_commands_processed"]

        assert after - before < 20

    @pytest.mark.parametrize("by_tag", [False, True])
    async def test_an_invalidation(self, pools: tuple[RedisPool, RedisPool], *, by_tag: bool) -> None:
        """Seen at once by those who share the pool, and by others when it has arrived; nobody goes back."""
        numbers = [0]
        caches = [ShareCache("tracked-2", ttl=60, redis=pool, redis_timeout=30) for pool in pools]

        async def value() -> int:
            return numbers[0]

        mine, theirs = (cache(value) for cache in caches)

        for number in range(1, 50):
            assert await mine() == await theirs() == numbers[0]
            numbers[0] = number
            await (caches[0].invalidate() if by_tag else mine.invalidate())
            assert await mine() == number

            async with asyncio.timeout(30):
                while await theirs() != number:
                    await asyncio.sleep(0)

            assert [await theirs() for _ in range(5)] == [number] * 5
