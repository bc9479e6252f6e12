"""Caches that keep their results here or there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from ws_pool.cache import ShareCache


@pytest.fixture(params=["local", "bytes", "text"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., ShareCache]]:
    """Make caches that keep results in this process, or on Redis with replies as bytes or text."""
    if request.param == "local":
        yield ShareCache
        return

    url = request.getfixturevalue("redis_url")

    async with Redis.from_url(url, decode_responses=request.param == "text") as client:
        # A busy machine is not what these tests are about.
        yield lambda *args, **options: ShareCache(*args, redis=client, redis_timeout=30, **options)
