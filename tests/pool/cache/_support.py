"""A function that counts its runs."""

from __future__ import annotations

import asyncio
from typing import Any


class Runs:
    """Counts runs of a function; each can be held until released, or made to fail."""

    def __init__(self) -> None:
        self.count = 0
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.fail: BaseException | None = None
        self.value: Any = None  # a test's own

    async def run(self, value: Any = None) -> Any:
        """Run once."""
        self.count += 1
        number = self.count
        self.begun.set()

        if self.gate is not None:
            await self.gate.wait()

        if self.fail is not None:
            raise self.fail

        return {"n": number, "value": value} if self.value is None else self.value


async def turns(count: int = 20) -> None:
    """Let the others go on."""
    for _ in range(count):
        await asyncio.sleep(0)
