"""A process of `test_processes.py`: calls a cached function, and counts its runs on the server."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from redis.asyncio import Redis

from ws_pool.cache import ShareCache
from ws_pool.redis import RedisPool

BARRIER = "test:ready"


async def main(url: str, processes: int, callers: int, *, locked: bool) -> None:
    """Wait for the others, then call from many tasks at once."""
    async with Redis.from_url(url) as redis, RedisPool(url=url) as pool:

        def lock(name: str) -> Any:
            return redis.lock(name, timeout=60, sleep=0.01)

        cache = ShareCache("slow", ttl=60, redis=pool, redis_timeout=30, lock=lock if locked else None)

        @cache
        async def value(number: int) -> int:
            runs = int(await redis.hincrby("test:runs", str(number), 1))
            await asyncio.sleep(0.2)

            # However late the others are, nothing is stored before a second process has begun.
            while not locked and int(await redis.hget("test:runs", str(number)) or 0) < 2:
                await asyncio.sleep(0.01)

            return runs

        await redis.incr(BARRIER)

        while int(await redis.get(BARRIER) or 0) < processes:
            await asyncio.sleep(0.002)

        results = await asyncio.gather(*(value(caller % 3) for caller in range(callers)))
        assert len(results) == callers
        assert locked is False or set(results) == {1}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), locked=sys.argv[4] == "locked"))
