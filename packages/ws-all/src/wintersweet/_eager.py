"""Calls that were plain functions in 1.x and are coroutines now: begun at once, whether awaited or not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from ws_core.errors import UsageError, describe
from ws_logging import logger

_running: Final[set[asyncio.Task[Any]]] = set()  # held here, since a loop holds its tasks weakly


def begin(work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
    """Start work now; its error is logged when nobody awaits it."""
    try:
        task = asyncio.get_running_loop().create_task(work, name=f"wintersweet {what}")
    except RuntimeError:
        work.close()
        message = f"{what} needs a running event loop: call it from a coroutine, or asyncio.run() one"
        raise UsageError(message) from None

    _running.add(task)
    task.add_done_callback(lambda done: _ended(done, what))
    return task


def _ended(task: asyncio.Task[Any], what: str) -> None:
    _running.discard(task)

    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("{} failed: {}", what, describe(error, with_type=True))
