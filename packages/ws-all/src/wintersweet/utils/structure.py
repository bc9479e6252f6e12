"""Linked nodes of the first `LRUCache`, which needs none now."""

from wintersweet._gone import explain as _explain

__all__ = ()

__getattr__ = _explain(__name__)
