"""Jobs that wait for their test; not a test module."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from ws_tasks import TaskDefinition, task


class Gate:
    """Holds jobs up, and notes what they do."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.seen: list[object] = []
        self.threads = threading.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has been seen."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


def tasks_of(gate: Gate, **options: Any) -> tuple[TaskDefinition[Any, Any], TaskDefinition[Any, Any]]:
    """Return a task that waits for the gate, and one that just notes its argument."""

    @task("blocked")
    async def blocked() -> str:
        gate.seen.append("blocked")

        try:
            await gate.open.wait()
        except asyncio.CancelledError:
            gate.seen.append("interrupted")
            raise

        return "opened"

    @task("note", **options)
    async def note(value: int, plus: int = 0) -> int:
        gate.seen.append(value)
        return value + plus

    return blocked, note
