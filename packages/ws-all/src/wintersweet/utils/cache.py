"""A bounded mapping: `ws_pool.cache`."""

from ws_pool.cache import LRUCache as LRUCache

__all__ = ("LRUCache",)
