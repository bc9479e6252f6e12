"""Runs that were missed while no process was there, and the stores that know of them."""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from redis.asyncio import Redis

from tests.tasks._support import (
    START,
    Calls,
    ClaimServer,
    LeaseClaims,
    VirtualClock,
    Watcher,
    on_both_loops,
    settle,
)
from ws_core.errors import ConfigError
from ws_tasks import (
    CrontabTask,
    IntervalTask,
    LocalEngine,
    OnceTask,
    RunStore,
    ScheduleError,
    Scheduler,
    current_run,
    task,
)
from ws_tasks.stores import RedisRunStore, SqlRunStore
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker


class MemoryStore:
    """A store of last runs that outlives its schedulers."""

    def __init__(self) -> None:
        self.runs: dict[str, float] = {}
        self.fail: Exception | None = None

    async def last_run(self, task: str) -> float | None:
        """Return the last run."""
        if self.fail is not None:
            raise self.fail

        return self.runs.get(task)

    async def note_run(self, task: str, nominal: float) -> None:
        """Note a run."""
        if self.fail is not None:
            raise self.fail

        self.runs[task] = max(nominal, self.runs.get(task, 0.0))


class Sqlite:
    """What a pool of ws-pool is to a store, over the driver itself."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        weakref.finalize(self, self.connection.close)
        self.race: tuple[str, float] | None = None

    async def select(self, statement: str, /, **params: Any) -> list[Any]:
        """Return rows."""
        return self.connection.execute(statement, params).fetchall()

    async def execute(self, statement: str, /, **params: Any) -> None:
        """Run a statement."""
        if statement.startswith("INSERT") and self.race is not None:
            (task, nominal), self.race = self.race, None
            await self.execute(statement, task=task, nominal=nominal)

        self.connection.execute(statement, params)


def minutes(*numbers: float) -> list[float]:
    """Return the nominal times of a minutely task in seconds since the epoch."""
    return [START + 60 * number for number in numbers]


class Machine:
    """A process with one minutely task, again and again on one clock."""

    def __init__(self, store: Any, **options: Any) -> None:
        self.clock = VirtualClock()
        self.store = store
        self.options: Any = {"name": "job", "run_store": store, "catch_up": "latest", **options}
        self.calls = Calls(self.clock)
        self.watcher = Watcher()
        self.last: Any = None

    async def run(self, seconds: float, *, make: Any = None) -> list[float]:
        """Run for some time; return the nominal times of the runs."""
        before = len(self.calls.runs)

        async with Scheduler(clock=self.clock, drain_timeout=0, on_event=self.watcher.append) as scheduler:
            self.last = scheduler.add(
                make() if make is not None else CrontabTask("* * * * *", self.calls, tz="UTC", **self.options)
            )
            await self.clock.advance(seconds)
            await settle()

        return [run.scheduled_at.timestamp() for run in self.calls.runs[before:]]

    def down(self, seconds: float) -> None:
        """Let time pass without a process."""
        self.clock.stall(seconds)


class TestCatchUp:
    @staticmethod
    @on_both_loops
    async def test_the_latest() -> None:
        """The last of several missed runs is made, once, and what is passed over is counted."""
        machine = Machine(MemoryStore())
        assert await machine.run(130) == minutes(1, 2)
        machine.down(600)
        assert await machine.run(0) == minutes(12)
        assert machine.last.statistics().skipped["coalesced"] == 9
        assert await machine.run(0) == []  # it is noted
        [event] = [event for event in machine.watcher if event.kind == "caught_up"]
        assert event.detail.startswith("10 runs were missed")
        assert await machine.run(60) == minutes(13)

    @staticmethod
    @on_both_loops
    async def test_all() -> None:
        """Each missed run is made, the oldest first, beside those that are due."""
        machine = Machine(MemoryStore(), catch_up="all", overlap="queue")
        await machine.run(70)
        machine.down(300)
        assert await machine.run(60) == minutes(2, 3, 4, 5, 6, 7)

    @staticmethod
    @on_both_loops
    async def test_no_more_than_the_queue_holds() -> None:
        """Of very many missed runs the oldest are made, and the others are counted."""
        machine = Machine(MemoryStore(), catch_up="all", overlap="queue", max_queued=3)
        await machine.run(70)
        machine.down(600)
        assert await machine.run(0) == minutes(2, 3, 4)
        assert machine.last.statistics().skipped["coalesced"] == 7

    @staticmethod
    @on_both_loops
    async def test_the_first_start() -> None:
        """Nothing is missed before the first start, and everything after it is."""
        machine = Machine(MemoryStore())
        assert await machine.run(30) == []
        machine.down(120)
        assert await machine.run(0) == minutes(2)

    @staticmethod
    @on_both_loops
    async def test_too_late() -> None:
        """What is later than misfire_grace is not made up for, and counted."""
        machine = Machine(MemoryStore(), catch_up="all", overlap="queue", misfire_grace=100)
        await machine.run(70)
        machine.down(300)
        assert await machine.run(0) == minutes(5, 6)
        assert machine.last.statistics().skipped["late"] == 3

    @staticmethod
    @on_both_loops
    async def test_a_run_that_was_cut_off() -> None:
        """A run that a process did not end is made again by the next one; a failed one has ended."""
        machine = Machine(MemoryStore(), on_error=lambda *_: None)
        machine.calls.hold = anyio_event()
        assert await machine.run(70) == minutes(1)
        machine.calls.hold = None
        assert await machine.run(0) == minutes(1)
        machine.calls.fail = ValueError("no")
        assert await machine.run(60) == minutes(2)
        assert await machine.run(0) == []

    @staticmethod
    @on_both_loops
    async def test_intervals_and_dates() -> None:
        """Intervals have nominal times that outlive the process; a date has its run once, late if need be."""
        machine = Machine(MemoryStore())

        def interval() -> IntervalTask:
            return IntervalTask(60, machine.calls, **machine.options)

        def once() -> OnceTask:
            when = datetime.fromtimestamp(START + 900, UTC)
            return OnceTask(when, machine.calls, **{**machine.options, "name": "once"})

        assert await machine.run(70, make=interval) == minutes(1)
        machine.down(240)
        assert await machine.run(0, make=interval) == minutes(5)
        machine.down(1000)
        assert await machine.run(0, make=once) == [START + 900]
        assert await machine.run(0, make=once) == []

    @staticmethod
    @on_both_loops
    async def test_a_store_that_fails() -> None:
        """It is asked again, runs that are due do not wait for it, and what is not noted is reported."""
        store = MemoryStore()
        machine = Machine(store, retry_max_wait=5.0)
        await machine.run(70)
        machine.down(300)
        store.fail = OSError("away")

        async with Scheduler(clock=machine.clock, drain_timeout=0, on_event=machine.watcher.append) as s:
            task = s.add(CrontabTask("* * * * *", machine.calls, tz="UTC", **machine.options))
            await machine.clock.advance(57)
            assert machine.watcher.kinds().count("store_failed") >= 5
            assert [run.scheduled_at.timestamp() for run in machine.calls.runs[1:]] == minutes(7)
            await machine.clock.advance(20)
            assert any("is not noted" in event.detail for event in machine.watcher)
            store.fail = None
            await machine.clock.advance(10)
            assert task.statistics().started == 2

        assert [run.scheduled_at.timestamp() for run in machine.calls.runs[1:]] == minutes(7, 6)

    @staticmethod
    @on_both_loops
    async def test_a_newer_run_does_not_end_the_search() -> None:
        """With cancel_previous a run that is due waits for the search, and does not cancel it."""
        machine = Machine(MemoryStore(), overlap="cancel_previous")
        await machine.run(70)
        machine.down(110)

        async with Scheduler(clock=machine.clock, drain_timeout=0) as scheduler:
            task = scheduler.add(CrontabTask("* * * * *", machine.calls, tz="UTC", **machine.options))
            await task.run_now()

        assert machine.calls.runs[1].scheduled_at.timestamp() in {*minutes(3), START + 180}

    @staticmethod
    @on_both_loops
    async def test_one_of_n() -> None:
        """With a guard one process makes up for a missed run, and the other leaves it alone."""
        store, server = MemoryStore(), None
        machine = Machine(store)
        server = ClaimServer(machine.clock)
        machine.options["guard"] = LeaseClaims(server)
        await machine.run(70)
        machine.down(300)
        other = Calls(machine.clock)

        async with Scheduler(clock=machine.clock) as one, Scheduler(clock=machine.clock) as two:
            one.add(CrontabTask("* * * * *", machine.calls, tz="UTC", **machine.options))
            two.add(
                CrontabTask("* * * * *", other, tz="UTC", **{**machine.options, "guard": LeaseClaims(server)})
            )
            await settle()
            await machine.clock.advance(1)

        runs = [run.scheduled_at.timestamp() for run in (*machine.calls.runs, *other.runs)]
        assert runs == minutes(1, 6)

    def test_bad_input(self) -> None:
        """Options that need each other, a name or a date are refused without them."""
        store: RunStore = MemoryStore()

        for options, text in (
            ({"catch_up": "latest", "name": "x"}, "need each other"),
            ({"run_store": store, "name": "x"}, "need each other"),
            ({"catch_up": "some", "run_store": store, "name": "x"}, "catch_up='some'"),
            ({"catch_up": "all", "run_store": store, "name": "x"}, "overlap="),
            ({"catch_up": "latest", "run_store": store}, "needs a name"),
        ):
            with pytest.raises(ScheduleError, match=text):
                IntervalTask(60, print, **options)

        with pytest.raises(ScheduleError, match="needs a date"):
            OnceTask(60, print, name="x", catch_up="latest", run_store=store)


def anyio_event() -> Any:
    """Return an event that is never set."""
    import anyio

    return anyio.Event()


class TestEngines:
    @pytest.mark.parametrize(("catch_up", "made"), [("latest", 1), ("all", 3)])
    async def test_a_schedule(self, catch_up: Any, made: int) -> None:
        """Jobs of a schedule that was missed while no process was there are made at the next start."""
        clock, store = VirtualClock(), MemoryStore()
        seen: list[float] = []

        @task("bill", schedule="0 * * * *", catch_up=catch_up)
        async def bill() -> None:
            seen.append(clock.time())

        async with LocalEngine([bill], run_store=store, clock=clock):
            await settle()

        assert seen == []
        clock.stall(3 * 3600)

        async with LocalEngine([bill], run_store=store, clock=clock):
            await clock.advance(1)
            assert len(seen) == made

        async with LocalEngine([bill], run_store=store, clock=clock):
            await clock.advance(1)
            assert len(seen) == made

    async def test_between_processes(self, redis_url: str) -> None:
        """A job that was missed is enqueued for the workers, once."""
        seen: list[str] = []

        @task("tidy", schedule=3600, catch_up="latest")
        async def tidy() -> None:
            seen.append(current_run().name)

        async with Redis.from_url(redis_url) as client:
            store = RedisRunStore(client)
            await store.note_run("schedule of tidy", datetime.now(UTC).timestamp() - 10_000)

            for _ in range(2):
                broker = RedisStreamsBroker(redis_url, queue="jobs")

                async with TaskiqEngine([tidy], broker=broker, run_store=store) as engine, run_worker(engine):
                    async with asyncio.timeout(20):
                        while not seen:
                            await asyncio.sleep(0.01)

                    await asyncio.sleep(0.3)

        assert seen == ["tidy"]

    async def test_bad_input(self) -> None:
        """It needs a schedule, and an engine with a store."""
        for options in ({"catch_up": "latest"}, {"catch_up": "some", "schedule": 5}):
            with pytest.raises(ScheduleError, match="with a schedule"):
                task("x", **options)

        @task("x", schedule=5, catch_up="latest")
        async def x() -> None:
            pass

        with pytest.raises(ScheduleError, match="run_store"):
            LocalEngine([x])

        with pytest.raises(ScheduleError, match="run_store"):
            TaskiqEngine([x], broker=RedisStreamsBroker("redis://127.0.0.1:1/0"))


class TestStores:
    async def test_redis(self, any_redis_url: str) -> None:
        """The latest run of each task is kept."""
        async with Redis.from_url(any_redis_url) as client:
            await check_store(RedisRunStore(client, key="runs"))

    async def test_sql(self) -> None:
        """The same in a table, also when another process notes the first run at the same moment."""
        pool = Sqlite()
        store = SqlRunStore(pool, table="runs")
        await check_store(store)
        pool.race = ("raced", 5.0)
        await store.note_run("raced", 6.0)
        assert await store.last_run("raced") == 6.0

    async def test_a_failure(self) -> None:
        """An error of the database reaches the caller."""
        store = SqlRunStore(Sqlite())
        await store.last_run("x")

        with pytest.raises(sqlite3.Error):
            await store.note_run("x", None)  # type: ignore[arg-type]

        with pytest.raises(ConfigError, match="letters, digits"):
            SqlRunStore(Sqlite(), table="a; DROP TABLE b")


async def check_store(store: RunStore) -> None:
    """Note runs in any order."""
    assert await store.last_run("a") is None

    for nominal in (100.5, 300.25, 200.0):
        await store.note_run("a", nominal)

    await store.note_run("b", 1.0)
    assert [await store.last_run(task) for task in ("a", "b", "c")] == [300.25, 1.0, None]
