"""A bounded mapping: `ws_pool.cache`."""

from wintersweet._gone import explain as _explain
from ws_pool.cache import LRUCache as LRUCache

__all__ = ("LRUCache",)

__getattr__ = _explain(__name__)
