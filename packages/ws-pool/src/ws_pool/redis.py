"""Redis pools: redis-py's typed commands at the speed of one pipelined connection.

`RedisPool.redis` is a `redis.asyncio.Redis`. Commands of all tasks share a few connections and are
pipelined automatically; commands that cannot be shared (blocking commands, sessions, pub/sub, WATCH)
run on a dedicated connection. `RedisPoolManager` is a named set of such pools.

This module needs the extra ``ws-pool[redis]``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, Final

from ws_pool._core.extras import missing

try:
    from redis.asyncio import Redis
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "redis") from _error

from ws_pool._redis.errors import MaybeExecuted
from ws_pool._redis.pool import RedisPool
from ws_pool._redis.statistics import RedisStatistics
from ws_pool.base import BasePoolManager
from ws_pool.errors import MissingExtraError

__all__ = ("MaybeExecuted", "RedisPool", "RedisPoolManager", "RedisStatistics", "redis_pool_manager")

RedisPool.__module__ = __name__

# Other distributions publish classes under this entry-point group; the manager's shortcuts look them up
# when they are used. So ws-pool knows the services, and not which distribution provides them.
_GROUP: Final = "wintersweet.redis"
_loaded: Final[dict[str, Callable[..., Any]]] = {}  # Any: another distribution's class


class RedisPoolManager(BasePoolManager[RedisPool, Redis]):
    """
    A named set of Redis pools, with shortcuts to what is made of them.

    Example:
        ```python
        from ws_pool.redis import RedisPoolManager

        manager = RedisPoolManager()
        manager.register({"default": {"url": "redis://localhost:6379/0"}})
        await manager
        async with manager.get_client() as redis:
            await redis.incr("visits")
        await manager.close()
        ```
    """

    settings_key = "REDIS_CONFIG"

    # Any: what a section holds is checked by the pool.
    def _build(self, name: str, section: Mapping[str, Any], where: str) -> RedisPool:
        return RedisPool(name=name, setting=where, **section)

    def allocate_lock(
        self, key: str, expire: float = 60, *, name: str = "default", **options: object
    ) -> Any:  # Any: another distribution's class
        """
        Make a lock on a pool; needs ``ws-redislock``.

        Args:
            key: The lock's name.
            expire: Seconds of its lease.
            name: The pool's name.
            **options: Of ``ws_redislock.MutexLock``.

        Returns:
            The ``MutexLock``.

        Raises:
            MissingExtraError: ``ws-redislock`` is not installed.
        """
        return _load_extension("lock", "ws-redislock")(self.get_pool(name), key, expire, **options)

    def allocate_limiter(
        self, granularity: float, limit: int, *, name: str = "default", **options: object
    ) -> Any:  # Any: another distribution's class
        """
        Make a rate limiter on a pool; needs ``ws-redislock``.

        Args:
            granularity: Seconds of one window.
            limit: Hits in one window.
            name: The pool's name.
            **options: Of ``ws_redislock.FrequencyLimiter``.

        Returns:
            The ``FrequencyLimiter``.

        Raises:
            MissingExtraError: ``ws-redislock`` is not installed.
        """
        return _load_extension("limiter", "ws-redislock")(self.get_pool(name), granularity, limit, **options)

    def allocate_event_bus(
        self, channel_name: str, *, name: str = "default", **options: Any
    ) -> Any:  # Any: the class is imported late
        """
        Make an event bus on a pool.

        Args:
            channel_name: The channel.
            name: The pool's name.
            **options: Of `ws_pool.events.RedisEventBus`.

        Returns:
            The `ws_pool.events.RedisEventBus`, not started.
        """
        from ws_pool.events import RedisEventBus  # noqa: PLC0415 - only when one is asked for

        return RedisEventBus(self.get_pool(name), channel_name, **options)


redis_pool_manager: Final = RedisPoolManager()
"""The ready-made manager of REDIS_CONFIG."""


def _load_extension(service: str, provider: str) -> Callable[..., Any]:
    """Return the class that an installed distribution publishes for a service."""
    if service not in _loaded:
        found = importlib.metadata.entry_points(group=_GROUP, name=service)

        if not found:
            message = (
                f"no installed distribution provides {service!r} for Redis pools: pip install '{provider}'"
            )
            raise MissingExtraError(message, service=service, requirement=provider)

        _loaded[service] = next(iter(found)).load()

    return _loaded[service]
