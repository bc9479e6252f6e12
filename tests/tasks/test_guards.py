"""One process of many makes a run: guards that answer, fail, or keep a claim; and clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.tasks._support import (
    START,
    Calls,
    ClaimServer,
    LeaseClaims,
    PlainClaims,
    Process,
    SkewedClock,
    VirtualClock,
    Watcher,
    on_both_loops,
    scheduler,
)
from ws_core.errors import UsageError
from ws_tasks import CrontabTask, Guard, IntervalTask, ScheduleError
from ws_tasks.interface import LeaseGuard


class TestGuard:
    @staticmethod
    @on_both_loops
    async def test_each_run_is_made_once() -> None:
        """Of several schedulers with one guard, exactly one makes each nominal run."""
        await guarded(PlainClaims)

    @staticmethod
    @on_both_loops
    async def test_a_guard_that_lets_everybody_in_is_caught() -> None:
        """The test above fails with a guard that claims nothing."""

        class Open(PlainClaims):
            async def claim(self, run_id: str, ttl: float) -> bool:
                return True

        with pytest.raises(AssertionError):
            await guarded(Open)

    @staticmethod
    @on_both_loops
    async def test_guarded_intervals_lie_on_a_common_grid() -> None:
        """With a guard the nominal times are multiples of the interval, whenever the task started."""
        clock = VirtualClock(START + 3)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, name="sync", guard=PlainClaims(), immediate=True))
            await clock.advance(10)

        assert [run.id[-14:] for run in calls.runs] == ["00:00:00+00:00", "00:00:10+00:00"]
        assert isinstance(PlainClaims(), Guard)
        assert not isinstance(PlainClaims(), LeaseGuard)

    @staticmethod
    @on_both_loops
    async def test_names_are_unique() -> None:
        """Two tasks of one name would take each other's runs for another process's: refused."""
        clock = VirtualClock()
        calls = Calls(clock)

        with pytest.raises(ScheduleError, match='needs a name that is the same in every process: name="'):
            IntervalTask(10, calls, guard=PlainClaims())

        async with scheduler(clock) as s:
            first = s.add(IntervalTask(10, calls, name="sync", guard=PlainClaims()))
            second = IntervalTask(10, calls, name="sync", guard=PlainClaims())

            with pytest.raises(UsageError, match="a guarded task named 'sync' already"):
                s.add(second)

            s.add(IntervalTask(10, calls, name="sync"))  # without a guard names are for messages only
            await first.stop()
            first.start(s)
            await first.stop()
            s.add(second)


class TestFailingGuard:
    @staticmethod
    @on_both_loops
    @pytest.mark.parametrize("lease", [False, True])
    async def test_one_failure_loses_no_run(*, lease: bool) -> None:
        """A claim that raises once is tried again, whatever the guard, and the run is made."""
        clock, watcher = VirtualClock(), Watcher()
        calls, server, plain = Calls(clock), ClaimServer(clock), PlainClaims()
        plain.fail = server.fail = ConnectionError("gone")

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, calls, name="sync", guard=LeaseClaims(server) if lease else plain))
            await clock.advance(10)
            plain.fail = server.fail = None
            await clock.advance(6)

        assert len(calls.at) == 1
        assert task.statistics().failed == 0
        assert watcher.kinds().count("claim_failed") >= 1

    @staticmethod
    @on_both_loops
    async def test_without_an_answer_in_the_runs_time_it_is_reported() -> None:
        """A guard that stays silent until the next run is due loses the run, which is an error."""
        clock = VirtualClock()
        calls, guard = Calls(clock), PlainClaims()
        guard.fail = ConnectionError("gone")
        seen: list[BaseException] = []

        async with scheduler(clock) as s:
            options: Any = {"name": "sync", "guard": guard, "on_error": lambda e, _: seen.append(e)}
            task = s.add(IntervalTask(60, calls, **options))
            await clock.advance(115)
            assert seen == []
            await clock.advance(10)

        assert calls.at == []
        assert [str(error) for error in seen] == ["gone"]
        assert task.statistics().failed == 1
        assert task.statistics().last_error == "guard: ConnectionError: gone"

    @staticmethod
    @on_both_loops
    async def test_misfire_grace_bounds_the_attempts() -> None:
        """A run that may not be late is reported when its claim takes longer."""
        clock = VirtualClock()
        calls, guard = Calls(clock), PlainClaims()
        guard.fail = ConnectionError("gone")

        async with scheduler(clock) as s:
            task = s.add(
                IntervalTask(60, calls, name="x", guard=guard, misfire_grace=2, on_error=lambda *_: None)
            )
            await clock.advance(63)
            assert task.statistics().failed == 1
            await s.close()

    @staticmethod
    @on_both_loops
    async def test_runs_due_while_the_server_restarts_are_not_lost() -> None:
        """All runs that become due while the guard is away are made when it is back, once each."""
        clock = VirtualClock()
        server = ClaimServer(clock)

        async with AsyncExitStack() as stack:
            processes = [Process(server, clock, Calls(clock)) for _ in range(4)]

            for process in processes:
                await process.start(stack, interval=2)

            await clock.advance(3)
            server.fail = ConnectionError("restarts")
            await clock.advance(9)
            server.fail = None
            await clock.advance(20)

        made = Counter(run.id for process in processes for run in process.calls.runs)
        assert set(made.values()) == {1}
        assert len(made) == 16
        assert server.failures > 0


class TestClocks:
    @staticmethod
    @on_both_loops
    @pytest.mark.parametrize("step", [-4.0, -3600.0])
    async def test_a_clock_set_back_makes_no_task_silent(*, step: float) -> None:
        """One process whose clock is set back goes on by elapsed time, with a mark for repeated times."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        process = Process(server, clock, Calls(clock))

        async with AsyncExitStack() as stack:
            await process.start(stack, interval=1)
            await clock.advance(10.5)
            made = len(process.calls.at)
            clock.step(step)
            await clock.advance(10)
            assert len(process.calls.at) - made >= 9
            assert len({run.id for run in process.calls.runs}) == len(process.calls.runs)
            # An hour back there are times that had no run, which are not repeated.
            repeated = [run.id for run in process.calls.runs if run.repeat > 1]
            assert len(repeated) == (4 if step == -4 else 0)
            assert all(run_id.endswith("~2") for run_id in repeated)

    @staticmethod
    @on_both_loops
    async def test_several_processes_set_back_make_one_run_each_time() -> None:
        """When the clock of all is set back, each elapsed second has one run, not one of each process."""
        clock = VirtualClock()
        server = ClaimServer(clock)

        async with AsyncExitStack() as stack:
            processes = [Process(server, clock, Calls(clock)) for _ in range(4)]

            for process in processes:
                await process.start(stack, interval=1)

            await clock.advance(10.5)
            clock.step(-4)
            await clock.advance(10)

        runs = [run.id for process in processes for run in process.calls.runs]
        assert len(runs) == len(set(runs))
        assert 18 <= len(runs) <= 20

    @staticmethod
    @on_both_loops
    async def test_a_clock_that_is_behind_makes_no_doubles() -> None:
        """A process whose clock is seconds late makes no run again that a process on time has made."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        on_time, behind = Calls(clock), Calls(clock)

        async with AsyncExitStack() as stack:
            first = Process(server, clock, on_time)
            second = Process(server, SkewedClock(clock, -4.3), behind)
            await first.start(stack, interval=1)
            await second.start(stack, interval=1)
            await clock.advance(30)
            assert len(on_time.at) == 30
            # The first seconds came before the other one had started: nobody had made them.
            assert len(behind.at) <= 5
            assert {run.repeat for run in behind.runs} <= {1}
            # When the process on time dies, the one that is behind is silent for two periods at most.
            first.die()
            await clock.advance(5)
            assert len([at for at in behind.at if at > 30]) >= 3

    @staticmethod
    @on_both_loops
    async def test_fixed_times_are_not_repeated() -> None:
        """A time of day that has had its run has no other one when the clock is set back."""
        clock = VirtualClock(START - 60)
        server = ClaimServer(clock)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(CrontabTask("0 0 * * *", calls, tz="UTC", name="daily", guard=LeaseClaims(server)))
            await clock.advance(61)
            clock.step(-600)
            await clock.advance(3000)

        assert len(calls.at) == 1


async def guarded(make: Callable[[set[str]], PlainClaims]) -> None:
    """Let five processes make the runs of an interval and of a crontab."""
    clock = VirtualClock()
    claimed: set[str] = set()
    workers = [Calls(clock) for _ in range(5)]
    tasks: list[IntervalTask | CrontabTask] = []

    async with AsyncExitStack() as stack:
        for calls in workers:
            s = await stack.enter_async_context(scheduler(clock))
            tasks.append(s.add(IntervalTask(10, calls, name="shared", guard=make(claimed))))
            tasks.append(s.add(CrontabTask("* * * * *", calls, name="cron", tz="UTC", guard=make(claimed))))

        await clock.advance(125)

    runs = sorted(run.id for calls in workers for run in calls.runs)
    assert len(runs) == len(set(runs)) == 12 + 2
    assert sum(task.statistics().claimed_elsewhere for task in tasks) == 4 * 14
