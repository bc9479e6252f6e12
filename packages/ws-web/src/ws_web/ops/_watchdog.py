"""Where the event loop was, when it did not come back: a thread looks at it from outside."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_LONG: Final = 0.1  # seconds that a callback may take
# Functions of the loop itself.
_WAITING: Final = ("select", "run", "run_forever", "run_until_complete", "_run_once", "_select")
_FRAMES: Final = 4  # the innermost are shown


@dataclass(slots=True)
class _Slow:
    at: float
    seconds: float
    where: str


class Watchdog:
    """Takes note of callbacks that take longer than a tenth of a second, with the place in the code."""

    def __init__(self, *, limit: float = _LONG) -> None:
        self._limit = limit
        self._beat_at = time.monotonic()
        self._slow: deque[_Slow] = deque(maxlen=20)
        self._stop = threading.Event()
        self._loop_thread = 0

    def slow(self) -> list[dict[str, object]]:
        """Return the latest slow callbacks, newest first."""
        return [asdict(one) for one in reversed(self._slow)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the running event loop for the length of a block."""
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._stop.clear()
        beating = asyncio.create_task(self._beat(), name="beat of the event loop")
        thread = threading.Thread(target=self._watch, name="watchdog of the event loop", daemon=True)
        thread.start()

        try:
            yield
        finally:
            self._stop.set()
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await asyncio.to_thread(thread.join)

    async def _beat(self) -> None:
        """Note again and again that the event loop is alive."""
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(self._limit / 4)

    def _watch(self) -> None:
        current: _Slow | None = None

        while not self._stop.wait(self._limit / 4):
            late = time.monotonic() - self._beat_at

            if late < self._limit:
                current = None
            elif current is None:
                # A loop that only waits is late when the machine is busy with something else.
                if where := self._where():
                    current = _Slow(time.time() - late, late, where)
                    self._slow.append(current)
            else:
                current.seconds = late

    def _where(self) -> str:
        """Return the innermost calls that the loop's thread is in."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented, whatever its name
        calls = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []

        if not calls or calls[-1].name in _WAITING:
            return ""

        return " → ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls)
