"""Each worker publishes its numbers once a second; each can read those of all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from ws_core.metrics import Sample, collect
from ws_web._worker_group import WorkerGroup

# Any below: JSON values.

_EVERY: Final = 1.0  # seconds between two snapshots

logger = logging.getLogger("ws_web")


class Publisher:
    """Publishes the snapshots of this process while the application runs."""

    def __init__(self, state: Callable[[], object] = lambda: None) -> None:
        self.state = state
        self.on_tick: list[Callable[[], object]] = []
        self.group: WorkerGroup | None = None
        self._publishing = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish at once, each second, and at the end."""
        self.group = WorkerGroup.of_this_process()
        self._publishing = asyncio.Lock()  # a new lifespan may run on a new loop

        if self.group is None:  # the only process: whoever asks, asks this one
            yield
            return

        await self._publish(self.group)
        task = asyncio.create_task(self._repeat(self.group), name="publishing of metrics")

        try:
            yield
        finally:
            task.cancel()

            with suppress(asyncio.CancelledError):
                await task

            await self._publish(self.group)

    async def samples(self) -> tuple[Sample, ...]:
        """Return the numbers of all workers."""
        return (await self.read())[0]

    async def read(self) -> tuple[tuple[Sample, ...], list[dict[str, Any]]]:
        """Return the numbers of all workers, and what each present one is doing."""
        if self.group is None:
            return collect(), [{"pid": 0, "state": self.state()}]

        await self._publish(self.group)
        return await asyncio.to_thread(self.group.read)

    async def _repeat(self, group: WorkerGroup) -> None:
        while True:
            await asyncio.sleep(_EVERY)

            try:
                await self._publish(group)
            except OSError as error:  # a full disk: the next second may be better
                logger.warning("metrics of this worker are not published: %s", error.strerror)

            for act in self.on_tick:
                act()

    async def _publish(self, group: WorkerGroup) -> None:
        # One after the other: an older snapshot must not come after a newer one.
        async with self._publishing:
            await asyncio.to_thread(group.publish, collect(), self.state())
