"""A bounded mapping: `ws_pool.cache`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_pool.cache import LRUCache as LRUCache

__all__ = ("LRUCache",)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
