"""Caches for functions as in 1.x, over `ws_pool.cache`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from wintersweet.asyncs.pool.redis import redis_pool_manager
from ws_pool import cache as library
from ws_pool.cache import CacheWrap as CacheWrap

__all__ = ("CacheWrap", "ShareCache")


class ShareCache:
    """
    Equal calls at the same time run once, and the result is kept in the default Redis pool.

    Args:
        tag: The function's name in keys; by default its own.
        cache_none: Whether None is kept.
        use_redis: Whether results are kept at all.
        ttl: Seconds that a result is kept.
        **options: Those of `ws_pool.cache.ShareCache`.

    Example:
        ```python no-run
        # needs a Redis server
        from wintersweet.asyncs.cache import ShareCache

        @ShareCache(ttl=30)
        async def item(number):
            return {"number": number}
        ```
    """

    def __init__(
        self,
        tag: str | None = None,
        cache_none: bool = False,
        use_redis: bool = True,
        ttl: float = 30,
        **options: Any,
    ) -> None:
        self._tag = tag
        self._options: dict[str, Any] = {"cache_none": cache_none, "ttl": ttl, **options}

        if use_redis:
            self._options.setdefault("redis", lambda: redis_pool_manager.get_pool().redis)
        else:  # only calls at the same time share a result
            self._options["condition"] = lambda _result: False

    def __call__(self, func: Callable[..., Awaitable[Any]]) -> Any:
        """Return the coroutine function with a cache, and with ``invalidate`` and ``refresh``."""
        tag = self._tag or func.__name__.strip("{}<>") or "function"
        cached = library.ShareCache(tag, **self._options)(func)

        @functools.wraps(func)
        async def copied(*args: Any, **kwargs: Any) -> Any:
            # Callers at the same time have one result, and 1.x let each change its own.
            return copy.deepcopy(await cached(*args, **kwargs))

        vars(copied).update(invalidate=cached.invalidate, refresh=cached.refresh)
        return copied
