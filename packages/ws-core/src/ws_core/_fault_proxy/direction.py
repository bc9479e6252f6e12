"""One direction of a proxied connection: bytes on their way, possibly late, held or slow."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

_STEP = 0.01  # seconds between two looks at the weather


@dataclass(slots=True)
class Weather:
    """What happens to bytes of one direction."""

    delay: float = 0.0  # seconds that each piece is late; order is kept, and pieces don't wait for each other
    jitter: float = 0.0  # seconds up to which a random delay is added
    rate: float | None = None  # bytes per second of each connection, or None for no limit
    clear: asyncio.Event = field(default_factory=asyncio.Event)  # not set while pieces are held

    def __post_init__(self) -> None:
        self.clear.set()

    @property
    def calm(self) -> bool:
        """Whether pieces pass at once."""
        return not self.delay and not self.jitter and self.rate is None and self.clear.is_set()

    def heal(self) -> None:
        """Let everything pass at once from now on."""
        self.delay = self.jitter = 0.0
        self.rate = None
        self.clear.set()


class Direction:
    """Carries pieces to one writer in their order."""

    def __init__(self, weather: Weather, chance: random.Random) -> None:
        self._weather = weather
        self._chance = chance
        self._queue: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        self._last_due = 0.0
        self._carrying = False
        self._ended = False
        self._writer: asyncio.StreamWriter | None = None

    def open(self, writer: asyncio.StreamWriter) -> None:
        """Take the writer that pieces go to."""
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes: at once when nothing is in the way, else `run` does it in time."""
        if self._weather.calm and self._queue.empty() and not self._carrying:
            await self._write(data)
        else:
            self._queue.put_nowait((self._due(), data))

    def send_eof(self) -> None:
        """Half-close the writer's side (FIN) behind all pieces that are on their way."""
        self._queue.put_nowait((self._due(), None))

    async def run(self) -> None:
        """Carry late pieces until the end of the stream."""
        while not self._ended:
            due, data = await self._queue.get()
            self._carrying = True
            await self._wait(due)

            if data is None:
                self._write_eof()
            else:
                await self._write_slowly(data)

            self._carrying = False

    def _due(self) -> float:
        late = self._weather.delay + self._chance.uniform(0.0, self._weather.jitter)
        self._last_due = max(self._last_due, asyncio.get_running_loop().time() + late)
        return self._last_due

    async def _wait(self, due: float) -> None:
        loop = asyncio.get_running_loop()

        # Healing lets what is on its way arrive at once, so the wait looks again in steps.
        while not self._weather.calm and (wait := due - loop.time()) > 0:  # noqa: ASYNC110 - a clock, too
            await asyncio.sleep(min(wait, _STEP))

        await self._weather.clear.wait()

    def _write_eof(self) -> None:
        self._ended = True

        if self._writer is not None and self._writer.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):  # the other side has gone
                self._writer.write_eof()

    async def _write_slowly(self, data: bytes) -> None:
        while data and (rate := self._weather.rate) is not None:
            size = max(1, round(rate * _STEP))
            await self._write(data[:size])
            data = data[size:]
            await asyncio.sleep(size / rate)

        if data:
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        if self._writer is None or self._ended or self._writer.is_closing():
            return

        self._writer.write(data)

        with contextlib.suppress(OSError):  # whoever reads from that side learns of it
            await self._writer.drain()
