"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ("end_all",)

_AGAIN: Final = 0.2  # seconds after which a task that has not ended is cancelled once more


async def end_all(*tasks: asyncio.Task[Any]) -> None:  # Any: whatever a task returns
    """
    Cancel tasks and wait until they have ended.

    A task may miss a cancellation: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    one that comes in the moment in which it is done. Such a task is cancelled again.

    Args:
        *tasks: The tasks; the present one is left out.
    """
    left = {task for task in tasks if not task.done() and task is not asyncio.current_task()}

    while left:
        for task in left:
            task.cancel()

        done, left = await asyncio.wait(left, timeout=_AGAIN)

        for task in done:
            if not task.cancelled():
                task.exception()  # nobody else asks for it
