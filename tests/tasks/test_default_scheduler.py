"""The scheduler that starts by itself, one for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import on_both_loops, settle
from ws_core.errors import UsageError
from ws_tasks import IntervalTask, Scheduler


class TestDefaultScheduler:
    @staticmethod
    @on_both_loops
    async def test_starts_by_itself() -> None:
        """A task started on its own runs in the loop's scheduler, one for all."""
        seen: list[int] = []

        async def note(value: int) -> None:
            seen.append(value)

        one, two = IntervalTask(3600, note, 1), IntervalTask(3600, note, 2)
        one.start()
        first = one.run_now()
        two.start()
        assert one.scheduler is two.scheduler
        await first
        await two.run_now()
        assert seen == [1, 2]
        await one.stop()
        assert one.scheduler is not None
        await one.scheduler.close()
        one.start()
        assert one.scheduler is not two.scheduler
        await one.run_now()
        await one.stop()

    @staticmethod
    @on_both_loops
    async def test_an_open_scheduler_is_found() -> None:
        """Inside of a scheduler's block, tasks start there."""
        async with Scheduler() as s:
            task = IntervalTask(3600, checkpoint)
            task.start()
            assert task.scheduler is s

    @staticmethod
    @on_both_loops
    async def test_ends_with_the_loop() -> None:
        """Nobody has to close the default scheduler: a running loop takes it along."""
        task = IntervalTask(3600, anyio.sleep_forever)
        task.start()
        task.run_now()
        await settle()

    async def test_the_death_of_the_scheduler_is_loud(self, caplog: pytest.LogCaptureFixture) -> None:
        """A bug of the scheduler itself does not end all tasks in silence."""
        task = IntervalTask(3600, checkpoint)
        task.start()
        await settle()
        assert task.scheduler is not None

        task.scheduler.clock = None  # type: ignore[assignment]
        assert task.scheduler._host is not None
        task.scheduler.timer.wake()
        await asyncio.wait([task.scheduler._host])
        assert "has died" in caplog.text

    def test_needs_a_loop(self) -> None:
        """Without a running event loop a task cannot be started."""
        with pytest.raises(UsageError, match="no event loop"):
            IntervalTask(1, print).start()

    async def test_another_loop_is_refused(self) -> None:
        """A task started in one loop cannot be used from another loop or thread."""
        task = IntervalTask(3600, checkpoint)
        task.start()
        errors: list[BaseException] = []

        def use(call: Callable[[], object]) -> None:
            try:
                call()
            except UsageError as error:
                errors.append(error)

        async def elsewhere() -> None:
            task.stop()

        await anyio.to_thread.run_sync(use, task.stop)
        await anyio.to_thread.run_sync(use, lambda: asyncio.run(elsewhere()))
        assert ["another event loop" in str(error) for error in errors] == [True, True]
        await task.stop()
