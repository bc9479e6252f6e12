"""Linked nodes of the first `LRUCache`, which needs none now."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain

__all__ = ()

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
