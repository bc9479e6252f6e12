"""Caches: single flight, what is kept and for how long, invalidation, sharing through Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from ws_pool._cache._flight import Flights
from ws_pool._cache._keys import KeyMaker, shorten
from ws_pool._cache._stores import resolve_redis
from ws_pool.cache import CacheWrap, LRUCache, ShareCache
from ws_pool.errors import ConfigError, UsageError


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Runs:
    """Counts runs of a function; each can be held until released, or made to fail."""

    def __init__(self) -> None:
        self.count = 0
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.fail: BaseException | None = None
        self.value: Any = None  # a test's own

    async def run(self, value: Any = None) -> Any:
        """Run once."""
        self.count += 1
        self.begun.set()

        if self.gate is not None:
            await self.gate.wait()

        if self.fail is not None:
            raise self.fail

        return {"n": self.count, "value": value} if self.value is None else self.value


@pytest.fixture(params=["local", "bytes", "text"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., ShareCache]]:
    """Make caches that keep results in this process, or on Redis with replies as bytes or text."""
    if request.param == "local":
        yield ShareCache
        return

    url = request.getfixturevalue("redis_url")

    async with Redis.from_url(url, decode_responses=request.param == "text") as client:
        yield lambda *args, **options: ShareCache(*args, redis=client, **options)


async def turns(count: int = 20) -> None:
    """Let the others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestResults:
    async def test_equal_calls_run_once(self, make: Callable[..., ShareCache]) -> None:
        """A second call with equal arguments is answered from the cache."""
        runs = Runs()
        cache = make("t1")

        @cache
        async def f(a: int, b: int = 2, *, c: int = 3) -> Any:
            return await runs.run((a, b, c))

        first = await f(1)
        assert await f(1, 2) == await f(a=1, c=3) == first
        assert runs.count == 1
        await f(2)
        assert runs.count == 2
        statistics = cache.statistics()
        assert (statistics.hits, statistics.misses) == (2, 2)

    @pytest.mark.parametrize("value", [0, "", [], {}, False, None])
    async def test_falsy_results_are_results(self, make: Callable[..., ShareCache], value: object) -> None:
        """Nothing false about them: they are kept like others."""
        count = 0

        @make("t2")
        async def f() -> object:
            nonlocal count
            count += 1
            return value

        assert await f() == await f() == value
        assert count == 1

    async def test_none_is_kept_only_if_told(self, make: Callable[..., ShareCache]) -> None:
        """With cache_none=False None is not kept, but other falsy results are."""
        results: list[Any] = [None, 0, 1]

        @make("t3", cache_none=False)
        async def f() -> Any:
            return results.pop(0)

        assert [await f(), await f(), await f()] == [None, 0, 0]

    async def test_names_of_functions_are_kept(self, make: Callable[..., ShareCache]) -> None:
        """The cached function looks like the function."""

        @make("t4")
        async def f() -> None:
            """Do it."""

        assert (f.__name__, f.__doc__) == ("f", "Do it.")  # type: ignore[attr-defined]
        assert asyncio.iscoroutinefunction(f)

    async def test_methods(self, make: Callable[..., ShareCache]) -> None:
        """A method is cached by a key of its own making."""

        class Shop:
            def __init__(self, name: str) -> None:
                self.name = name

            @make("t5", key=lambda self, item: f"{self.name}/{item}")
            async def price(self, item: str) -> str:
                return f"{self.name} {item}"

        assert await Shop("a").price("x") == "a x"  # type: ignore[call-arg, arg-type]
        assert await Shop("b").price("x") == "b x"  # type: ignore[call-arg, arg-type]

    async def test_long_arguments(self, make: Callable[..., ShareCache]) -> None:
        """Long keys are told apart by a digest."""
        runs = Runs()

        @make("t6")
        async def f(text: str) -> Any:
            return await runs.run()

        for _ in range(2):
            await f("x" * 10_000 + "a")
            await f("x" * 10_000 + "b")

        assert runs.count == 2


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
        """A call under way in one loop is not waited for in another."""
        flights = Flights()
        entered, release = threading.Event(), threading.Event()

        async def slow() -> str:
            entered.set()
            await asyncio.to_thread(release.wait)
            return "slow"

        async def fast() -> str:
            return "fast"

        thread = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(flights.run("k", slow))))
        await asyncio.to_thread(entered.wait)
        assert await flights.run("k", fast) == "fast"
        release.set()
        assert await thread == "slow"


class TestTime:
    async def test_ttl_with_jitter(self) -> None:
        """A result lives between (1 - jitter)·ttl and ttl."""
        clock, runs = Clock(), Runs()

        @ShareCache("e1", ttl=100, jitter=0.2, clock=clock)
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 79.9
        await f()
        assert runs.count == 1
        clock.now += 20.2
        await f()
        assert runs.count == 2

    async def test_redis_forgets(self, redis_url: str) -> None:
        """Every key in Redis that holds a value has a time to live."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("e2", ttl=100, jitter=0, stale=50, redis=client)
            async def f() -> int:
                return 1

            await f()
            await f.invalidate()
            await f.refresh()
            [key] = [key async for key in client.scan_iter("*:k:*")]
            assert 149 <= await client.ttl(key) <= 150

    async def test_stale_while_revalidate(self, make: Callable[..., ShareCache]) -> None:
        """After its time the old result is given while one run makes a new one."""
        clock, runs = Clock(), Runs()
        cache = make("e3", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        assert (await f())["n"] == 1
        clock.now += 120
        runs.gate = asyncio.Event()
        assert [(await f())["n"] for _ in range(3)] == [1, 1, 1]
        await asyncio.wait_for(runs.begun.wait(), 5)
        runs.gate.set()
        await cache.drain()
        assert (await f())["n"] == 2
        assert (runs.count, cache.statistics().refreshes) == (2, 1)

    async def test_a_failed_renewal_keeps_the_old(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error while renewing is logged; the old result stays as long as it may."""
        clock, runs = Clock(), Runs()
        cache = ShareCache("e4", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 120
        runs.fail = ValueError("no")
        assert (await f())["n"] == 1
        await cache.drain()
        assert "could not be renewed" in caplog.text
        clock.now += 40

        with pytest.raises(ValueError, match="no"):
            await f()

    async def test_expiry_while_renewing(self) -> None:
        """When the old result ends while a new one is made, that one is waited for."""
        clock, runs = Clock(), Runs()
        cache = ShareCache("e5", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 120
        runs.gate = asyncio.Event()
        await f()
        await turns()
        clock.now += 100
        late = asyncio.create_task(f())
        await turns()
        runs.gate.set()
        assert (await late)["n"] == 2
        assert runs.count == 2

    async def test_early_renewal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shortly before the end, by chance and by cost, a result is renewed in the background."""
        clock, runs = Clock(), Runs()
        monkeypatch.setattr("ws_pool._cache._share.time.perf_counter", clock)
        cache = ShareCache("e6", ttl=100, jitter=0, early=1, clock=clock)

        @cache
        async def f() -> Any:
            clock.now += 10
            return await runs.run()

        await f()
        monkeypatch.setattr("ws_pool._cache._share.random.random", lambda: 0.99)
        clock.now += 50
        assert (await f())["n"] == 1
        await cache.drain()
        assert runs.count == 1, "46 s before its time at the most"
        clock.now += 10
        assert (await f())["n"] == 1
        await cache.drain()
        assert runs.count == 2


class TestInvalidation:
    async def test_by_key(self, make: Callable[..., ShareCache]) -> None:
        """Only the call that is named is forgotten."""
        runs = Runs()

        @make("i1")
        async def f(n: int) -> Any:
            return await runs.run(n)

        await f(1)
        await f(2)
        await f.invalidate(n=1)
        await f(2)
        assert runs.count == 2
        assert (await f(1))["n"] == 3
        assert (await f(1))["n"] == 3

    async def test_by_tag(self, make: Callable[..., ShareCache]) -> None:
        """All functions with the tag forget, others do not."""
        runs = Runs()
        one, other = make("i2"), make("i3")

        @one
        async def f() -> Any:
            return await runs.run()

        @make("i2")
        async def g() -> Any:
            return await runs.run()

        @other
        async def h() -> Any:
            return await runs.run()

        for function in (f, g, h):
            await function()

        await one.invalidate()

        for function in (f, g, h):
            await function()

        assert runs.count == 5

    @pytest.mark.parametrize("by_tag", [False, True])
    async def test_while_it_is_computed(self, make: Callable[..., ShareCache], *, by_tag: bool) -> None:
        """What was read before an invalidation is never stored after it."""
        runs = Runs()
        runs.gate = asyncio.Event()
        cache = make("i4")

        @cache
        async def f() -> Any:
            return await runs.run()

        old = asyncio.create_task(f())
        await runs.begun.wait()
        await (cache.invalidate() if by_tag else f.invalidate())
        runs.gate.set()
        assert (await old)["n"] == 1
        assert cache.statistics().rejected == 1
        assert (await f())["n"] == 2
        assert (await f())["n"] == 2

    async def test_refresh(self, make: Callable[..., ShareCache]) -> None:
        """refresh() runs the function now, and the result replaces the old one."""
        runs = Runs()

        @make("i5")
        async def f() -> Any:
            return await runs.run()

        await f()
        assert (await f.refresh())["n"] == 2
        assert (await f())["n"] == 2


class TestRedis:
    async def test_processes_share(self, redis_url: str) -> None:
        """Two caches on one server, as in two processes, see each other's results."""
        runs = Runs()

        def make(client: Redis) -> Any:
            async def f(n: int) -> Any:
                return await runs.run(n)

            f.__qualname__ = "shared"
            cache = ShareCache("r1", redis=client)
            return cache(f), cache

        async with Redis.from_url(redis_url) as a, Redis.from_url(redis_url) as b:
            (f, cache), (g, _) = make(a), make(b)
            assert await f(1) == await g(1)
            assert runs.count == 1
            await f.invalidate(1)
            await g(1)
            assert runs.count == 2
            await cache.invalidate()
            await g(1)
            assert runs.count == 3

    async def test_types_are_the_same_for_all(self, redis_url: str) -> None:
        """The first caller, too, gets what the codec makes of the result."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r2", redis=client)
            async def f() -> Any:
                return {1: (2, 3)}

            assert await f() == await f() == {"1": [2, 3]}

    async def test_what_cannot_be_encoded(self, redis_url: str) -> None:
        """A result that the codec refuses is an error, not something uncached in silence."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r3", redis=client)
            async def f() -> Any:
                return object()

            with pytest.raises(TypeError):
                await f()

    async def test_a_codec_of_ones_own(self, redis_url: str) -> None:
        """A codec may give bytes of any kind."""
        codec = SimpleNamespace(dumps=pickle.dumps, loads=pickle.loads)

        async with Redis.from_url(redis_url) as client:

            @ShareCache("r4", redis=client, codec=codec)
            async def f() -> Any:
                return {1: (2, b"\n\xff")}

            assert await f() == await f() == {1: (2, b"\n\xff")}

    async def test_rubbish_is_a_miss(self, redis_url: str) -> None:
        """A key that holds something else is computed anew."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r5", redis=client)
            async def f() -> int:
                return 1

            await f()
            [key] = [key async for key in client.scan_iter("*:k:*")]

            for rubbish in (b"", b"x", b"ws1 a b c", b"\xff\xff"):
                await client.set(key, rubbish)
                assert await f() == 1

    async def test_redis_is_down(self, caplog: pytest.LogCaptureFixture, unused_tcp_port: int) -> None:
        """Without Redis the function runs each time, which is logged and counted."""
        runs = Runs()

        async with Redis.from_url(f"redis://127.0.0.1:{unused_tcp_port}", retry=None) as client:
            cache = ShareCache("r6", redis=client)

            @cache
            async def f() -> Any:
                return await runs.run()

            await f()
            await f()
            assert runs.count == 2
            assert cache.statistics().errors == 2
            assert "going on without" in caplog.text

            with pytest.raises(RedisConnectionError):
                await f.invalidate()

    async def test_redis_fails_between(self, caplog: pytest.LogCaptureFixture) -> None:
        """A failure to store is no failure of the call."""

        class Half:
            async def mget(self, keys: list[str]) -> list[bytes | None]:
                return [b"v", None]

            async def eval(self, *_: object) -> None:
                raise OSError("gone")

        cache = ShareCache("r7", redis=Half())

        @cache
        async def f() -> int:
            return 1

        assert await f() == 1
        assert "cannot write" in caplog.text

    async def test_once_per_cluster(self, redis_url: str) -> None:
        """With a lock, callers in several processes run the function once."""
        runs = Runs()
        held: dict[str, asyncio.Lock] = {}

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            async with held.setdefault(name, asyncio.Lock()):
                yield

        clients = [Redis.from_url(redis_url) for _ in range(5)]
        functions = []

        for client in clients:

            async def f() -> Any:
                await turns()
                return await runs.run()

            f.__qualname__ = "locked"
            functions.append(ShareCache("r8", redis=client, lock=lock)(f))

        results = await asyncio.gather(*(function() for function in functions))
        assert [result["n"] for result in results] == [1] * 5

        for client in clients:
            await client.aclose()

    async def test_a_lock_that_fails(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Without the lock the function runs all the same."""

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            if name:
                raise OSError("no lock")

            yield

        async with Redis.from_url(redis_url) as client:

            @ShareCache("r9", redis=client, lock=lock)
            async def f() -> int:
                return 1

            assert await f() == 1

        assert "cannot lock" in caplog.text

    async def test_renewal_takes_the_lock(self, redis_url: str) -> None:
        """One process renews; when the lock is not to be had, nobody does it twice."""
        clock, runs = Clock(), Runs()
        names: list[str] = []

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            names.append(name)

            if len(names) == 2:
                raise OSError("taken")

            yield

        async with Redis.from_url(redis_url) as client:
            cache = ShareCache("r10", redis=client, lock=lock, ttl=100, jitter=0, stale=500, clock=clock)

            @cache
            async def f() -> Any:
                return await runs.run()

            for expected in (1, 1, 2):
                await f()
                await cache.drain()
                assert runs.count == expected
                clock.now += 120

        assert len(set(names)) == 1

    def test_what_may_be_given_as_redis(self) -> None:
        """A client, a pool, a manager, or a function that gives a client."""
        client = SimpleNamespace(mget=None)

        class Pool:
            @property
            def redis(self) -> object:
                return client

        class Manager:
            def get_pool(self) -> Pool:
                return Pool()

        for source in (client, Pool(), Manager(), lambda: client):
            assert resolve_redis(source)() is client


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: int
    y: list[int]


class TestKeys:
    def test_equal_calls(self) -> None:
        """However the arguments are passed, equal ones give one key."""

        def f(a: object, b: object = 2, *rest: object, c: object = 3, **more: object) -> None:
            pass

        make = KeyMaker(f)
        assert make((1,), {}) == make((1, 2), {}) == make((), {"c": 3, "a": 1})
        assert make((1,), {"y": 1, "x": 2}) == make((1,), {"x": 2, "y": 1})
        assert make(({"b": 1, "a": {3, 1}},), {}) == make(({"a": {1, 3}, "b": 1},), {})

    def test_different_calls(self) -> None:
        """Values that only look alike give different keys."""
        make = KeyMaker(lambda a: a)
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        values: list[object] = [
            1, True, 1.0, "1", b"1", None, "None", (1,), ((1,),), [1, 2], {1: 2}, {"1": 2}, {1, 2},
            Colour.RED, Colour.BLUE, moment, moment.date(), Decimal(1), UUID(int=1),
            Point(1, [2]), Point(1, [3]),
        ]  # fmt: skip
        keys = [make((value,), {}) for value in values]
        assert len(set(keys)) == len(values)
        assert make((Point(1, [2]),), {}) == make((Point(1, [2]),), {})

    def test_refusals(self) -> None:
        """An object without a value of its own is refused, and so are arguments that do not fit."""
        make = KeyMaker(lambda a: a)

        with pytest.raises(UsageError, match="cannot be part of a cache key"):
            make((object(),), {})

        with pytest.raises(UsageError, match="type"):
            make(([Point],), {})

        with pytest.raises(TypeError):
            make((1, 2), {})

    def test_shorten(self) -> None:
        """Short keys stay readable; odd text is no obstacle."""
        assert shorten("x" * 160) == "x" * 160
        assert len(shorten("\ud800" * 200)) == 40


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"tag": ""}, "tag="),
            ({"tag": "a{b"}, "without braces"),
            ({"ttl": 0}, "ttl=0 is wrong: give more than 0"),
            ({"jitter": 2}, "jitter=2 is wrong: give 0 or more, at most 1"),
            ({"stale": -1}, "stale=-1"),
            ({"early": float("nan")}, "early=nan"),
            ({"maxsize": "many"}, "maxsize='many'"),
            ({"ttl": True}, "ttl=True"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named."""
        with pytest.raises(ConfigError) as caught:
            ShareCache(**{"tag": "t", **options})

        assert part in str(caught.value)

    def test_plain_functions(self) -> None:
        """A plain function is sent to CacheWrap."""
        with pytest.raises(UsageError, match="see CacheWrap"):
            ShareCache("t")(len)  # type: ignore[arg-type]

    def test_repr(self) -> None:
        """The representation tells where results are kept."""
        assert repr(ShareCache("t", ttl=5)) == "<ShareCache 't' in this process, ttl 5 s>"
        assert repr(ShareCache("t", redis=json)) == "<ShareCache 't' in Redis, ttl 60 s>"

    async def test_maxsize(self) -> None:
        """Without Redis the least recently used results go first."""
        runs = Runs()

        @ShareCache("o1", maxsize=2)
        async def f(n: int) -> Any:
            return await runs.run(n)

        for n in (1, 2, 1, 3, 1):
            await f(n)

        assert runs.count == 3
        await f(2)
        assert runs.count == 4


class TestCacheWrap:
    def test_plain_functions(self) -> None:
        """Results are kept, exceptions are not."""
        count = 0

        @CacheWrap(maxsize=2)
        def f(n: int) -> int | None:
            nonlocal count
            count += 1

            if n < 0:
                raise ValueError(n)

            return n or None

        assert [f(1), f(1), f(0), f(0)] == [1, 1, None, None]
        assert count == 2
        f(2)
        f(1)
        assert count == 4

        for _ in range(2):
            with pytest.raises(ValueError, match="-1"):
                f(-1)

        assert count == 6
        f.cache_clear()  # type: ignore[attr-defined]
        f(1)
        assert count == 7

    async def test_coroutines(self) -> None:
        """Concurrent equal calls run once, and the result is kept."""
        runs = Runs()
        runs.gate = asyncio.Event()

        @CacheWrap(maxsize=10, ttl=60, key=lambda n: str(n % 2))
        async def f(n: int) -> Any:
            return await runs.run(n)

        tasks = [asyncio.create_task(f(n)) for n in (1, 3, 5)]
        await runs.begun.wait()
        runs.gate.set()
        assert [result["n"] for result in await asyncio.gather(*tasks)] == [1, 1, 1]
        assert (await f(7))["n"] == 1
        f.cache_clear()  # type: ignore[attr-defined]
        assert (await f(7))["n"] == 2

    def test_a_key_for_plain_functions(self) -> None:
        """The key may be of one's own making."""

        @CacheWrap(key=lambda _: "same")
        def f(n: int) -> int:
            return n

        assert (f(1), f(2)) == (1, 1)


class TestLRUCache:
    def test_a_mapping(self) -> None:
        """It does what a dict does."""
        cache: LRUCache[str, int] = LRUCache(10)
        cache["a"] = 1
        cache.set("b", 2)
        assert (cache["a"], cache.get("b"), cache.get("c"), cache.get("c", 5)) == (1, 2, None, 5)
        assert ("a" in cache, "c" in cache, len(cache), sorted(cache)) == (True, False, 2, ["a", "b"])
        assert (cache.delete("a"), cache.delete("a")) == (True, False)
        del cache["b"]

        with pytest.raises(KeyError):
            cache["b"]

        cache.update(x=1)
        cache.clear()
        assert repr(cache) == "<LRUCache 0 of 10 items>"

    def test_the_least_recently_used_goes(self) -> None:
        """Reading keeps an item alive."""
        cache: LRUCache[int, int] = LRUCache(3)

        for n in (1, 2, 3):
            cache[n] = n

        assert cache[1] == 1
        cache[4] = 4
        assert sorted(cache) == [1, 3, 4]

    def test_ttl(self) -> None:
        """An item ends its time after it was set, not after it was read."""
        clock = Clock()
        cache: LRUCache[str, int] = LRUCache(3, 10, clock=clock)
        cache["a"] = 1
        clock.now += 6
        assert cache["a"] == 1
        clock.now += 6
        assert "a" not in cache

    def test_threads(self) -> None:
        """Many threads at once keep it whole."""
        cache: LRUCache[int, int] = LRUCache(50, 60)

        def work(start: int) -> None:
            for n in range(2000):
                cache[(start * n) % 97] = n
                cache.get(n % 97)
                list(cache)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert len(cache) == 50

    def test_bad_sizes(self) -> None:
        """A bound that is none is refused."""
        with pytest.raises(ConfigError, match="maximum=0"):
            LRUCache(0)

        with pytest.raises(ConfigError, match="ttl=-1"):
            LRUCache(1, -1)
