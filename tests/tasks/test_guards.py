"""One process of many makes a run: guards, on one virtual time for all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from tests.tasks._support import (
    START,
    Calls,
    ClaimServer,
    LeaseClaims,
    PlainClaims,
    SkewedClock,
    VirtualClock,
    Watcher,
    on_both_loops,
    scheduler,
    settle,
)
from ws_core.errors import UsageError
from ws_tasks import CrontabTask, Guard, IntervalTask, OnceTask, ScheduleError, Scheduler
from ws_tasks.interface import LeaseGuard


class Process:
    """A scheduler that stands for a process, with one guarded task."""

    def __init__(self, server: ClaimServer, clock: Any, calls: Calls, **options: Any) -> None:
        self.watcher = Watcher()
        self.calls = calls
        self.scheduler = Scheduler(clock=clock, drain_timeout=0, on_event=self.watcher.append)
        self.guard = LeaseClaims(server)
        self.options = {"name": "sync", "guard": self.guard, "claim_ttl": 30.0, **options}
        self.task: IntervalTask | CrontabTask | None = None

    async def start(self, stack: AsyncExitStack, interval: float = 10) -> IntervalTask:
        """Enter the scheduler and start the task."""
        await stack.enter_async_context(self.scheduler)
        task = self.scheduler.add(IntervalTask(interval, self.calls, **self.options))
        self.task = task
        await settle()
        return task

    def die(self) -> None:
        """Take the runs under way and the schedule along, as SIGKILL does: nothing is given back."""
        self.guard.server = ClaimServer(VirtualClock())
        assert self.task is not None

        for instance in self.task.active:
            instance.purpose = "adopt"  # its end has no meaning any more

        for found in list(self.task.active):
            found.cancel()

        self.task.pause()


def working(first: Process, second: Process) -> tuple[Process, Process]:
    """Return the process whose run is held up, and the other one, whose runs are not any more."""
    [busy] = [process for process in (first, second) if process.calls.at]
    other = second if busy is first else first
    other.calls.hold = None
    return busy, other


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


class TestLease:
    @staticmethod
    @on_both_loops
    async def test_a_run_of_a_process_that_died_is_made() -> None:
        """When a process is killed in a run, its claim ends within claim_ttl and another makes the run."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        dying, living = Process(server, clock, Calls(clock)), Process(server, clock, Calls(clock))
        dying.calls.hold = anyio.Event()
        living.calls.hold = anyio.Event()

        async with AsyncExitStack() as stack:
            await dying.start(stack, interval=100)
            await living.start(stack, interval=100)
            await clock.advance(100 + 5)
            victim, other = working(dying, living)
            victim.die()
            await clock.advance(24)
            assert other.calls.at == []
            await clock.advance(7)
            assert [run.id for run in other.calls.runs] == [run.id for run in victim.calls.runs]
            assert other.task is not None
            assert other.task.statistics().taken_over == 1
            assert other.task.statistics().claimed_elsewhere == 1
            assert "taken_over" in other.watcher.kinds()
            assert other.calls.runs[0].fence == 2
            await clock.advance(60)
            assert len(other.calls.at) == 1

    @staticmethod
    @on_both_loops
    async def test_a_guard_that_forgets_nobody_loses_the_run() -> None:
        """The test above fails with claims that are kept: nobody makes the run."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        options = {"at_least_once": False}
        dying = Process(server, clock, Calls(clock), **options)
        living = Process(server, clock, Calls(clock), **options)
        dying.calls.hold = anyio.Event()
        living.calls.hold = anyio.Event()

        async with AsyncExitStack() as stack:
            await dying.start(stack, interval=3600)
            await living.start(stack, interval=3600)
            await clock.advance(3600)
            victim, other = working(dying, living)
            victim.die()
            await clock.advance(3599)
            assert other.calls.at == []

    @staticmethod
    @on_both_loops
    async def test_a_long_run_keeps_its_claim() -> None:
        """A run that lasts many times claim_ttl is renewed, and nobody else begins it."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        processes = [Process(server, clock, Calls(clock)) for _ in range(3)]

        async with AsyncExitStack() as stack:
            for process in processes:
                process.calls.hold = anyio.Event()
                await process.start(stack, interval=3600)

            await clock.advance(3600 + 600)
            assert sum(len(process.calls.at) for process in processes) == 1
            assert 58 <= server.requests.count("renew") <= 62

            for process in processes:
                assert process.calls.hold is not None
                process.calls.hold.set()

            await clock.advance(100)
            assert sum(len(process.calls.at) for process in processes) == 1

    @staticmethod
    @on_both_loops
    async def test_a_drained_process_gives_its_claim_back() -> None:
        """A run that is cancelled by shutdown is another's when its claim is looked at again."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        first, second = Process(server, clock, Calls(clock)), Process(server, clock, Calls(clock))
        first.calls.hold, second.calls.hold = anyio.Event(), anyio.Event()

        async with AsyncExitStack() as stack:
            await first.start(stack, interval=100)
            await second.start(stack, interval=100)
            await clock.advance(101)
            drained, other = working(first, second)
            await drained.scheduler.close()
            assert "give_back" in server.requests
            await clock.advance(31)
            assert [run.id for run in other.calls.runs] == [run.id for run in drained.calls.runs]

    @staticmethod
    @on_both_loops
    async def test_a_run_left_by_the_last_process_is_made_by_the_next() -> None:
        """A process finds at its start what was claimed and not done when nobody was there."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        first, second = Process(server, clock, Calls(clock)), Process(server, clock, Calls(clock))
        first.calls.hold = anyio.Event()

        async with AsyncExitStack() as stack:
            await first.start(stack, interval=3600)
            await clock.advance(3601)
            await first.scheduler.close()
            await clock.advance(10)
            server.fail = ConnectionError("away")
            await second.start(stack, interval=3600)
            await clock.advance(5)
            server.fail = None
            await clock.advance(10)
            assert [run.id for run in second.calls.runs] == [run.id for run in first.calls.runs]

    @staticmethod
    @on_both_loops
    async def test_a_foreign_run_id_is_reported() -> None:
        """An open run that cannot be read is reported, not taken."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        server.open["sync"] = {"sync@tomorrow": None}
        process = Process(server, clock, Calls(clock))

        async with AsyncExitStack() as stack:
            await process.start(stack)
            assert process.watcher.kinds() == ["claim_failed"]

    @staticmethod
    @on_both_loops
    async def test_done_runs_are_marked() -> None:
        """A process that starts late does not make runs that are done, failed ones included."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        first = Process(server, clock, Calls(clock), on_error=lambda *_: None)
        first.calls.fail = ValueError("no")
        late = Process(server, clock, Calls(clock), misfire_grace=None)

        async with AsyncExitStack() as stack:
            await first.start(stack)
            await clock.advance(15)
            await stack.enter_async_context(late.scheduler)
            late.scheduler.add(IntervalTask(10, late.calls, immediate=True, **late.options))
            await settle()
            assert late.calls.at == []
            assert first.calls.at == [10]

    @staticmethod
    @on_both_loops
    async def test_a_double_is_reported() -> None:
        """A process that was stopped for longer than claim_ttl finishes, and reports the double."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        stopped, other = Process(server, clock, Calls(clock)), Process(server, clock, Calls(clock))
        stopped.calls.hold, other.calls.hold = anyio.Event(), anyio.Event()

        async with AsyncExitStack() as stack:
            await stopped.start(stack, interval=3600)
            await other.start(stack, interval=3600)
            await clock.advance(3601)
            stopped, other = working(stopped, other)
            # What the server sees of a stopped process: no renewal.
            [(run_id, (claim, _))] = server.runs.items()
            server.runs[run_id] = claim, clock.monotonic()
            await LeaseClaims(server).claim_run(run_id, 32, task="sync")
            await clock.advance(40)
            assert [run.id for run in other.calls.runs] == [run_id]
            assert stopped.calls.hold is not None
            stopped.calls.hold.set()
            await settle()
            assert stopped.task is not None
            assert stopped.task.statistics().doubled == 1
            assert stopped.watcher.kinds() == ["claim_lost", "doubled"]
            fences = [process.calls.runs[0].fence for process in (stopped, other)]
            assert fences == [1, 3]

    @staticmethod
    @on_both_loops
    async def test_never_twice() -> None:
        """With at_least_once=False no claim is renewed, given back or taken over."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        options = {"at_least_once": False}
        first = Process(server, clock, Calls(clock), **options)
        second = Process(server, clock, Calls(clock), **options)
        first.calls.hold, second.calls.hold = anyio.Event(), anyio.Event()

        async with AsyncExitStack() as stack:
            await first.start(stack, interval=3600)
            await second.start(stack, interval=3600)
            await clock.advance(3601)
            drained, other = working(first, second)
            await drained.scheduler.close()
            await clock.advance(900)
            assert other.calls.at == []
            assert not {"renew", "give_back", "open_runs"} & set(server.requests)

    @staticmethod
    @on_both_loops
    async def test_a_thread_that_goes_on_keeps_its_claim() -> None:
        """The claim of a function that cannot be interrupted expires; it is not given back."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        gate, entered = threading.Event(), threading.Event()

        def work() -> None:
            entered.set()
            gate.wait()

        async with Scheduler(clock=clock, drain_timeout=0) as s:
            task = s.add(IntervalTask(3600, work, name="sync", guard=LeaseClaims(server)))
            task.run_now()
            await anyio.to_thread.run_sync(entered.wait)
            [left] = await s.close()

        assert left.startswith("sync@")
        assert "give_back" not in server.requests
        gate.set()

    @staticmethod
    @on_both_loops
    async def test_a_superseded_run_is_nobodys() -> None:
        """What cancel_previous cancels is not made by another process either."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        calls = Calls(clock)
        calls.hold = anyio.Event()
        process = Process(server, clock, calls, overlap="cancel_previous")

        async with AsyncExitStack() as stack:
            await process.start(stack)
            await clock.advance(25)
            assert server.owner("sync@2026-01-01T00:00:10+00:00") is not None
            assert server.runs["sync@2026-01-01T00:00:10+00:00"][0] is None

    @staticmethod
    @on_both_loops
    async def test_renewals_and_ends_survive_an_outage() -> None:
        """A guard that is away for less than claim_ttl costs no run its claim, nor its mark."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        processes = [Process(server, clock, Calls(clock)) for _ in range(2)]

        async with AsyncExitStack() as stack:
            for process in processes:
                process.calls.hold = anyio.Event()
                await process.start(stack, interval=3600)

            await clock.advance(3609)
            server.fail = ConnectionError("away")
            await clock.advance(12)
            server.fail = None
            await clock.advance(60)
            server.fail = ConnectionError("away")

            for process in processes:
                assert process.calls.hold is not None
                process.calls.hold.set()

            await clock.advance(10)
            server.fail = None
            await clock.advance(60)
            assert sum(len(process.calls.at) for process in processes) == 1
            assert server.runs["sync@2026-01-01T01:00:00+00:00"][0] is None

    @staticmethod
    @on_both_loops
    async def test_an_end_that_cannot_be_noted_is_reported() -> None:
        """When the guard is away for longer than claim_ttl, the run may be made again: an event says so."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        process = Process(server, clock, Calls(clock))
        process.calls.hold = anyio.Event()

        async with AsyncExitStack() as stack:
            await process.start(stack, interval=3600)
            await clock.advance(3601)
            server.fail = ConnectionError("away")
            process.calls.hold.set()
            await clock.advance(31)
            assert "could not be noted" in process.watcher[-1].detail
            assert process.task is not None
            assert process.task.statistics().succeeded == 1

    @staticmethod
    @on_both_loops
    async def test_once() -> None:
        """A single run is watched until another process has made it; then the task has ended."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        date = datetime.fromtimestamp(START + 10, UTC)
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as first, scheduler(clock) as second:
            one = first.add(OnceTask(date, calls, name="once", guard=LeaseClaims(server)))
            two = second.add(OnceTask(date, calls, name="once", guard=LeaseClaims(server)))
            await clock.advance(15)
            assert (one.running, two.running) == (True, True)
            calls.hold.set()
            await clock.advance(60)
            assert (one.running, two.running) == (False, False)
            assert second.tasks() == []
            assert len(calls.at) == 1

    @staticmethod
    @on_both_loops
    async def test_stopped_and_paused_tasks_take_nothing_over() -> None:
        """A stopped task leaves the runs of others alone; a paused one until it is resumed."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        dying, living = Process(server, clock, Calls(clock)), Process(server, clock, Calls(clock))
        dying.calls.hold = anyio.Event()
        living.calls.hold = anyio.Event()

        async with AsyncExitStack() as stack:
            await dying.start(stack, interval=3600)
            await living.start(stack, interval=3600)
            await clock.advance(3601)
            victim, other = working(dying, living)
            victim.die()
            assert other.task is not None
            task = other.task
            task.pause()
            await clock.advance(100)
            assert other.calls.at == []
            task.resume()
            await clock.advance(40)
            assert len(other.calls.at) == 1
            later = "sync@2026-01-01T02:00:00+00:00"
            await LeaseClaims(server).claim_run(later, 4000, task="sync")
            await clock.advance(3600)
            assert task.statistics().claimed_elsewhere == 2
            await task.stop()
            assert not task.running
            await clock.advance(4000)
            assert later not in {run.id for run in other.calls.runs}


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
