"""The cache never fails a call, and never makes one slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests.clock import Clock
from tests.pool.cache._support import Runs
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool._cache.guard import Budget, StoreGuard
from ws_pool.cache import ShareCache
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage


class TestCost:
    """What a Redis that fails adds to calls."""

    @pytest.mark.parametrize("fault", ["refuse", "black_hole"])
    @pytest.mark.parametrize("kind", ["pool", "client"])
    async def test_a_server_that_is_gone(self, redis_server: RedisServer, fault: str, kind: str) -> None:
        """Refusing or silent, it costs three calls their time, and the others next to nothing."""
        runs = Runs()

        async with contextlib.AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(FaultProxy(redis_server.host, redis_server.port))
            url = proxy.url(redis_server.url)
            source: RedisPool | Redis = RedisPool(url=url) if kind == "pool" else Redis.from_url(url)
            await stack.enter_async_context(source)
            cache = ShareCache("g1", redis=source, redis_timeout=0.05, prefix=f"{fault}-{kind}")

            @cache
            async def f(n: int) -> Any:
                return await runs.run(n)

            await f(0)
            getattr(proxy, fault)()

            if fault == "refuse":
                proxy.cut()

            took = []

            for number in range(1, 21):
                began = time.perf_counter()
                assert (await f(number))["value"] == number
                took.append(time.perf_counter() - began)

            assert runs.count == 21
            assert cache.statistics().bypassed >= 10
            # Three times 50 ms, and one more for each second that this loop takes.
            assert sorted(took)[10] < 0.05
            assert max(took) < 3.0

            proxy.heal()

            async with asyncio.timeout(20):
                while (await f(0))["n"] != (await f(0))["n"]:
                    await asyncio.sleep(0.1)

    async def test_without_the_guard_calls_are_slow(self, redis_server: RedisServer) -> None:
        """The broken twin, which waits for a silent server, makes the call late."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url), command_timeout=1) as pool,
        ):
            cache = ShareCache("g2", redis=pool, redis_timeout=30)

            @cache
            async def f() -> int:
                return 1

            await f()
            proxy.black_hole()
            began = time.perf_counter()
            assert await f() == 1
            assert time.perf_counter() - began > 0.5

    async def test_a_slow_server_is_not_given_up_at_once(self) -> None:
        """One late reply costs its call; the next finds the value."""
        late = [0.2]

        class Slow:
            async def mget(self, keys: list[str]) -> list[bytes | None]:
                await asyncio.sleep(late.pop() if late else 0)
                return [b"v", b"ws1 t v 99999999999 0\n7"]

        cache = ShareCache("g3", redis=Slow(), redis_timeout=0.05)

        @cache
        async def f() -> int:
            return 1

        assert await f() == 1
        assert await f() == 7


class TestStoreGuard:
    async def fail(self, guard: StoreGuard, error: Exception) -> None:
        """Let an operation fail."""

        async def operation() -> None:
            raise error

        with pytest.raises(type(error)):
            await guard.run(operation)

    async def test_it_opens_and_closes(self) -> None:
        """A lost connection opens it; after a pause one operation tries; a success closes it."""
        clock = Clock()
        guard = StoreGuard(1, clock)
        await self.fail(guard, RedisConnectionError())
        assert (guard.failing, guard.admit()) == (True, False)
        clock.now += 1.0
        assert (guard.admit(), guard.admit()) == (True, False)

        async def succeed() -> int:
            return 1

        assert await guard.run(succeed) == 1
        assert (guard.failing, guard.admit(), guard.admit()) == (False, True, True)

    async def test_timeouts_in_a_row(self) -> None:
        """Three timeouts open it, not two; an answer of the server never does."""
        guard = StoreGuard(1, Clock())

        for _ in range(10):
            await self.fail(guard, ResponseError("OOM"))

        for _ in range(2):
            await self.fail(guard, TimeoutError())
            assert guard.admit()

        await self.fail(guard, TimeoutError())
        assert not guard.admit()


class TestBudget:
    """One timeout for many operations."""

    async def test_those_that_take_too_long(self) -> None:
        """Each is ended after its own time, whenever it began; the others are not."""
        budget = Budget(0.05, asyncio.get_running_loop())

        async def operation(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        async def begin(after: float, seconds: float) -> float:
            await asyncio.sleep(after)
            return await budget.run(operation(seconds))

        found = await asyncio.gather(
            *(begin(number * 0.01, 60 if number % 2 else 0) for number in range(8)), return_exceptions=True
        )
        assert [type(one) for one in found] == [int, TimeoutError] * 4
        assert await budget.run(operation(0)) == 0
        assert [task for task in asyncio.all_tasks() if task.cancelling()] == []

    async def test_a_cancellation_goes_first(self) -> None:
        """A task that somebody else cancels as well is cancelled, not timed out."""
        budget = Budget(0.01, asyncio.get_running_loop())

        async def operation() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                raise

        task = asyncio.create_task(budget.run(operation()))
        await asyncio.wait([task])
        assert task.cancelled()

    async def test_cancelled_by_somebody_else_alone(self) -> None:
        """The cancellation passes."""
        budget = Budget(60, asyncio.get_running_loop())
        task = asyncio.create_task(budget.run(asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def test_an_operation_that_swallows_it(self) -> None:
        """Its result counts, and nothing of the timeout is left on the task."""
        budget = Budget(0.01, asyncio.get_running_loop())

        async def operation() -> int:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

            return 1

        assert await budget.run(operation()) == 1
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    def test_another_loop(self) -> None:
        """Each loop has a budget of its own, and a closed one is forgotten."""
        guard = StoreGuard(5)

        async def operation() -> int:
            return 1

        for _ in range(3):
            assert asyncio.run(guard.run(operation)) == 1

        assert len(guard._budgets) == 1


class TestLocks:
    """Locks that fail in every way, and a function that must run all the same."""

    def lock(self, *, enter: Exception | None = None, leave: Exception | None = None) -> Callable[[str], Any]:
        """Make a lock that fails."""

        @contextlib.asynccontextmanager
        async def hold(_: str) -> AsyncIterator[None]:
            if enter is not None:
                raise enter

            try:
                yield
            finally:
                if leave is not None:
                    raise leave

        return hold

    @pytest.mark.parametrize("place", ["enter", "leave"])
    async def test_the_call_has_its_result(
        self, redis_url: str, place: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A lock that is refused, or fails at its end, does not fail the call; the function runs once."""
        runs = Runs()

        async with Redis.from_url(redis_url) as client:
            lock = self.lock(**{place: LookupError("lost")})
            cache = ShareCache("l1", redis=client, lock=lock, redis_timeout=30)

            @cache
            async def f() -> Any:
                return await runs.run()

            assert (await f())["n"] == 1
            assert (await f())["n"] == 1  # stored

        assert cache.statistics().errors == 1
        assert "cannot lock, going on without: LookupError('lost')" in caplog.text

    async def test_a_loss_that_cancels_the_function(self, redis_url: str) -> None:
        """A lock that cancels its block when it is lost, and raises, has the function run again."""
        runs = Runs()
        runs.gate = asyncio.Event()

        class Cancelling:
            async def __aenter__(self) -> None:
                task = asyncio.current_task()
                assert task is not None
                self.task = task
                self.losing = asyncio.create_task(self.lose())

            async def lose(self) -> None:
                await runs.begun.wait()
                self.task.cancel()

            async def __aexit__(self, kind: object, error: object, trace: object) -> None:
                assert kind is asyncio.CancelledError
                await self.losing
                self.task.uncancel()
                runs.gate = None
                raise LookupError("lost")

        async with Redis.from_url(redis_url) as client:

            @ShareCache("l2", redis=client, lock=lambda _: Cancelling(), redis_timeout=30)
            async def f() -> Any:
                return await runs.run()

            assert (await asyncio.wait_for(f(), 10))["n"] == 2

    async def test_the_functions_own_error_is_the_callers(self, redis_url: str) -> None:
        """Whatever the lock does besides."""
        runs = Runs()
        runs.fail = ZeroDivisionError("mine")

        async with Redis.from_url(redis_url) as client:
            lock = self.lock(leave=LookupError("lost"))

            @ShareCache("l3", redis=client, lock=lock, redis_timeout=30)
            async def f() -> Any:
                return await runs.run()

            with pytest.raises(ZeroDivisionError, match="mine"):
                await f()

        assert runs.count == 1

    async def test_a_cancelled_call_is_cancelled(self, redis_url: str) -> None:
        """The caller's own cancellation is not taken for a loss of the lock."""
        runs = Runs()
        runs.gate = asyncio.Event()

        async with Redis.from_url(redis_url) as client:

            @ShareCache("l4", redis=client, lock=self.lock(), redis_timeout=30)
            async def f() -> Any:
                return await runs.run()

            task = asyncio.create_task(f())
            await runs.begun.wait()
            task.cancel()

            with pytest.raises(asyncio.CancelledError):
                await task

        assert runs.count == 1

    async def test_a_lock_that_hangs_at_its_end(self) -> None:
        """Where Redis fails, leaving the lock is given no more time than any operation."""

        class Half:
            async def mget(self, keys: list[str]) -> list[bytes | None]:
                return [b"v", None]

            async def eval(self, *_: object) -> None:
                raise OSError("gone")

        @contextlib.asynccontextmanager
        async def hang(_: str) -> AsyncIterator[None]:
            try:
                yield
            finally:
                await asyncio.sleep(60)

        cache = ShareCache("l5", redis=Half(), lock=hang, redis_timeout=0.05)

        @cache
        async def f() -> int:
            return 1

        assert await asyncio.wait_for(f(), 5) == 1


class TestEntries:
    @pytest.mark.parametrize(
        "loads", [lambda _: 1 / 0, lambda data: json.loads(data[1:])], ids=["raises", "another format"]
    )
    async def test_an_entry_of_another_codec_is_replaced(
        self, redis_url: str, loads: Callable[[bytes], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """After a deployment with another codec each entry is computed once, and then found again."""
        runs = Runs()
        new = SimpleNamespace(dumps=lambda value: b"2" + json.dumps(value).encode(), loads=loads)
        new.loads = lambda data: json.loads(data[1:]) if data[:1] == b"2" else loads(data)

        def make(client: Redis, codec: Any) -> tuple[ShareCache, Callable[[], Awaitable[Any]]]:
            async def f() -> Any:
                return await runs.run()

            f.__qualname__ = "deployed"
            cache = ShareCache("e1", redis=client, codec=codec, redis_timeout=30)
            return cache, cache(f)

        async with Redis.from_url(redis_url) as client:
            _, before = make(client, None)
            cache, after = make(client, new)
            assert (await before())["n"] == 1
            assert (await after())["n"] == 2
            assert (await after())["n"] == 2
            assert cache.statistics().errors == 1

        assert "cannot decode an entry" in caplog.text

    async def test_a_condition(self, make: Callable[..., ShareCache]) -> None:
        """Results that the condition refuses, or fails at, are returned and not kept."""
        runs = Runs()
        cache = make("e2", condition=lambda result: result["n"] > 1 / (result["n"] - 1))

        @cache
        async def f() -> Any:
            return await runs.run()

        assert [(await f())["n"] for _ in range(4)] == [1, 2, 2, 2]
        assert cache.statistics().errors == 1
