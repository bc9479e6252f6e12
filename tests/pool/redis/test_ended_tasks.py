"""A dedicated Redis connection whose block never ends, in a task that has ended."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ws_pool.redis import RedisPool


async def test_its_connection_comes_back(redis_url: str):
    """The next block is served within seconds, and a warning names the task."""
    async with RedisPool(url=redis_url, max_size=1, acquire_timeout=5) as pool:

        async def careless() -> None:
            await pool.get_client(alone=True).__aenter__()

        async def forgotten() -> None:
            await asyncio.create_task(careless(), name="careless")
            gc.collect()

        with pytest.warns(ResourceWarning, match="of task 'careless' was dropped"):
            await forgotten()

        async with pool.get_client(alone=True) as client:
            assert await client.ping()
