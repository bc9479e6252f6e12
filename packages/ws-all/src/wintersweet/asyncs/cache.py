"""Caches for functions: `ws_pool.cache`."""

from ws_pool.cache import CacheWrap as CacheWrap
from ws_pool.cache import ShareCache as ShareCache

__all__ = (
    "CacheWrap",
    "ShareCache",
)
