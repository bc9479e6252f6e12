"""Observers of locks: numbers and their metrics, callbacks, and observers of all locks."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from ws_core.inspection import published
from ws_core.metrics import collect
from ws_redislock import CountingObserver, MutexLock, sync
from ws_redislock.observe import HeldLocks, LockObserver, observe


@pytest.fixture
def everywhere() -> Iterator[Callable[[LockObserver], LockObserver]]:
    """Yield a function that lets an observer be notified of all locks until the test ends."""
    stops: list[Callable[[], None]] = []

    def begin(observer: LockObserver) -> LockObserver:
        stops.append(observe(observer))
        return observer

    yield begin

    for stop in stops:
        stop()
        stop()  # ending twice is harmless


class TestCountingObserver:
    """Plain numbers."""

    async def test_counts(self, redis: Redis):
        """Every event is counted, and waiting and holding are timed."""
        observer = CountingObserver()
        one = MutexLock(redis, "k", 60, observer=observer)
        two = MutexLock(redis, "k", 60, observer=observer)
        await one.acquire()
        assert not await two.acquire(0.5)
        await one.release()
        numbers = observer.statistics()
        assert (numbers.acquired, numbers.contended, numbers.not_acquired) == (1, 1, 1)
        assert (numbers.released, numbers.lost) == (1, 0)
        assert numbers.wait_seconds >= 0.01
        assert numbers.hold_seconds > 0

    def test_counts_threads(self):
        """No event is missed when threads are notified at the same time."""
        observer = CountingObserver()

        def work(_number: int) -> None:
            for _ in range(500):
                observer.acquired("k", 0.5)
                observer.released("k", 0.25)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))

        numbers = observer.statistics()
        assert (numbers.acquired, numbers.released) == (4000, 4000)
        assert (numbers.wait_seconds, numbers.hold_seconds) == (2000.0, 1000.0)

    def test_metrics(self):
        """Its numbers are those of the process, by the names of the table, for as long as it lives."""
        before = {found.metric.name: found.value for found in collect()}
        observer = CountingObserver()
        observer.contended("k")
        observer.acquired("k", 0.25)
        observer.not_acquired("k", 1.0)
        observer.released("k", 2.0)
        observer.lost("k", "gone")
        found = {
            found.metric.name: found.value - before.get(found.metric.name, 0.0)
            for found in collect()
            if found.metric.name.startswith("wintersweet.lock.")
        }
        assert found == {
            "wintersweet.lock.wait": 0.25,
            "wintersweet.lock.hold": 2.0,
            "wintersweet.lock.contended": 1,
            "wintersweet.lock.not_acquired": 1,
            "wintersweet.lock.lost": 1,
        }
        assert {sample.attributes for sample in observer.statistics().samples()} == {()}
        del observer
        gc.collect()
        assert sum(
            found.value for found in collect() if found.metric.name == "wintersweet.lock.lost"
        ) == before.get("wintersweet.lock.lost", 0.0)


class TestObserve:
    """An observer of all locks."""

    async def test_of_tasks_and_threads(
        self, redis7: Redis, client: BlockingRedis, everywhere: Callable[[LockObserver], LockObserver]
    ):
        """It is notified of locks that know nothing of it, beside their own observer."""
        all_of_them, own = CountingObserver(), CountingObserver()
        everywhere(all_of_them)

        async with MutexLock(redis7, "k", 60).hold(), MutexLock(redis7, "l", 60, observer=own).hold():
            assert not await MutexLock(redis7, "k", 60).acquire()

        def work() -> None:
            with sync.MutexLock(client, "k", 60).hold():
                pass

        await asyncio.to_thread(work)
        numbers = all_of_them.statistics()
        assert (numbers.acquired, numbers.not_acquired, numbers.released) == (3, 1, 3)
        assert own.statistics().acquired == 1

    async def test_is_notified_once(self, redis7: Redis, everywhere: Callable[[LockObserver], LockObserver]):
        """One that is a lock's own as well is notified once of its events."""
        observer = CountingObserver()
        everywhere(observer)

        async with MutexLock(redis7, "k", 60, observer=observer).hold():
            pass

        assert observer.statistics().acquired == 1

    async def test_ends(self, redis7: Redis):
        """Afterwards it is notified no more."""
        observer = CountingObserver()
        observe(observer)()

        async with MutexLock(redis7, "k", 60).hold():
            pass

        assert observer.statistics().acquired == 0

    async def test_one_that_fails(
        self,
        redis7: Redis,
        everywhere: Callable[[LockObserver], LockObserver],
        caplog: pytest.LogCaptureFixture,
    ):
        """What it raises is logged; the others are notified, and the lock is held."""

        class Failing(CountingObserver):
            def acquired(self, name: str, waited: float) -> None:
                raise ZeroDivisionError

        everywhere(Failing())
        other = CountingObserver()
        everywhere(other)

        with caplog.at_level(logging.ERROR, logger="ws_redislock"):
            async with MutexLock(redis7, "k", 60).hold():
                pass

        assert other.statistics().acquired == 1
        assert "observer" in caplog.text


class TestCallback:
    """`on_lost`."""

    async def test_a_failing_callback_harms_nobody(self, redis: Redis, caplog: pytest.LogCaptureFixture):
        """What an on_lost callback raises is logged; a coroutine function runs in a task."""
        seen = asyncio.Event()

        async def slow(_held: object) -> None:
            seen.set()
            raise ZeroDivisionError

        def quick(_held: object) -> None:
            raise ZeroDivisionError

        for callback in (slow, quick):
            lock = MutexLock(redis, callback.__name__, 60, on_lost=callback)
            await lock.acquire()
            lock.current()._lose("for the test")
            await lock.aclose()

        await seen.wait()
        await asyncio.sleep(0)
        assert [record.levelname for record in caplog.records].count("ERROR") == 2


class TestHeld:
    """Which locks a process holds, for whoever inspects it."""

    def test_until_they_are_released_or_lost(self) -> None:
        """Each holder of a semaphore counts; an end without a beginning does nothing."""
        held = HeldLocks()

        for name in ("stock", "slots", "slots", "orders"):
            held.acquired(name, 0.0)

        held.released("slots", 0.1)
        held.lost("orders", "expired")
        held.released("never", 0.1)
        assert sorted(str(row["name"]) for row in held.inspect()) == ["slots", "stock"]
        assert all(isinstance(row["seconds"], float) for row in held.inspect())
        assert held in published("locks")
        assert held.statistics().acquired == 4
