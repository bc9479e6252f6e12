"""ws-redislock on the Redis pools of ws-pool, and in the caches of ws-pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool.cache import ShareCache
from ws_pool.redis import RedisPool, RedisPoolManager
from ws_redislock import (
    FrequencyLimiter,
    LockLost,
    MutexLock,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_web.dependencies import Limiter


@pytest.fixture
async def pools(any_redis_url: str) -> AsyncIterator[list[RedisPool]]:
    """Yield two pools to one server, as two processes have them."""
    async with RedisPool(url=any_redis_url) as one, RedisPool(url=any_redis_url) as other:
        yield [one, other]


async def number_at(pool: RedisPool, key: str) -> int:
    """Return the number at a key, 0 when there is none."""
    value = await pool.redis.get(key)
    return 0 if value is None else int(value)


class TestMutex:
    """`MutexLock` on a `RedisPool`."""

    async def test_the_original_example(self, pools: list[RedisPool]) -> None:
        """The example that users of the original know works word for word."""
        redis_pool = pools[0]

        async with MutexLock(redis_pool, "test-key", 60) as lock:
            is_locked = await lock.acquire()
            assert is_locked

            async with MutexLock(pools[1], "test-key", 60) as other:
                assert not await other.acquire()

        async with MutexLock(pools[1], "test-key", 60) as other:
            assert await other.acquire()

    async def test_on_a_manager(self, any_redis_url: str) -> None:
        """A manager stands for its default pool, and may be started after the lock was made."""
        manager = RedisPoolManager()
        manager.register({"default": {"url": any_redis_url}})
        lock = MutexLock(manager, "test-key", 60)

        async with manager:
            assert await lock.acquire()
            assert not await MutexLock(manager.get_pool(), "test-key", 60).acquire()
            assert await lock.release()

    async def test_a_counter_that_is_not_atomic(self, pools: list[RedisPool]) -> None:
        """Fifty tasks on two pools read, wait and write under the lock, and no step is lost."""

        async def step(pool: RedisPool) -> None:
            async with MutexLock(pool, "counter", 10) as lock, lock.hold(timeout=30):
                value = await number_at(pool, "n")
                await asyncio.sleep(0)
                await pool.redis.set("n", value + 1)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(step(pools[number % 2]))

        assert await number_at(pools[0], "n") == 50

    async def test_without_the_lock_the_counter_is_wrong(self, pools: list[RedisPool]) -> None:
        """The same steps without the lock lose some: the test above can fail."""

        async def step(pool: RedisPool) -> None:
            value = await number_at(pool, "n")
            await asyncio.sleep(0)
            await pool.redis.set("n", value + 1)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(step(pools[number % 2]))

        assert await number_at(pools[0], "n") < 50

    async def test_the_server_forgets_the_lock(self, start_server: StartServer) -> None:
        """When the server was killed and has lost the lock, the holder's block ends with `LockLost`."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url) as pool:
            reached = asyncio.Event()

            async def hold() -> None:
                async with MutexLock(pool, "k", 1.5) as lock, lock.hold(timeout=5):
                    reached.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(hold())
            await reached.wait()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)

            with pytest.raises(LockLost):
                await asyncio.wait_for(task, 20)

    async def test_a_lost_reply(self, redis_server: RedisServer, redis_url: str) -> None:
        """When the reply to an acquisition is lost, the lock is held once or not at all."""
        async with FaultProxy(*redis_server.address) as proxy, RedisPool(url=proxy.url(redis_url)) as pool:
            await pool.redis.ping()
            lost = proxy.drop_reply(1, match="EVALSHA")

            async with MutexLock(pool, "k", 10) as lock:
                held = await lock.acquire(timeout=5)
                assert lost.is_set()
                assert held == lock.locked

            async with RedisPool(url=redis_url) as direct, MutexLock(direct, "k", 10) as other:
                assert await other.acquire(timeout=15)


class TestManager:
    """The shortcuts of `RedisPoolManager`."""

    async def test_allocate(self, any_redis_url: str) -> None:
        """Locks, limiters and buses are made on a named pool, as in the original."""
        manager = RedisPoolManager()
        manager.register({"default": {"url": any_redis_url}})
        await manager

        try:
            async with manager.allocate_lock("k", 10) as lock:
                assert isinstance(lock, MutexLock)
                assert await lock.acquire()

            limiter = manager.allocate_limiter(60, 2)
            assert isinstance(limiter, FrequencyLimiter)
            assert [await limiter.is_limited("user") for _ in range(3)] == [False, False, True]

            async with manager.allocate_event_bus("events") as bus:
                heard: asyncio.Queue[object] = asyncio.Queue()
                bus.add_listener("tag", heard.put)
                await bus.publish("tag", {"n": 1})
                assert await asyncio.wait_for(heard.get(), 20) == {"n": 1}
        finally:
            await manager.close()


@pytest.mark.parametrize("kind", ["frequency", "window", "bucket"])
async def test_limiters(pools: list[RedisPool], kind: str) -> None:
    """Of many concurrent hits over two pools exactly as many pass as the limit says."""
    kinds: dict[str, list[Limiter]] = {
        "frequency": [FrequencyLimiter(pool, 60, 20) for pool in pools],
        "window": [SlidingWindowLimiter(pool, 60, 20) for pool in pools],
        "bucket": [TokenBucketLimiter(pool, rate=0.001, burst=20) for pool in pools],
    }
    limiters = kinds[kind]

    verdicts = await asyncio.gather(*[limiters[number % 2].hit("user:1") for number in range(100)])

    assert sum(verdict.allowed for verdict in verdicts) == 20
    assert (await limiters[0].hit("user:2")).allowed


class TestCache:
    """`ShareCache` whose running is shared through `MutexLock`."""

    async def test_computed_once_over_processes(self, any_redis_url: str) -> None:
        """Concurrent calls through four pools run the function once, and all get its result."""
        runs = 0

        async with AsyncExitStack() as stack:
            functions: list[Callable[[int], Awaitable[list[int]]]] = []

            for _ in range(4):
                pool = await stack.enter_async_context(RedisPool(url=any_redis_url))

                def lock(name: str, pool: RedisPool = pool) -> AbstractAsyncContextManager[object]:
                    return MutexLock(pool, name, 10).hold(timeout=20)

                # A busy machine must not make a look-up late: then the function would run without the lock.
                @ShareCache("items", ttl=60, redis=pool, lock=lock, redis_timeout=20)
                async def items(page: int) -> list[int]:
                    nonlocal runs
                    runs += 1
                    await asyncio.sleep(0.05)
                    return [page, page + 1]

                functions.append(items)

            results = await asyncio.gather(*[functions[number % 4](7) for number in range(40)])

        assert results == [[7, 8]] * 40
        assert runs == 1

    async def test_a_lock_that_is_lost_does_not_fail_the_call(self, any_redis_url: str) -> None:
        """FLUSHDB while the function runs: each caller has a result all the same."""
        flushed = False

        async with RedisPool(url=any_redis_url) as pool:

            def lock(name: str) -> AbstractAsyncContextManager[object]:
                return MutexLock(pool, name, 1).hold(timeout=20)

            @ShareCache("items", ttl=60, redis=pool, lock=lock, redis_timeout=20)
            async def items(page: int) -> int:
                nonlocal flushed

                if not flushed:
                    flushed = True
                    await pool.redis.flushdb()
                    await asyncio.sleep(2)  # longer than the lock lives

                return page

            assert await asyncio.gather(*[items(7) for _ in range(5)]) == [7] * 5
            assert await items(7) == 7
