"""Defaults of wintersweet 1.x; they are options of a pool now."""

from wintersweet._gone import explain as _explain

__all__ = ()

__getattr__ = _explain(__name__)
