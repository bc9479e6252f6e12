"""When runs happen, on a virtual clock: intervals, crontabs, late runs, clocks that are set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import START, Calls, VirtualClock, Watcher, on_both_loops, scheduler, settle
from ws_tasks import CrontabTask, IntervalTask, OnceTask


class TestScheduler:
    @staticmethod
    @on_both_loops
    async def test_interval_keeps_its_pace() -> None:
        """Runs happen one interval apart, from one interval after the start."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            assert task.next_run_time == datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
            await clock.advance(35)

        assert calls.at == [10, 20, 30]
        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30]
        assert task.statistics().succeeded == 3

    @staticmethod
    @on_both_loops
    async def test_immediate_runs_at_the_start_too() -> None:
        """The first run is made at once, the pace counted from the start."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(0.1, calls, immediate=True))
            await clock.advance(0.25)

        assert calls.at == pytest.approx([0, 0.1, 0.2])

    @staticmethod
    @on_both_loops
    async def test_jitter_moves_the_waking_only() -> None:
        """Each run is late by up to the jitter, and the nominal times stay on the grid."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, jitter=9.5))
            await clock.advance(2009.9)

        assert len(calls.at) == 200
        assert [run.scheduled_at.timestamp() - START for run in calls.runs] == [
            10.0 * n for n in range(1, 201)
        ]
        lateness = [at - 10 * n for n, at in enumerate(calls.at, 1)]
        assert min(lateness) >= 0
        assert 8 < max(lateness) <= 9.5

    @staticmethod
    @on_both_loops
    async def test_crontab_follows_the_wall_clock() -> None:
        """A crontab task runs at the named minutes."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(CrontabTask("*/5 * * * *", calls, tz="UTC"))
            assert task.next_run_time == datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
            await clock.advance(600)

        assert calls.at == [300, 600]

    @staticmethod
    @on_both_loops
    async def test_once() -> None:
        """A one-shot task runs once, then it has ended and left its scheduler."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            tasks = [
                s.add(OnceTask(5, calls)),
                s.add(OnceTask(timedelta(seconds=6), calls)),
                s.add(OnceTask(datetime.fromtimestamp(START + 7, UTC), calls)),
                s.add(OnceTask(datetime(2026, 1, 1, 2, 0, 8), calls, tz="Europe/Riga")),  # noqa: DTZ001
                s.add(OnceTask(datetime(2020, 1, 1, tzinfo=UTC), calls)),
            ]
            await clock.advance(20)
            assert not any(task.running for task in tasks)
            assert s.tasks() == []

        assert calls.at == [0, 5, 6, 7, 8]

    @staticmethod
    @on_both_loops
    async def test_misfire_grace_drops_what_is_too_late() -> None:
        """A run later than its grace is skipped, counted and reported; without one it is made late."""
        clock, watcher = VirtualClock(), Watcher()
        strict, lenient = Calls(clock), Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, strict, misfire_grace=1))
            s.add(IntervalTask(10, lenient))
            await settle()
            clock.stall(14)
            await clock.advance(7)

        assert strict.at == [20]
        assert lenient.at == [14, 20]
        assert task.statistics().skipped == {"overlap": 0, "late": 1, "coalesced": 0}
        assert watcher.kinds() == ["skipped_late"]

    @staticmethod
    @on_both_loops
    async def test_coalesce_latest() -> None:
        """After a stall one run is made, for the latest nominal time; the others are counted."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, calls))
            await settle()
            clock.stall(35)
            await clock.advance(6)

        assert calls.at == [35, 40]
        assert [run.scheduled_at.second for run in calls.runs] == [30, 40]
        assert task.statistics().skipped["coalesced"] == 2
        assert watcher.kinds() == ["coalesced"]

    @staticmethod
    @on_both_loops
    async def test_coalesce_all() -> None:
        """After a stall each missed run is made, one after the other."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, coalesce="all", overlap="queue"))
            await settle()
            clock.stall(35)
            await clock.advance(6)

        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30, 40]

    @staticmethod
    @on_both_loops
    async def test_a_large_batch_lets_others_run() -> None:
        """More due runs than one batch are made all the same, with turns for others in between."""
        clock = VirtualClock()
        turns = made = 0

        async def count() -> None:
            nonlocal made
            made += 1

        async def other() -> None:
            nonlocal turns

            while made < 2000:
                turns += 1
                await checkpoint()

        async with scheduler(clock) as s, anyio.create_task_group() as group:
            for _ in range(2000):
                s.add(IntervalTask(10, count))

            await settle()
            clock.stall(10)
            group.start_soon(other)
            await clock.advance(0)

        assert made == 2000
        assert turns >= 3

    @staticmethod
    @on_both_loops
    async def test_a_clock_set_forward() -> None:
        """What became due by the step is noticed within half a minute and runs once, late."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            s.add(CrontabTask("0 * * * *", calls, tz="UTC"))
            await clock.advance(10)
            clock.step(3600)
            await clock.advance(30)

        assert len(calls.at) == 1
        assert calls.at[0] <= 40
        assert "clock_step" in watcher.kinds()

    @staticmethod
    @on_both_loops
    async def test_a_clock_set_back() -> None:
        """Elapsed-time tasks go on from the new time, fixed times do not run again, intervals do not care."""
        clock = VirtualClock(START - 60)
        every, fixed, interval = Calls(clock), Calls(clock), Calls(clock)

        async with scheduler(clock) as s:
            s.add(CrontabTask("* * * * *", every, tz="UTC"))
            s.add(CrontabTask("0 0 * * *", fixed, tz="UTC"))
            s.add(IntervalTask(60, interval))
            await clock.advance(61)
            assert (len(every.at), len(fixed.at), len(interval.at)) == (1, 1, 1)
            clock.step(-3600)
            await clock.advance(600)
            assert len(every.at) == 11
            assert len(interval.at) == 11
            await clock.advance(3600)
            assert len(fixed.at) == 1

    @staticmethod
    @on_both_loops
    async def test_a_wrong_date_is_corrected() -> None:
        """After a step back of more than three hours also fixed times start anew."""
        clock = VirtualClock(START + 86400 * 365)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(CrontabTask("0 12 * * *", calls, tz="UTC"))
            await clock.advance(1)
            clock.step(-86400 * 365)
            await clock.advance(31)
            assert task.next_run_time == datetime(2026, 1, 1, 12, tzinfo=UTC)
