"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

__all__ = ("end_all", "is_cancelled")

_logger: Final = logging.getLogger("ws_pool")
_AGAIN: Final = 0.2  # seconds after which a task that has not ended is cancelled once more
_TRIES: Final = 25


def is_cancelled(error: BaseException) -> bool:
    """
    Tell the cancellation of the present task from a `CancelledError` that something in it has raised.

    Args:
        error: What was caught.

    Returns:
        Whether the task must end.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def end_all(*tasks: asyncio.Task[Any]) -> None:  # Any: whatever a task returns
    """
    Cancel tasks and wait until they have ended.

    A task may miss a cancellation: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    one that comes in the moment in which it is done. Such a task is cancelled again. One that still
    goes on after five seconds swallows cancellations on purpose: it is left alone, with an error in the log.

    Args:
        *tasks: The tasks; the present one is left out.
    """
    left = {task for task in tasks if not task.done() and task is not asyncio.current_task()}

    for _ in range(_TRIES):
        if not left:
            return

        for task in left:
            task.cancel()

        done, left = await asyncio.wait(left, timeout=_AGAIN)

        for task in done:
            if not task.cancelled():
                task.exception()  # nobody else asks for it

    for task in left:
        _logger.error("%s swallows its cancellation: it is left running", task.get_name())
