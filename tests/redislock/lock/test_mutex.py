"""MutexLock over real servers: acquiring, waiting, releasing, losing."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import open_to_all, until_waiting
from tools.servers import RedisServer
from ws_redislock import Held, LockLost, LockNotAcquired, MutexLock
from ws_redislock.errors import ConfigError, UsageError
from ws_redislock.observe import CountingObserver


class TestAcquire:
    """AcquireProtocol and releasing."""

    async def test_entering_does_not_acquire(self, redis: Redis):
        """``async with`` alone takes nothing; leaving releases what is held."""
        async with MutexLock(redis, "test-key", 60) as lock:
            entered = lock.locked
            assert await lock.acquire()
            assert (entered, lock.locked) == (False, True)
            assert 59 < lock.remaining < 60

        assert not lock.locked
        assert not await lock.exists()

    async def test_excludes_another(self, redis: Redis):
        """While one holds it, another attempt is refused, and succeeds after the release."""
        one, two = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        assert await one.acquire()
        assert not await two.acquire()
        assert not await two.acquire(timeout=0.5)
        assert await one.release()
        assert await two.acquire(timeout=0)
        assert await two.release()

    async def test_another_name_is_another_lock(self, redis: Redis):
        """Names that differ only in braces and escapes do not meet."""
        locks = [MutexLock(redis, name, 60) for name in ("a", "{a}", "a}", "%7Ba%7D", "ä" * 256)]
        assert [await lock.acquire() for lock in locks] == [True] * 5
        assert [await lock.release() for lock in locks] == [True] * 5

    async def test_a_refused_attempt_leaves_nothing(self, redis: Redis):
        """Neither trying once nor waiting in vain leaves a place in the queue."""
        one, two = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        await one.acquire()
        assert not await two.acquire(0)
        assert not await two.acquire(0.5)
        assert await one.waiters() == 0
        await one.release()

    async def test_releasing_what_is_not_held(self, redis: Redis):
        """Releasing without holding says so and does nothing."""
        assert await MutexLock(redis, "k", 60).release() is False

    async def test_every_key_has_a_ttl(self, redis: Redis):
        """No key of a lock lives for ever, whether it is held, waited for, or released."""
        one, two = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        await one.acquire()
        waiting = asyncio.create_task(two.acquire(None))
        await until_waiting(one)
        assert {await redis.pttl(key) > 0 for key in await redis.keys("*")} == {True}
        await one.release()
        assert await waiting
        await two.release()
        assert {await redis.pttl(key) > 0 for key in await redis.keys("*")} == {True}
        assert not [key for key in await redis.keys("*") if b":done:" not in key and b":fence" not in key]

    async def test_works_with_decoded_replies(self, any_redis: RedisServer):
        """A client that decodes its replies is as good."""
        async with Redis.from_url(any_redis.url, decode_responses=True) as client:
            lock, other = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
            assert await lock.acquire()
            waiting = asyncio.create_task(other.acquire(5))
            await until_waiting(lock)
            assert await lock.owner() is not None
            await lock.release()
            assert await waiting
            await other.release()

    async def test_owns_the_client_of_a_url(self, any_redis: RedisServer):
        """A lock made from a URL makes its own client and closes it."""
        async with MutexLock(any_redis.url, "k", 60) as lock:
            assert await lock.acquire()

        assert lock._owned is None


class TestTogether:
    """Calls of many tasks, which go together."""

    async def test_many_locks_at_once(self, redis: Redis):
        """Each task gets its own lock, with fences that increase for each name."""
        await redis.script_flush()

        async def work(number: int) -> list[int]:
            fences = []

            for _ in range(3):
                lock = MutexLock(redis, f"k{number}", 60)
                assert await lock.acquire()
                assert await MutexLock(redis, f"k{number}", 60).acquire() is False
                fences.append(lock.fence)
                assert await lock.release()

            return fences

        for fences in await asyncio.gather(*(work(number) for number in range(60))):
            assert fences == sorted(set(fences))

    async def test_one_lock_among_many_tasks(self, redis: Redis):
        """Of many that try the same lock at the same time, one gets it."""
        locks = [MutexLock(redis, "k", 60) for _ in range(60)]
        assert sum(await asyncio.gather(*(lock.acquire() for lock in locks))) == 1
        assert sum(await asyncio.gather(*(lock.release() for lock in locks))) == 1

    async def test_a_fence_ahead_of_the_clock(self, redis: Redis):
        """A stored fence that is ahead of the server's clock is counted up, alone and together."""
        ahead = 2**52
        await redis.set("wsl:m:{k0}:fence", ahead, px=60_000)

        for number in (1, 2):
            async with MutexLock(redis, "k0", 60).hold() as held:
                assert held.fence == ahead + number

        async def work(number: int) -> int:
            async with MutexLock(redis, f"k{number}", 60).hold(timeout=0) as held:
                return held.fence

        assert (await asyncio.gather(*(work(n) for n in (3, 4, 5, 6, 7, 8, 9, 0))))[-1] == ahead + 3

    async def test_a_release_that_comes_too_late(self, redis: Redis):
        """Released together, locks that the server has forgotten say that they were lost."""
        locks = [MutexLock(redis, f"k{number}", 60) for number in range(30)]
        await asyncio.gather(*(lock.acquire() for lock in locks))
        await redis.flushall()
        assert not any(await asyncio.gather(*(lock.release() for lock in locks)))


class TestWaiting:
    """Waiting for a lock that is held."""

    async def test_the_release_wakes_the_next(self, redis: Redis):
        """A waiter gets the lock when it is released."""
        one, two = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        await one.acquire()
        waiting = asyncio.create_task(two.acquire(timeout=30))
        await until_waiting(one)
        await one.release()
        assert await waiting
        assert two.locked
        await two.release()

    async def test_wakes_across_clients(self, any_redis: RedisServer):
        """The wake-up goes through the server when the waiter is another client's."""
        async with Redis.from_url(any_redis.url) as here, Redis.from_url(any_redis.url) as there:
            one, two = MutexLock(here, "k", 60), MutexLock(there, "k", 60)
            await one.acquire()
            waiting = asyncio.create_task(two.acquire(timeout=30))
            await until_waiting(one)
            await one.release()
            assert await asyncio.wait_for(waiting, 2)
            await two.release()

    async def test_first_come_first_served(self, redis: Redis):
        """Waiters are served in the order in which they came."""
        first = MutexLock(redis, "k", 60)
        await first.acquire()
        order: list[int] = []

        async def wait(number: int) -> None:
            async with MutexLock(redis, "k", 60).hold():
                order.append(number)

        tasks = []

        for number in range(20):
            tasks.append(asyncio.create_task(wait(number)))
            await until_waiting(first, number + 1)

        await first.release()
        await asyncio.gather(*tasks)
        assert order == list(range(20))

    async def test_a_newcomer_does_not_jump_the_queue(self, redis: Redis):
        """Trying once is refused while somebody stands in the queue, even if the lock is free."""
        one, two, three = (MutexLock(redis, "k", 60) for _ in range(3))
        await one.acquire()
        waiting = asyncio.create_task(two.acquire(None))
        await until_waiting(one)
        release = asyncio.create_task(one.release())
        jumped = asyncio.create_task(three.acquire(0))
        assert await release
        assert await waiting
        assert not await jumped
        await two.release()

    async def count_to_a_hundred(self, redis: Redis) -> int:
        """Read a counter, leave it alone and write it back, a hundred times; return it."""
        count = 0

        async def work() -> None:
            nonlocal count
            async with MutexLock(redis, "k", 60).hold():
                seen = count
                await asyncio.sleep(0)
                count = seen + 1

        await asyncio.gather(*(work() for _ in range(100)))
        return count

    async def test_excludes_a_hundred_tasks(self, redis: Redis):
        """A counter that is read, left alone and written back ends up exact."""
        assert await self.count_to_a_hundred(redis) == 100

    async def test_a_lock_that_excludes_nobody_is_seen(self, redis7: Redis):
        """The control: when everybody may enter, counts are lost."""
        with open_to_all():
            assert await self.count_to_a_hundred(redis7) < 100


class TestHold:
    """Holding for a block."""

    async def test_yields_what_is_held(self, redis: Redis):
        """The block gets the fence, what remains, and checks without I/O."""
        async with MutexLock(redis, "k", 60).hold(timeout=5) as held:
            assert isinstance(held, Held)
            assert held.fence > 0
            assert held.locked
            held.check()

        with pytest.raises(LockLost, match="was released"):
            held.check()

    async def test_raises_when_it_is_not_free(self, redis: Redis):
        """`LockNotAcquired` is also a TimeoutError."""
        async with MutexLock(redis, "k", 60).hold():
            with pytest.raises(LockNotAcquired, match="'k' was not free within 0 s"):
                await MutexLock(redis, "k", 60).hold(timeout=0).__aenter__()

    async def test_the_bodys_error_passes(self, redis: Redis):
        """What the block raises comes out, and the lock is released."""
        lock = MutexLock(redis, "k", 60)

        with pytest.raises(ZeroDivisionError):
            async with lock.hold():
                _ = 1 / 0

        assert not await lock.exists()

    async def test_cancels_the_body_when_lost(self, redis: Redis):
        """A body that waits is cancelled and sees LockLost outside."""
        lost: list[Held] = []
        observer = CountingObserver()
        lock = MutexLock(redis, "k", 0.6, on_lost=lost.append, observer=observer)

        async def body() -> None:
            async with lock.hold():
                await redis.flushall()
                await asyncio.sleep(30)

        with pytest.raises(LockLost, match="does not know it"):
            await body()

        assert [held.lost for held in lost] == [True]
        assert observer.statistics().lost == 1

    async def test_an_outer_cancel_is_never_swallowed(self, redis: Redis):
        """When the task is cancelled as well, the cancellation comes out, not LockLost."""
        lock = MutexLock(redis, "k", 0.6)
        inside = asyncio.Event()

        async def body() -> None:
            async with lock.hold() as held:
                held._lose("for the test")
                inside.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_body_that_ends_in_time_but_lost_hears_of_it(self, redis: Redis):
        """A block that ends by itself after the loss raises LockLost all the same."""
        with pytest.raises(LockLost):
            async with MutexLock(redis, "k", 60).hold():
                await redis.flushall()

    async def test_the_pending_cancel_is_taken_back(self, redis: Redis):
        """A block that ends before its cancel arrives leaves no cancel behind."""
        with pytest.raises(LockLost):
            async with MutexLock(redis, "k", 60).hold() as held:
                held._lose("for the test")

        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    async def test_decorates(self, redis: Redis):
        """Each call of a wrapped function holds the lock on its own."""
        lock = MutexLock(redis, "k", 60)
        running = 0

        @lock.wrap(timeout=30)
        async def work(number: int) -> int:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1
            return number

        assert await asyncio.gather(*(work(n) for n in range(5))) == list(range(5))


class TestFence:
    """Fencing tokens."""

    async def test_increases_with_every_acquisition(self, redis: Redis):
        """Each acquisition has a larger fence, across a FLUSHALL too."""
        fences = []

        for _ in range(5):
            lock = MutexLock(redis, "k", 60)
            await lock.acquire()
            fences.append(lock.fence)
            await lock.release()
            await redis.flushall()

        assert fences == sorted(set(fences))

    async def test_needs_the_lock(self, redis: Redis):
        """There is no fence without an acquisition."""
        with pytest.raises(UsageError, match="acquire it first"):
            _ = MutexLock(redis, "k", 60).fence


class TestOthers:
    """What anybody may ask or do."""

    async def test_force_release_tells_the_holder(self, redis: Redis):
        """The dispossessed holder loses the lock at once when it shares the coordinator."""
        lock = MutexLock(redis, "k", 60)

        async def body() -> None:
            async with lock.hold():
                assert await MutexLock(redis, "k", 60).force_release()
                await asyncio.sleep(30)

        with pytest.raises(LockLost):
            await body()

        assert not await lock.force_release()

    async def test_wait_sees_the_release(self, redis: Redis):
        """``wait`` returns when nobody holds the lock, and acquires nothing."""
        one, two = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        await one.acquire()
        assert not await two.wait(0.01)
        waiting = asyncio.create_task(two.wait())
        await one.release()
        assert await waiting
        assert await two.owner() is None

    async def test_renew(self, redis: Redis):
        """Renewing begins the lease anew."""
        lock = MutexLock(redis, "k", 60)
        await lock.acquire()
        before = lock.remaining
        assert await lock.renew()
        assert lock.remaining > before - 0.5
        await redis.flushall()
        assert not await lock.renew()
        assert not await lock.release()

    async def test_reentrant(self, redis: Redis):
        """The same task may acquire again, through any object; the last release frees it."""
        one = MutexLock(redis, "k", 60, reentrant=True)
        two = MutexLock(redis, "k", 60, reentrant=True)
        assert await one.acquire()
        assert await one.acquire()
        assert await two.acquire()
        assert one.fence == two.fence
        assert await one.release()
        assert await one.release()
        assert await two.exists()
        assert not await asyncio.create_task(MutexLock(redis, "k", 60, reentrant=True).acquire())
        assert await two.release()
        assert not await two.exists()


class TestMemory:
    """What a lock leaves behind in its own process."""

    async def test_is_free_without_the_collector(self, redis7: Redis):
        """What belongs to an acquisition is freed when it was given back, not at the next collection."""
        lock = MutexLock(redis7, "k", 60)
        await lock.acquire()
        held = weakref.ref(lock.current())
        gc.disable()

        try:
            await lock.release()
            assert held() is None
        finally:
            gc.enable()


class TestMisuse:
    """Wrong use is refused before any command."""

    @pytest.mark.parametrize("expire", [0, -1, float("nan"), float("inf"), True, "60", None])
    def test_a_lease_that_cannot_be(self, expire: object):
        """The lease must be a number of seconds above zero."""
        with pytest.raises(ConfigError, match="expire must be"):
            MutexLock("redis://localhost:6379/0", "k", expire)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, b"k", None, "\ud800"])
    def test_a_name_that_cannot_be(self, name: object):
        """The name must be 1 to 512 bytes of text."""
        with pytest.raises(ConfigError, match="name"):
            MutexLock("redis://localhost:6379/0", name, 60)  # type: ignore[arg-type]

    def test_a_short_lease_is_warned_about(self):
        """Below half a second the watchdog has too little time."""
        with pytest.warns(RuntimeWarning, match=r"0\.4"):
            MutexLock("redis://localhost:6379/0", "k", 0.4)

    async def test_acquiring_twice(self, redis: Redis):
        """One object stands for one acquisition."""
        lock = MutexLock(redis, "k", 60)
        await lock.acquire()

        with pytest.raises(UsageError, match="held by this object already"):
            await lock.acquire()

        await lock.release()

    async def test_dropped_while_held(self, redis: Redis):
        """A lock that nobody can release any more is warned about, and not renewed."""
        lost = asyncio.Event()
        lock = MutexLock(redis, "k", 0.6, on_lost=lambda _held: lost.set())
        await lock.acquire()

        with pytest.warns(ResourceWarning, match="'k' held, .* was dropped while it was held"):
            del lock

        async with asyncio.timeout(5):
            await lost.wait()

        async with MutexLock(redis, "k", 60).hold(timeout=5):
            pass

    @pytest.mark.parametrize("source", [object(), 7, None])
    async def test_no_client(self, source: object):
        """Something that is not a client is refused with what to pass instead."""
        with pytest.raises(UsageError, match=r"pass a redis\.asyncio\.Redis"):
            await MutexLock(source, "k", 60).acquire()  # type: ignore[arg-type]
