"""Caches for functions: `ShareCache` shares results among callers and processes, `CacheWrap` keeps them here.

`LRUCache` is a bounded mapping for everything else. This module needs the extra ``ws-pool[cache]``;
sharing through Redis needs a client, such as ws-pool's `RedisPool`.
"""

from __future__ import annotations

from ws_pool._core.extras import missing

try:
    from ws_pool._cache.lru import LRUCache
    from ws_pool._cache.share import CachedFunction, CacheStatistics, ShareCache
    from ws_pool._cache.wrap import CacheWrap
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "cache") from _error

__all__ = ("CacheStatistics", "CacheWrap", "CachedFunction", "LRUCache", "ShareCache")

for _public in (CacheStatistics, CacheWrap, CachedFunction, LRUCache, ShareCache):
    _public.__module__ = __name__
