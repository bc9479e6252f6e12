"""The manager that all pools share: `ws_pool.base`."""

from ws_pool.base import BasePoolManager as BasePoolManager

__all__ = ("BasePoolManager",)
