"""A run that is due while the one before goes on."""

from __future__ import annotations

import anyio

from tests.tasks._support import Calls, VirtualClock, Watcher, on_both_loops, scheduler, settle
from ws_tasks import IntervalTask


class TestOverlap:
    @staticmethod
    @on_both_loops
    async def test_skip() -> None:
        """A run due while another is under way is not made, but counted and reported."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(35)
            assert (len(calls.at), task.statistics().running) == (1, 1)
            assert task.statistics().skipped["overlap"] == 2
            calls.hold.set()
            await clock.advance(5)

        assert calls.at == [10, 40]
        assert watcher.kinds() == ["skipped_overlap"] * 2

    @staticmethod
    @on_both_loops
    async def test_queue_has_a_bound() -> None:
        """Runs wait for the one before, as many as the queue may hold."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, overlap="queue", max_queued=2))
            await clock.advance(45)
            assert task.statistics().queued == 2
            assert task.statistics().skipped["overlap"] == 1
            calls.hold.set()
            await settle()

        assert calls.at == [10, 45, 45]
        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30]

    @staticmethod
    @on_both_loops
    async def test_cancel_previous() -> None:
        """The run under way is cancelled, and the new one begins when it has ended."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, overlap="cancel_previous"))
            await clock.advance(25)
            assert task.statistics().cancelled == 1
            task.run_now()
            task.run_now()
            await settle()
            assert task.statistics().cancelled == 3
            calls.hold.set()
            await settle()

        assert task.statistics().succeeded == 1
        assert calls.at == [10, 20, 25]

    @staticmethod
    @on_both_loops
    async def test_max_instances() -> None:
        """So many runs may be under way at once."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, max_instances=2))
            await clock.advance(35)
            assert task.statistics().running == 2
            calls.hold.set()
