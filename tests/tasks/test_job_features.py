"""Jobs on both engines alike: priorities, delays, cancellation, states, chains, groups, context."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from tests.tasks._jobs import Gate, tasks_of
from ws_core import context
from ws_core.errors import UsageError
from ws_tasks import (
    JobCancelled,
    JobFailed,
    LocalEngine,
    Run,
    ScheduleError,
    TaskDefinition,
    current_run,
    group,
    task,
)
from ws_tasks.observe import observe
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

Open = Callable[..., Any]
request_id: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def as_request(value: str) -> Iterator[None]:
    """Be part of a request."""
    token = request_id.set(value)

    try:
        yield
    finally:
        request_id.reset(token)


context.carry("x-test-id", request_id.get, as_request)


@pytest.fixture(params=["local", "taskiq"])
def engine(request: pytest.FixtureRequest, redis_url: str) -> Open:
    """Open an engine of either kind, with a worker beside it."""

    @asynccontextmanager
    async def open_engine(*tasks: TaskDefinition[Any, Any], concurrency: int = 4) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            if request.param == "local":
                yield await stack.enter_async_context(LocalEngine(tasks, concurrency=concurrency))
                return

            broker = RedisStreamsBroker(redis_url, queue="jobs", lease=1.0, concurrency=concurrency)
            found = await stack.enter_async_context(TaskiqEngine(tasks, broker=broker))
            await stack.enter_async_context(run_worker(found, drain_timeout=5))
            yield found

    return open_engine


@pytest.fixture
async def gate() -> Gate:
    """Make a gate in the test's loop."""
    return Gate()


class TestPriorities:
    async def test_higher_ones_come_first(self, engine: Open, gate: Gate) -> None:
        """While the only place is taken, jobs queue up; then they come by priority, then by age."""

        def make(name: Any) -> TaskDefinition[Any, Any]:
            @task(name, priority=name)
            async def noted(number: int) -> None:
                gate.seen.append(f"{name}{number}")

            return noted

        blocked, _ = tasks_of(gate)
        low, normal, high = make("low"), make("normal"), make("high")

        async with engine(blocked, low, normal, high, concurrency=1):
            await blocked.enqueue()
            await gate.until(lambda: gate.seen == ["blocked"])
            jobs = [await kind.enqueue(number) for number in (1, 2) for kind in (low, normal, high)]
            gate.open.set()

            for job in jobs:
                await job.result(timeout=20)

        assert gate.seen == ["blocked", "high1", "high2", "normal1", "normal2", "low1", "low2"]

    def test_bad_input(self) -> None:
        """Options that are wrong are refused where the task is declared."""
        for options in ({"priority": "urgent"}, {"unique": "x"}, {"result_ttl": 0}, {"retry_on": 3}):
            with pytest.raises(ScheduleError, match=next(iter(options))):
                task("x", **options)


class TestUnique:
    async def test_the_same_arguments_are_one_job(self, engine: Open, gate: Gate) -> None:
        """A second call is the first one's job, until that has ended; other arguments are another job."""

        @task("sync", unique=True)
        async def sync(user: int) -> int:
            gate.seen.append(user)
            await gate.open.wait()
            return user

        async with engine(sync):
            jobs = [await sync.enqueue(user) for user in (1, 1, 2, 1)]
            assert len({job.id for job in jobs}) == 2
            await gate.until(lambda: len(gate.seen) == 2)
            assert (await sync.enqueue(1)).id == jobs[0].id
            gate.open.set()
            assert [await job.result(timeout=20) for job in jobs] == [1, 1, 2, 1]

            async with asyncio.timeout(20):  # it is free when the message is acknowledged
                while (again := await sync.enqueue(1)).id == jobs[0].id:
                    await asyncio.sleep(0.05)

            assert await again.result(timeout=20) == 1

        assert sorted(map(str, gate.seen)) == ["1", "1", "2"]

    async def test_a_key_of_its_own(self, engine: Open, gate: Gate) -> None:
        """A function of the arguments says what must not be twice; a cancelled job makes room at once."""

        @task("sync", unique=lambda user, **_: f"user {user}")
        async def sync(user: int, full: bool = False) -> int:
            gate.seen.append((user, full))
            return user

        async with engine(sync):
            first = await sync.enqueue_in(60, 1)
            assert (await sync.enqueue(1, full=True)).id == first.id
            assert await first.cancel()
            second = await sync.enqueue(1, full=True)
            assert second.id != first.id
            assert await second.result(timeout=20) == 1

        assert gate.seen == [(1, True)]

    async def test_no_step_of_a_chain(self, gate: Gate) -> None:
        """A unique task is refused in a chain, where its job might be another's."""
        _, note = tasks_of(gate, unique=True)

        with pytest.raises(UsageError, match="cannot be a step"):
            note.bind(1).then(note)


class TestDelays:
    async def test_later(self, engine: Open, gate: Gate) -> None:
        """A job is held back for seconds or until a moment; a moment that has passed is now."""
        _, note = tasks_of(gate)

        async with engine(note):
            began = time.monotonic()
            later = await note.enqueue_in(0.6, 1)
            moment = await note.enqueue_at(datetime.now(UTC) + timedelta(seconds=0.5), 2)
            past = await note.enqueue_at(datetime(2020, 1, 1, tzinfo=UTC), 3)
            assert await later.status() == "delayed"
            assert await past.result(timeout=20) == 3
            assert await moment.result(timeout=20) == 2
            assert time.monotonic() - began >= 0.45
            assert await later.result(timeout=20) == 1
            assert time.monotonic() - began >= 0.6

            with pytest.raises(ScheduleError, match="time zone"):
                await note.enqueue_at(datetime(2030, 1, 1), 1)  # noqa: DTZ001 - what is refused

            with pytest.raises(ScheduleError, match="seconds"):
                await note.enqueue_in(-1, 1)

        assert gate.seen == [3, 2, 1]

    async def test_an_end_before_it_is_due(self, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
        """A local engine that ends cancels what is not due yet, and says so."""
        _, note = tasks_of(gate)

        async with LocalEngine():
            job = await note.enqueue_in(60, 1)

        with pytest.raises(JobCancelled):
            await job.result()

        assert "before 1 delayed jobs are due, of: note" in caplog.text
        assert gate.seen == []


class TestCancel:
    async def test_before_it_begins(self, engine: Open, gate: Gate) -> None:
        """A queued and a delayed job never begin; waiting for them raises."""
        blocked, note = tasks_of(gate)

        async with engine(blocked, note, concurrency=1):
            first = await blocked.enqueue()
            await gate.until(lambda: gate.seen == ["blocked"])
            jobs = [await note.enqueue(1), await note.enqueue_in(0.3, 2)]
            assert [await job.cancel() for job in jobs] == [True, True]
            assert [await job.status() for job in jobs] == ["cancelled", "cancelled"]

            for job in jobs:
                with pytest.raises(JobCancelled):
                    await job.result(timeout=20)

            gate.open.set()
            assert await first.result(timeout=20) == "opened"
            await asyncio.sleep(0.5)
            assert not await first.cancel()
            assert await first.result(timeout=20) == "opened"

        assert gate.seen == ["blocked"]

    async def test_while_it_runs(self, engine: Open, gate: Gate) -> None:
        """A coroutine is interrupted, and makes room for the next job."""
        blocked, note = tasks_of(gate)

        async with engine(blocked, note, concurrency=1) as found:
            job = await blocked.enqueue()
            await gate.until(lambda: gate.seen == ["blocked"])
            assert await job.status() == "running"
            assert await job.cancel()
            assert await job.status() == "cancelled"

            with pytest.raises(JobCancelled):
                await job.result(timeout=20)

            assert await (await note.enqueue(1)).result(timeout=20) == 1
            assert found.statistics()["blocked"].cancelled == 1

        assert gate.seen == ["blocked", "interrupted", 1]

    async def test_a_thread_goes_on(self, engine: Open, gate: Gate) -> None:
        """A function in a thread cannot be interrupted: its result is dropped."""

        @task("thread")
        def plain() -> int:
            gate.seen.append("begun")
            gate.threads.wait(20)
            gate.seen.append("ended")
            return 1

        async with engine(plain):
            job = await plain.enqueue()
            await gate.until(lambda: gate.seen == ["begun"])
            assert await job.cancel()
            gate.threads.set()
            await gate.until(lambda: "ended" in gate.seen)

            with pytest.raises(JobCancelled):
                await job.result(timeout=20)

    async def test_by_itself(self, gate: Gate) -> None:
        """A job that cancels itself does not wait for its own end."""
        jobs: list[Any] = []

        @task("self")
        async def own() -> None:
            gate.seen.append(await jobs[0].cancel())
            await asyncio.sleep(0)
            gate.seen.append("not reached")

        async with LocalEngine():
            jobs.append(await own.enqueue())

            with pytest.raises(JobCancelled):
                await jobs[0].result(timeout=20)

        assert gate.seen == [True]


class TestStates:
    async def test_from_beginning_to_end(self, engine: Open, gate: Gate) -> None:
        """A job is queued, runs, and has succeeded or failed."""
        blocked, note = tasks_of(gate)

        @task("fails", retries=5, retry_on=OSError)
        async def fails() -> None:
            gate.seen.append(current_run().attempt)
            raise ValueError("no")

        async with engine(blocked, note, fails, concurrency=1) as found:
            job = await blocked.enqueue()
            await gate.until(lambda: gate.seen == ["blocked"])
            later, broken = await note.enqueue(1), await fails.enqueue()
            assert [await one.status() for one in (job, later)] == ["running", "queued"]
            gate.open.set()
            assert await later.result(timeout=20) == 1

            with pytest.raises((ValueError, JobFailed), match="no"):
                await broken.result(timeout=20)

            assert [await one.status() for one in (job, later, broken)] == ["succeeded"] * 2 + ["failed"]
            statistics = found.statistics()
            assert (statistics["note"].succeeded, statistics["fails"].failed) == (1, 1)

        assert gate.seen == ["blocked", 1, 1]  # a ValueError is not worth a retry


class TestChains:
    async def test_each_result_is_the_next_argument(self, engine: Open, gate: Gate) -> None:
        """Steps follow each other, with further arguments; a call may be enqueued again."""
        _, note = tasks_of(gate)

        async with engine(note):
            chain = note.bind(1, plus=1).then(note, 10).then(note, plus=100)
            assert repr(chain) == "<Call of note → note → note>"
            first, second = await chain.enqueue(), await chain.enqueue_in(0.1)
            assert [await job.result(timeout=20) for job in (first, second)] == [112, 112]
            assert await first.status() == "succeeded"

        assert sorted(map(str, gate.seen)) == ["1", "1", "12", "12", "2", "2"]

    async def test_a_step_that_fails_is_the_end(self, engine: Open, gate: Gate) -> None:
        """No later step is made, and the chain has the error of the one that failed."""
        _, note = tasks_of(gate)

        @task("fails")
        async def fails(value: int) -> int:
            raise ValueError(f"no {value}")

        async with engine(note, fails):
            job = await note.bind(1).then(fails).then(note).then(note).enqueue()

            with pytest.raises((ValueError, JobFailed), match="no 1"):
                await job.result(timeout=20)

            assert await job.status() == "failed"

        assert gate.seen == [1]

    async def test_a_chain_is_cancelled(self, engine: Open, gate: Gate) -> None:
        """The step that runs is interrupted, and no later one is made; nor the first, when it waits."""
        blocked, note = tasks_of(gate)

        @task("after")
        async def after(value: str) -> None:
            gate.seen.append(value)

        async with engine(blocked, note, after, concurrency=1):
            running = await blocked.bind().then(after).enqueue()
            await gate.until(lambda: gate.seen == ["blocked"])
            queued = await note.bind(1).then(note).enqueue()
            assert await running.status() == "waiting"
            assert await queued.cancel()
            assert await running.cancel()

            for job in (running, queued):
                with pytest.raises(JobCancelled):
                    await job.result(timeout=20)

                assert await job.status() == "cancelled"

            await gate.until(lambda: "interrupted" in gate.seen)
            assert await (await note.enqueue(7)).result(timeout=20) == 7

        assert gate.seen == ["blocked", "interrupted", 7]

    def test_arguments_are_checked(self, gate: Gate) -> None:
        """A step whose arguments do not fit is refused when the chain is made."""
        _, note = tasks_of(gate)

        with pytest.raises(TypeError):
            note.bind(1).then(note, 1, 2, 3)

        with pytest.raises(UsageError, match="'plus'"):
            note.bind(1).then(note, plus=object())


class TestGroups:
    async def test_results_in_order(self, engine: Open, gate: Gate) -> None:
        """A group has the results of its calls in their order, and their states."""
        blocked, note = tasks_of(gate)

        async with engine(blocked, note):
            jobs = await group(*(note.bind(number, plus=1) for number in range(20))).enqueue()
            assert await jobs.result(timeout=20) == list(range(1, 21))
            assert jobs.done
            assert await jobs.status() == ["succeeded"] * 20
            assert await jobs.cancel() == 0
            others = await group(blocked.bind(), blocked.bind()).enqueue()
            assert await others.cancel() == 2

            with pytest.raises(UsageError, match="waits for its result"):
                group(note.bind(1)).then(note)

    async def test_a_group_is_enqueued_as_a_whole(self, engine: Open, gate: Gate) -> None:
        """When one of its calls is refused, those before it are cancelled."""
        blocked, _ = tasks_of(gate)

        @task("blocked")
        async def other() -> None:
            pass

        async with engine(blocked):
            with pytest.raises(ScheduleError):
                await group(blocked.bind(), other.bind()).enqueue()

            await asyncio.sleep(0.3)
            gate.open.set()

        assert gate.seen in ([], ["blocked", "interrupted"])


class TestJobsOfJobs:
    async def test_a_job_enqueues_and_waits(self, engine: Open, gate: Gate) -> None:
        """Jobs may enqueue others and wait for them, in a worker too."""
        _, note = tasks_of(gate)

        @task("parent")
        async def parent() -> int:
            return sum([await (await note.enqueue(number)).result(timeout=20) for number in (1, 2)])

        async with engine(note, parent, concurrency=2):
            assert await (await parent.enqueue()).result(timeout=20) == 3


class Recorder:
    """An observer that lets a mark travel."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    @contextmanager
    def enqueuing(self, task: str, headers: dict[str, str]) -> Iterator[None]:
        """Add the mark."""
        headers["mark"] = f"of {task}"
        yield

    @contextmanager
    def running(self, run: Run, headers: Any) -> Iterator[None]:
        """Note the mark, and the error."""
        try:
            yield
        except Exception as error:
            self.seen.append((run.name, headers.get("mark"), str(error)))
            raise
        else:
            self.seen.append((run.name, headers.get("mark"), None))


class TestContext:
    async def test_travels_with_jobs(self, engine: Open, gate: Gate) -> None:
        """What belongs to a request is there in its jobs, in threads and later steps of a chain too."""

        @task("coroutine")
        async def coroutine(value: str = "") -> str:
            return f"{value}{request_id.get()}/"

        @task("thread")
        def thread(value: str = "") -> str:
            return f"{value}{request_id.get()}/"

        async with engine(coroutine, thread):
            request_id.set("r-1")
            chain = await coroutine.bind().then(thread).then(coroutine).enqueue()
            request_id.set("")
            other = await thread.enqueue()
            assert await chain.result(timeout=20) == "r-1/r-1/r-1/"
            assert await other.result(timeout=20) == "/"

    async def test_observers(self, engine: Open, caplog: pytest.LogCaptureFixture) -> None:
        """An observer is notified of jobs and runs with their errors; one that fails harms no job."""

        @task("good")
        async def good() -> int:
            return 1

        @task("bad")
        async def bad() -> None:
            raise ValueError("no")

        class Broken:
            def enqueuing(self, task: str, headers: dict[str, str]) -> Any:
                raise RuntimeError("broken observer")

            @contextmanager
            def running(self, run: Run, headers: Any) -> Iterator[None]:
                try:
                    yield
                finally:
                    raise RuntimeError("broken observer")

        recorder = Recorder()
        stops = [observe(recorder), observe(Broken())]

        try:
            async with engine(good, bad):
                assert await (await good.enqueue()).result(timeout=20) == 1

                with pytest.raises((ValueError, JobFailed), match="no"):
                    await (await bad.enqueue()).result(timeout=20)
        finally:
            for stop in stops:
                stop()
                stop()

        assert recorder.seen == [("good", "of good", None), ("bad", "of bad", "no")]
        assert "broken observer" in caplog.text
