"""Guarded schedules enqueue jobs for worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.tasks.test_taskiq import Workers, engine, workers
from ws_redislock import RunClaims

__all__ = ["workers"]


class TestSchedules:
    async def test_schedules(self, redis_url: str, workers: Callable[[str], Workers]) -> None:
        """Two schedulers with one guard enqueue each tick once, and the run's id is the job's."""
        found = workers(redis_url)
        found.start(tick=True)
        await found.ready(1)

        async def follow(seconds: float) -> None:
            async with RunClaims(redis_url) as claims, engine(redis_url, tick=True, guard=claims):
                await asyncio.sleep(seconds)

        await asyncio.gather(asyncio.to_thread(asyncio.run, follow(3)), follow(3))
        await found.wait(lambda: len(found.lines("end", "tick")) >= 5)
        assert len(found.lines("end", "tick")) <= 7
