"""Loops in time: `ws_tasks.circular`."""

from ws_tasks.circular import AsyncCircularForFrame as AsyncCircularForFrame
from ws_tasks.circular import AsyncCircularForSecond as AsyncCircularForSecond
from ws_tasks.circular import AsyncCircularForTimeout as AsyncCircularForTimeout

__all__ = (
    "AsyncCircularForFrame",
    "AsyncCircularForSecond",
    "AsyncCircularForTimeout",
)
