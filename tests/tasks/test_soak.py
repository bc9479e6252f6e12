"""Long runs: nothing grows."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tests.tasks._support import VirtualClock
from ws_tasks import IntervalTask, Scheduler

TASKS = 1000
ONCE = 300_000  # bytes that tables may grow by once; a leak of 10 bytes a fire is more


def allocated() -> int:
    """Count the bytes that are allocated by code, without those of the measurement itself."""
    return sum(item.size for item in tracemalloc.take_snapshot().statistics("filename"))


async def run(rounds: int) -> tuple[int, int]:
    """Fire tasks, a third of which fail, and measure what is allocated early and late."""
    clock = VirtualClock()
    fires = 0

    async def work(number: int) -> None:
        nonlocal fires
        fires += 1

        if number % 3 == 0:
            raise ValueError(number)

    async with Scheduler(clock=clock) as scheduler:
        for number in range(TASKS):
            scheduler.add(IntervalTask(10, work, number, on_error=lambda *_: None))

        tracemalloc.start()

        try:
            await clock.advance(200)
            gc.collect()
            early = allocated()
            await clock.advance(rounds * 10)
            gc.collect()
            late = allocated()
        finally:
            tracemalloc.stop()

    return fires, late - early


async def test_memory_is_flat() -> None:
    """After tens of thousands of fires with failures no more is allocated than before."""
    fires, growth = await run(30)
    assert fires >= 50 * TASKS
    assert growth < ONCE


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_memory_is_flat_for_long() -> None:
    """The same over a million fires."""
    fires, growth = await run(1_000)
    assert fires >= 1_000_000
    assert growth < ONCE
