"""What the tests of locks share: clients that are closed when a test ends, and threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as blocking
from redis.asyncio import Redis

from tools.servers import RedisServer


@pytest.fixture
async def redis(any_redis: RedisServer) -> AsyncIterator[Redis]:
    """Yield a plain client of Redis, then of Valkey."""
    client = Redis.from_url(any_redis.url)
    yield client
    await client.aclose()


@pytest.fixture
async def redis7(redis_url: str) -> AsyncIterator[Redis]:
    """Yield a plain client of Redis only, where the server makes no difference."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def client(redis_url: str) -> Iterator[blocking.Redis]:
    """Yield a blocking client of Redis only."""
    with blocking.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def any_client(any_redis: RedisServer) -> Iterator[blocking.Redis]:
    """Yield a blocking client of Redis, then of Valkey."""
    with blocking.Redis.from_url(any_redis.url) as client:
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Yield threads."""
    with ThreadPoolExecutor(4) as pool:
        yield pool
