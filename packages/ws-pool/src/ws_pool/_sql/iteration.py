"""The rows of ``client.iterate()``, one by one; leaving the loop closes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Self


class RowIterator(AsyncIterator[Any]):
    """
    Rows as they come. ``break`` out of the loop, or `aclose`, ends the iteration.

    The connection is then free for the task's next statement, and its transaction lives.
    """

    __slots__ = ("_block", "_blocks")

    def __init__(self, blocks: AsyncGenerator[list[Any], None]) -> None:
        self._blocks = blocks
        self._block: Iterator[Any] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        for row in self._block:
            return row

        self._block = iter(await anext(self._blocks))  # no block is empty
        return next(self._block)

    async def aclose(self) -> None:
        """End the iteration."""
        self._block = iter(())
        await self._blocks.aclose()

    def __del__(self) -> None:
        # `break` drops the last reference. An async generator would be closed by a task of the event
        # loop, after the next statement of this one has found its connection busy: so it is closed
        # here. That awaits nothing, since no read is under way between two rows.
        blocks: Any = self._blocks  # Any: the frame of a generator is not a part of the abstract type

        if blocks.ag_frame is None or blocks.ag_running:
            return

        try:
            asyncio.get_running_loop()
            blocks.aclose().send(None)
        except (StopIteration, RuntimeError):  # closed; or no loop runs here, and nothing can be closed
            pass
