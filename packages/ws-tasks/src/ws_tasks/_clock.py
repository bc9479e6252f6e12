"""Time as the scheduler sees it; tests put a virtual clock in its place."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Two clocks and the ability to wait."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        """Return when the event is set or the seconds have passed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when the seconds have passed."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        """Return when the event is set or the seconds have passed."""
        with anyio.move_on_after(seconds):
            await event.wait()

    async def sleep(self, seconds: float) -> None:
        """Return when the seconds have passed."""
        await anyio.sleep(seconds)
