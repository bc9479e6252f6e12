"""Which connection belongs to which task: `ws_pool.context`."""

from ws_pool.context import TaskBinding as TaskBinding

__all__ = ("TaskBinding",)
