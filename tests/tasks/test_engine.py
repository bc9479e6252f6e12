"""Jobs on the local engine: results, failures, bounds, schedules, the end."""

from __future__ import annotations

import math
import sys
from typing import Any

import anyio
import anyio.from_thread
import pytest

from tests.tasks._support import ClaimServer, LeaseClaims, VirtualClock, Watcher, on_both_loops, settle
from ws_core.errors import ClosedError, UsageError
from ws_tasks import JobCancelled, LocalEngine, RunTimeout, ScheduleError, TaskDefinition, current_run, task
from ws_tasks.errors import JobFailed


@task("double", tags=["sums"])
async def double(number: int, *, add: int = 0) -> int:
    """Double a number."""
    return number * 2 + add


class TestDefinition:
    async def test_is_still_a_function(self) -> None:
        """Calling a task runs the function here and now."""
        assert await double(4, add=1) == 9
        assert double.__doc__ == "Double a number."
        assert repr(double) == "<TaskDefinition 'double'>"
        assert double.declaration.tags == ("sums",)

    async def test_needs_an_engine(self) -> None:
        """Without an engine in this loop a job cannot be enqueued."""
        with pytest.raises(UsageError, match="LocalEngine"):
            await double.enqueue(1)

    @pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, b"x"])
    async def test_arguments_are_json(self, value: Any) -> None:
        """An argument that is not JSON is refused by name, in local mode too."""
        with pytest.raises(UsageError, match="argument 'number' of task 'double' is not JSON"):
            await double.enqueue(value)

    async def test_arguments_fit(self) -> None:
        """Arguments that do not fit are refused before anything is queued."""
        with pytest.raises(TypeError):
            await double.enqueue()  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"name": ""}, "name='' is wrong"),
            ({"name": "x", "timeout": 0}, "timeout=0"),
            ({"name": "x", "retries": -1}, "retries=-1"),
            ({"name": "x", "schedule": "61 * * * *"}, "minute field"),
            ({"name": "x", "schedule": 0}, "schedule=0"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named when the task is declared."""
        with pytest.raises(ScheduleError) as caught:
            task(**options)

        assert part in str(caught.value)

    def test_bad_functions(self) -> None:
        """What cannot be called, or not without arguments by a schedule, is refused."""
        with pytest.raises(ScheduleError, match="not 5"):
            task("x")(5)  # type: ignore[call-overload]

        async def needs(value: int) -> None:
            pass

        with pytest.raises(ScheduleError, match="callable without arguments"):
            task("x", schedule=5)(needs)


class TestJobs:
    @staticmethod
    @on_both_loops
    async def test_results() -> None:
        """Each job has its own result, of coroutine and plain functions, and arguments as JSON makes them."""

        @task("show")
        def show(value: Any) -> Any:
            return [value, current_run().name]

        async with LocalEngine() as engine:
            jobs = [await double.enqueue(n, add=1) for n in range(50)]
            assert [await job.result() for job in jobs] == [n * 2 + 1 for n in range(50)]
            job = await show.enqueue((1, 2))
            assert await job.result() == [[1, 2], "show"]
            assert await job.result() == [[1, 2], "show"]
            assert job.done
            assert len({job.id for job in jobs}) == 50
            assert engine.statistics()["double"].succeeded == 50
            assert engine.statistics()["double"].next_run_time is None
            assert repr(engine) == "<LocalEngine 0 running, 0 queued>"

    @staticmethod
    @on_both_loops
    async def test_failures() -> None:
        """What the last attempt raised comes out of the result."""
        attempts = 0

        @task("fail", retries=2, timeout=5)
        async def fail() -> None:
            nonlocal attempts
            attempts += 1
            raise ValueError(attempts)

        @task("slow", timeout=0.01)
        async def slow() -> None:
            await anyio.sleep_forever()

        async with LocalEngine() as engine:
            job = await fail.enqueue()

            with pytest.raises(ValueError, match="3"):
                await job.result()

            with pytest.raises(RunTimeout):
                await (await slow.enqueue()).result()

            assert engine.statistics()["fail"].retried == 2

    @staticmethod
    @on_both_loops
    async def test_result_timeout() -> None:
        """Not waiting any longer for a result does not end the job."""
        gate = anyio.Event()

        @task("gated")
        async def gated() -> int:
            await gate.wait()
            return 1

        async with LocalEngine():
            job = await gated.enqueue()

            with pytest.raises(TimeoutError):
                await job.result(timeout=0)

            gate.set()
            assert await job.result() == 1

    @staticmethod
    @on_both_loops
    async def test_bounds() -> None:
        """So many jobs run at once, so many wait, and then enqueue waits."""
        gate = anyio.Event()
        running = most = 0

        @task("gated")
        async def gated() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1

        async with LocalEngine(concurrency=3, max_queued=2) as engine, anyio.create_task_group() as group:
            for _ in range(5):
                await gated.enqueue()

            assert repr(engine) == "<LocalEngine 3 running, 2 queued>"
            placed = False

            async def more() -> None:
                nonlocal placed
                await gated.enqueue()
                placed = True

            group.start_soon(more)
            group.start_soon(more)
            await settle()
            assert not placed
            gate.set()

        assert placed
        assert most == 3
        assert engine.statistics()["gated"].succeeded == 7


class TestJobsOfJobs:
    @staticmethod
    @on_both_loops
    async def test_a_job_that_enqueues_has_room() -> None:
        """A job that enqueues while the queue is full does not wait for itself; others wait as ever."""
        seen: list[int] = []

        @task("leaf")
        async def leaf(number: int) -> None:
            seen.append(number)

        @task("branch")
        async def branch() -> None:
            for number in range(3):
                await leaf.enqueue(number)

        with anyio.fail_after(10):
            async with LocalEngine(concurrency=1, max_queued=1) as engine:
                await (await branch.enqueue()).result()
                await double.enqueue(1)

        assert seen == [0, 1, 2]
        assert engine.statistics()["double"].succeeded == 1

    @staticmethod
    @on_both_loops
    @pytest.mark.parametrize("plain", [False, True])
    async def test_a_job_that_waits_for_another(*, plain: bool) -> None:
        """A job that waits for the result of another one lets it run, however many levels deep."""

        @task("sum")
        async def add_up(number: int) -> int:
            return 0 if not number else number + await (await add_up.enqueue(number - 1)).result()

        @task("sum in a thread")
        def add_up_plainly(number: int) -> int:
            async def less() -> int:
                return await (await add_up_plainly.enqueue(number - 1)).result()

            return 0 if not number else number + anyio.from_thread.run(less)

        with anyio.fail_after(20):
            async with LocalEngine(concurrency=1, max_queued=1):
                job = await (add_up_plainly if plain else add_up).enqueue(10)
                assert await job.result() == 55

    @staticmethod
    @on_both_loops
    async def test_concurrency_holds_for_those_that_work() -> None:
        """While a job waits for another one, no more than one more runs in its place."""
        running = most = 0

        @task("leaf")
        async def leaf() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await settle()
            running -= 1

        @task("branch")
        async def branch() -> None:
            jobs = [await leaf.enqueue() for _ in range(4)]

            for job in jobs:
                await job.result()

        async with LocalEngine(concurrency=2) as engine:
            await branch.enqueue()
            await branch.enqueue()

        assert most == 2
        assert engine.statistics()["leaf"].succeeded == 8

    @staticmethod
    @on_both_loops
    async def test_what_a_job_leaves_behind_waits() -> None:
        """Code that a job started and that outlives it has no room beside the bound."""
        gate = anyio.Event()
        placed = False

        @task("gated")
        async def gated() -> None:
            await gate.wait()

        async with anyio.create_task_group() as group:

            @task("parent")
            async def parent() -> None:
                async def later() -> None:
                    nonlocal placed
                    await settle()
                    await gated.enqueue()
                    placed = True

                group.start_soon(later)

            async with LocalEngine(concurrency=1, max_queued=1):
                await (await parent.enqueue()).result()
                await gated.enqueue()
                await gated.enqueue()
                await settle()
                await settle()
                assert not placed
                gate.set()
                await settle()
                assert placed


class TestResults:
    @staticmethod
    @on_both_loops
    async def test_are_json() -> None:
        """A result arrives as JSON makes it, and one that is not JSON is a failure that says so."""

        @task("pair")
        async def pair() -> Any:
            return (1, {2: "two"})

        @task("object")
        async def strange() -> Any:
            return object()

        async with LocalEngine():
            assert await (await pair.enqueue()).result() == [1, {"2": "two"}]

            with pytest.raises(UsageError, match="the result of task 'object' is not JSON"):
                await (await strange.enqueue()).result()

    def test_generator_functions(self) -> None:
        """A generator function cannot be declared as a task."""
        with pytest.raises(ScheduleError, match="generator function"):

            @task("rows")
            def rows() -> Any:
                yield 1

    @staticmethod
    @on_both_loops
    async def test_exit_is_a_failure() -> None:
        """A job that calls sys.exit() has failed; the application goes on, also where a task waits for it."""

        @task("exit")
        def leave() -> None:
            sys.exit(3)

        async with LocalEngine():
            job = await leave.enqueue()
            failures: list[JobFailed] = []

            async def wait() -> None:
                with pytest.raises(JobFailed, match="SystemExit: 3") as caught:
                    await job.result()

                failures.append(caught.value)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)

            assert failures[0].error_type == "SystemExit"
            assert isinstance(failures[0].__cause__, SystemExit)
            assert await (await double.enqueue(1)).result() == 2


class TestSchedules:
    @staticmethod
    @on_both_loops
    async def test_by_interval_and_crontab() -> None:
        """Scheduled tasks are enqueued when they are due."""
        clock = VirtualClock()
        seen: list[str] = []

        @task("every", schedule=10)
        async def every() -> None:
            seen.append("every")

        @task("cron", schedule="* * * * *", tz="UTC")
        async def cron() -> None:
            seen.append("cron")

        async with LocalEngine([every, cron], clock=clock) as engine:
            await clock.advance(61)
            following = {name: found.next_run_time for name, found in engine.statistics().items()}

        assert (seen.count("every"), seen.count("cron")) == (6, 1)
        assert [str(following[name])[14:19] for name in ("every", "cron")] == ["01:10", "02:00"]

    @staticmethod
    @on_both_loops
    async def test_the_claim_stands_for_the_job() -> None:
        """The claim of a scheduled job is kept until the job has ended, and goes back when it is dropped."""
        clock = VirtualClock()
        server = ClaimServer(clock)
        gate = anyio.Event()

        @task("nightly", schedule=3600)
        async def nightly() -> None:
            await gate.wait()

        async with LocalEngine([nightly], clock=clock, guard=LeaseClaims(server), drain_timeout=0):
            await clock.advance(3600 + 300)
            [(claim, end)] = server.runs.values()
            assert claim is not None
            assert end > clock.monotonic()

        assert "give_back" in server.requests
        gate.set()

        async with LocalEngine([nightly], clock=clock, guard=LeaseClaims(server)) as engine:
            await clock.advance(10)
            assert engine.statistics()["nightly"].succeeded == 1
            assert [claim for claim, _ in server.runs.values()] == [None]

    @staticmethod
    @on_both_loops
    async def test_two_processes_share_a_schedule() -> None:
        """With a guard each tick is enqueued once."""
        clock = VirtualClock()
        claimed: set[str] = set()

        class Guard:
            async def claim(self, run_id: str, ttl: float) -> bool:
                fresh = run_id not in claimed
                claimed.add(run_id)
                return fresh

        seen = 0

        @task("every", schedule=10)
        async def every() -> None:
            nonlocal seen
            seen += 1

        async with LocalEngine([every], clock=clock, guard=Guard()):
            await clock.advance(25)

        claimed_before = set(claimed)
        clock.step(-25)

        async with LocalEngine([every], clock=clock, guard=Guard()):
            await clock.advance(25)

        assert claimed == claimed_before
        assert seen == 2


def test_made_before_the_loop() -> None:
    """An engine may be made where no loop runs, such as in a module."""

    @task("made")
    async def made() -> int:
        return 1

    engine = LocalEngine([made])

    async def main() -> None:
        async with engine:
            assert await (await made.enqueue()).result(timeout=10) == 1

    anyio.run(main)
    assert list(engine.tasks) == ["made"]


class TestEnd:
    @staticmethod
    @on_both_loops
    async def test_drains() -> None:
        """Leaving the block finishes what is queued."""

        @task("slowly")
        async def slowly(number: int) -> int:
            await settle()
            return number

        async with LocalEngine(concurrency=2):
            jobs = [await slowly.enqueue(n) for n in range(6)]

        assert [await job.result() for job in jobs] == list(range(6))

    @staticmethod
    @on_both_loops
    async def test_cancels_what_takes_too_long() -> None:
        """After the deadline jobs are cancelled, and waiting for their results raises."""
        watcher = Watcher()

        @task("for ever")
        async def forever() -> None:
            await anyio.sleep_forever()

        async with LocalEngine(concurrency=1, drain_timeout=0, on_event=watcher.append):
            jobs = [await forever.enqueue() for _ in range(3)]
            await settle()

        for job in jobs:
            assert job.done

            with pytest.raises(JobCancelled, match="was cancelled before it ended"):
                await job.result()

        assert watcher.kinds() == ["cancelled"]

    @staticmethod
    @on_both_loops
    async def test_takes_no_more() -> None:
        """An enqueue that waits for room when the engine closes raises ClosedError."""
        refused: list[BaseException] = []

        @task("for ever")
        async def forever() -> None:
            await anyio.sleep_forever()

        async def more() -> None:
            try:
                await forever.enqueue()
            except ClosedError as error:
                refused.append(error)

        engine = LocalEngine(concurrency=1, max_queued=1, drain_timeout=0)

        async with anyio.create_task_group() as group, engine:
            await forever.enqueue()
            await forever.enqueue()
            group.start_soon(more)
            await settle()

        assert len(refused) == 1

    @staticmethod
    @on_both_loops
    async def test_one_per_loop() -> None:
        """A second engine in a loop is refused, and so are two tasks of one name."""

        @task("double")
        async def other() -> None:
            pass

        async with LocalEngine([double]) as engine:
            with pytest.raises(UsageError, match="one engine"):
                await LocalEngine().__aenter__()

            with pytest.raises(ScheduleError, match="two tasks are named 'double'"):
                engine.check(other)

        with pytest.raises(ScheduleError, match="rename one"):
            LocalEngine([double, other])

        assert isinstance(double, TaskDefinition)
