"""Claims that are kept alive: a run outlives its process, and is made once otherwise."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import anyio

from tests.tasks._support import (
    START,
    Calls,
    ClaimServer,
    LeaseClaims,
    Process,
    VirtualClock,
    on_both_loops,
    scheduler,
    settle,
)
from ws_tasks import IntervalTask, OnceTask, Scheduler


def working(first: Process, second: Process) -> tuple[Process, Process]:
    """Return the process whose run is held up, and the other one, whose runs are not any more."""
    [busy] = [process for process in (first, second) if process.calls.at]
    other = second if busy is first else first
    other.calls.hold = None
    return busy, other


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
