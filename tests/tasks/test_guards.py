"""One process of many makes a run: guards, on one virtual clock for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.tasks._support import START, Calls, Claims, VirtualClock, on_both_loops, scheduler
from ws_tasks import CrontabTask, Guard, IntervalTask


class TestGuard:
    @staticmethod
    @on_both_loops
    async def test_each_run_is_made_once() -> None:
        """Of several schedulers with one guard, exactly one makes each nominal run."""
        await _guarded(Claims)

    @staticmethod
    @on_both_loops
    async def test_a_guard_that_lets_everybody_in_is_caught() -> None:
        """The test above fails with a guard that is none."""

        class Open(Claims):
            async def claim(self, run_id: str, ttl: float) -> bool:
                return True

        with pytest.raises(AssertionError):
            await _guarded(Open)

    @staticmethod
    @on_both_loops
    async def test_a_failing_guard_makes_no_run() -> None:
        """Without an answer the run is not made, but reported."""
        clock = VirtualClock()
        calls, guard = Calls(clock), Claims()
        guard.fail = ConnectionError("gone")
        seen: list[BaseException] = []

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, guard=guard, on_error=lambda e, _: seen.append(e)))
            await clock.advance(10)

        assert calls.at == []
        assert [str(error) for error in seen] == ["gone"]
        assert task.statistics().last_error == "guard: ConnectionError: gone"

    @staticmethod
    @on_both_loops
    async def test_guarded_intervals_lie_on_a_common_grid() -> None:
        """With a guard the nominal times are multiples of the interval, whenever the task started."""
        clock = VirtualClock(START + 3)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, guard=Claims(), immediate=True))
            await clock.advance(10)

        assert [run.id[-14:] for run in calls.runs] == ["00:00:00+00:00", "00:00:10+00:00"]
        assert isinstance(Claims(), Guard)


async def _guarded(make: Callable[[set[str]], Claims]) -> None:
    clock = VirtualClock()
    claimed: set[str] = set()
    workers = [Calls(clock) for _ in range(5)]
    tasks: list[IntervalTask | CrontabTask] = []

    async with scheduler(clock) as s:
        for calls in workers:
            tasks.append(s.add(IntervalTask(10, calls, name="shared", guard=make(claimed))))
            tasks.append(s.add(CrontabTask("* * * * *", calls, name="cron", tz="UTC", guard=make(claimed))))

        await clock.advance(125)

    runs = sorted(run.id for calls in workers for run in calls.runs)
    assert len(runs) == len(set(runs)) == 12 + 2
    assert sum(task.statistics().claimed_elsewhere for task in tasks) == 4 * 14
