"""A pytest plugin that puts `RedisPool.redis` in the place of the client that redis-py's own tests get.

With ``WS_CONFORMANCE_CLIENT=ours`` their fixture ``create_redis`` starts a `RedisPool` with default
settings; without it their own client is tested. Either way the variant of the fixture that keeps one
connection is left out: it tests redis-py's ``client()``. Nothing else is changed but the names of options:
a test that fails shows a difference.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from ws_pool.redis import RedisPool

# Any below: options of redis-py's tests.


OURS = os.environ.get("WS_CONFORMANCE_CLIENT") == "ours"


@pytest.hookimpl(tryfirst=True)
def pytest_plugin_registered(plugin: Any) -> None:
    """Replace the fixture before pytest reads it from redis-py's conftest."""
    if OURS and getattr(plugin, "__name__", "").endswith("test_asyncio.conftest"):
        plugin.create_redis = create_redis


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the variant with one connection out."""
    kept = [item for item in items if "single" not in getattr(getattr(item, "callspec", None), "id", "")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest_asyncio.fixture(params=[(False,)], ids=["pool"])
async def create_redis(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[Redis]]]:
    """Make clients as redis-py's fixture does; they are those of pools."""
    pools: list[RedisPool] = []
    config = request.config

    async def make(url: str | None = None, *, flushdb: bool = True, **options: Any) -> Redis:
        options.setdefault("protocol", int(config.getoption("--protocol")))

        if (timeout := options.pop("socket_timeout", None)) is not None:
            options["command_timeout"] = timeout  # our name for it

        for name in ("retry", "retry_on_timeout"):  # their tests set it to none; ours is another rule
            options.pop(name, None)
        pool = RedisPool(url or config.getoption("--redis-url"), **options)
        await pool.start()

        if flushdb and "username" not in options:
            pools.insert(0, pool)
        else:
            pools.append(pool)

        return pool.redis

    yield make

    for index, pool in enumerate(pools):
        if not index:
            await pool.redis.flushdb()

        await pool.close(timeout=0.1)
