"""The clock of a pool, and its timers by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

__all__ = ("Timers",)


class Timers:
    """Timers of one loop, each with a name; it also tells the time."""

    __slots__ = ("_handles", "loop", "now")

    def __init__(self) -> None:
        self.loop = cast("asyncio.AbstractEventLoop", None)  # set by start, before anything else runs
        self.now: Callable[[], float] = float
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def start(self, clock: Callable[[], float] | None) -> None:
        """
        Belong to the running loop from now on.

        Args:
            clock: Gives the time in seconds; `time.monotonic` by default.
        """
        self.loop = asyncio.get_running_loop()
        self.now = clock or time.monotonic

    def set(self, name: str, delay: float, action: Callable[[], None]) -> None:
        """
        Set a timer, in place of one that has the same name.

        Args:
            name: Its name, which is free again when the action runs.
            delay: Seconds.
            action: What to do then.
        """

        def run() -> None:
            del self._handles[name]
            action()

        if (earlier := self._handles.pop(name, None)) is not None:
            earlier.cancel()

        self._handles[name] = self.loop.call_later(delay, run)

    def stop(self) -> None:
        """Cancel all timers."""
        for handle in self._handles.values():
            handle.cancel()

        self._handles.clear()
