"""Long runs: nothing grows."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from itertools import pairwise

import pytest

from tests.tasks._support import VirtualClock
from ws_tasks import IntervalTask, Scheduler

pytestmark = pytest.mark.once  # what measures coverage needs memory of its own

TASKS = 1000
SPELLS = 3  # a table grows in one of them, a leak in each
ROUNDS = 15  # of each spell, at least
NOISE = 100_000  # bytes; a leak of 7 bytes a fire is more


def allocated() -> int:
    """Count the bytes that are allocated by code, without those of the measurement itself."""
    gc.collect()
    return sum(item.size for item in tracemalloc.take_snapshot().statistics("filename"))


async def run(rounds: int) -> tuple[int, int]:
    """Fire tasks, a third of which fail; measure how many bytes come with each spell of so many rounds."""
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
            sizes = [allocated()]

            for _ in range(SPELLS):
                await clock.advance(rounds * 10)
                sizes.append(allocated())
        finally:
            tracemalloc.stop()

    return fires, min(late - early for early, late in pairwise(sizes))


async def test_memory_is_flat() -> None:
    """After tens of thousands of fires with failures no more is allocated than before."""
    fires, growth = await run(ROUNDS)
    assert fires >= 60 * TASKS
    assert growth < NOISE


async def test_many_tasks_are_small() -> None:
    """100,000 tasks need 60 MB at most after each has fired: 600 bytes each."""
    clock = VirtualClock()
    count = 20_000

    async def work() -> None:
        clock.stall(0.0001)  # so that each has numbers of its own

    async with Scheduler(clock=clock, drain_timeout=0) as scheduler:
        tracemalloc.start()

        try:
            before = allocated()

            for _ in range(count):
                scheduler.add(IntervalTask(60, work))

            async with asyncio.timeout(120):
                await clock.advance(65)

                while (tasks := scheduler.tasks()) and not all(task.statistics().succeeded for task in tasks):
                    await asyncio.sleep(0.01)

            assert sum(task.statistics().lateness > 0 for task in tasks) > count / 2
            del tasks
            assert (allocated() - before) / count <= 600
        finally:
            tracemalloc.stop()


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_memory_is_flat_for_long() -> None:
    """The same over a million fires."""
    fires, growth = await run(350)
    assert fires >= 1_000_000
    assert growth < NOISE
