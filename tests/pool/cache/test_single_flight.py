"""Equal calls at the same time are one: failures, cancellation, recursion."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from tests.pool.cache._support import Runs, turns
from ws_pool._cache.single_flight import Flight, Flights
from ws_pool.cache import ShareCache


class TestSingleFlight:
    async def test_concurrent_calls_run_once(self, make: Callable[..., ShareCache]) -> None:
        """A hundred callers get the result of one run."""
        runs = Runs()
        runs.gate = asyncio.Event()
        cache = make("s1")

        @cache
        async def f() -> Any:
            return await runs.run()

        tasks = [asyncio.create_task(f()) for _ in range(100)]
        await runs.begun.wait()
        await turns()
        runs.gate.set()
        results = await asyncio.gather(*tasks)
        assert runs.count == 1
        assert all(result == {"n": 1, "value": None} for result in results)
        assert cache.statistics().shared == 99

    async def test_without_flights_they_run_often(self) -> None:
        """The same load on a cache without single flight runs more than once: the test above can fail."""
        runs = Runs()
        runs.gate = asyncio.Event()
        found: dict[str, Any] = {}

        async def f() -> Any:
            if "k" not in found:
                found["k"] = await runs.run()

            return found["k"]

        tasks = [asyncio.create_task(f()) for _ in range(100)]
        await turns()
        runs.gate.set()
        await asyncio.gather(*tasks)
        assert runs.count == 100

    async def test_a_failure_reaches_all(self, make: Callable[..., ShareCache]) -> None:
        """All who wait get the exception, and the next call runs anew."""
        runs = Runs()
        runs.gate = asyncio.Event()
        runs.fail = ZeroDivisionError("no")

        @make("s2")
        async def f() -> Any:
            return await runs.run()

        tasks = [asyncio.create_task(f()) for _ in range(10)]
        await runs.begun.wait()
        await turns()
        runs.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ZeroDivisionError] * 10
        assert runs.count == 1
        runs.fail = None
        assert (await f())["n"] == 2

    async def test_the_leader_is_cancelled(self, make: Callable[..., ShareCache]) -> None:
        """When the one who runs it is cancelled, one of those who wait runs it: nobody hangs."""
        runs = Runs()
        runs.gate = asyncio.Event()

        @make("s3")
        async def f() -> Any:
            return await runs.run()

        leader = asyncio.create_task(f())
        await runs.begun.wait()
        runs.begun.clear()
        followers = [asyncio.create_task(f()) for _ in range(10)]
        await turns()
        leader.cancel()
        await runs.begun.wait()
        await turns()
        runs.gate.set()
        results = await asyncio.gather(*followers)
        assert leader.cancelled()
        assert [result["n"] for result in results] == [2] * 10

    async def test_a_follower_is_cancelled(self, make: Callable[..., ShareCache]) -> None:
        """A cancelled follower harms nobody else."""
        runs = Runs()
        runs.gate = asyncio.Event()

        @make("s4")
        async def f() -> Any:
            return await runs.run()

        leader, follower = asyncio.create_task(f()), asyncio.create_task(f())
        await runs.begun.wait()
        await turns()
        follower.cancel()
        await turns()
        runs.gate.set()
        assert (await leader)["n"] == 1
        assert follower.cancelled()

    async def test_everybody_is_cancelled_at_random(self) -> None:
        """Whatever is cancelled when, nobody hangs, and who is left gets a result."""
        import random

        rng = random.Random(7)

        for _ in range(300):
            cache = ShareCache("s5", ttl=1e-6, jitter=0)

            @cache
            async def f() -> int:
                for _ in range(rng.randrange(5)):
                    await asyncio.sleep(0)

                return 1

            tasks = [asyncio.create_task(f()) for _ in range(8)]

            for task in rng.sample(tasks, rng.randrange(8)):
                await turns(rng.randrange(4))
                task.cancel()

            async with asyncio.timeout(10):
                results = await asyncio.gather(*tasks, return_exceptions=True)

            assert all(result == 1 or isinstance(result, asyncio.CancelledError) for result in results)
            assert cache._flights._flights == {}

    async def test_recursion(self, make: Callable[..., ShareCache]) -> None:
        """A function that calls itself with the same arguments does not wait for itself."""
        depth = 0

        @make("s6")
        async def f() -> int:
            nonlocal depth
            depth += 1
            return 1 if depth == 3 else 1 + await f()

        assert await f() == 3

    async def test_other_loops_have_flights_of_their_own(self) -> None:
        """A call in flight in one loop is not waited for in another."""
        flights = Flights()
        entered, release = threading.Event(), threading.Event()

        async def slow(_: Flight) -> str:
            entered.set()
            await asyncio.to_thread(release.wait)
            return "slow"

        async def fast(_: Flight) -> str:
            return "fast"

        thread = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(flights.run("k", slow))))
        await asyncio.to_thread(entered.wait)
        assert await flights.run("k", fast) == "fast"
        release.set()
        assert await thread == "slow"


def test_no_values_in_a_diagnosed_traceback() -> None:
    """A log that shows variables does not have what a function has returned."""
    assert "hunter2" not in repr(Flight(None, state="value", value="hunter2"))
