"""Loops in time: `ws_tasks.circular`, with intervals in turns of the event loop where 1.x counted those."""

from __future__ import annotations

from typing import Final

from ws_tasks import circular as library
from ws_tasks.circular import AsyncCircularForFrame as AsyncCircularForFrame
from ws_tasks.circular import AsyncCircularForSecond as AsyncCircularForSecond

__all__ = (
    "AsyncCircularForFrame",
    "AsyncCircularForSecond",
    "AsyncCircularForTimeout",
)

_TURN: Final = 25e-6
"""Seconds that a turn of an idle loop took in 1.x, which kept a core busy with them."""


class AsyncCircularForTimeout(library.AsyncCircularForTimeout):
    """
    Counts until ``timeout`` seconds have passed; there is always at least one round.

    Args:
        timeout: Seconds from the first round to the end.
        interval: Pause between two rounds in turns of an idle loop, about 25 µs each; no core is kept
            busy with them.
    """

    def __init__(self, timeout: float, interval: float = 0xFFF) -> None:
        super().__init__(timeout, interval * _TURN)
