"""Keeping the garbage collector out while a long result is read.

Thousands of objects that come at once and stay make CPython's collector promote them, as if they
were there for good, and search all of the heap again and again; that costs more than reading them.
None of them can be garbage yet. Counting references goes on, so all else is freed as usual.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import AbstractContextManager

_LONGEST = 0.25  # seconds; a server may take its time, and other tasks make garbage meanwhile


def gc_paused() -> AbstractContextManager[object]:
    """
    Switch the collector off for the length of a block, for a quarter of a second at most.

    The block that has switched it off switches it on; a block inside of another one, or of another
    task meanwhile, does nothing. So it is on again after each of many blocks that overlap.
    """
    return _Pause()


class _Pause:
    """A class of its own, since `contextlib.contextmanager` costs more than a short result."""

    __slots__ = ("_timer",)

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if gc.isenabled():
            gc.disable()
            self._timer = asyncio.get_running_loop().call_later(_LONGEST, self._end)

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.enable()
