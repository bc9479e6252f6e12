"""Threads: the mutex over a blocking client."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from tests.redislock._helpers import open_to_all
from tests.redislock._threads import until, waiting_for
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock.errors import LockLost, LockNotAcquired, UnavailableError, UsageError
from ws_redislock.sync import (
    CountingObserver,
    FrequencyLimiter,
    MutexLock,
)
from ws_redislock.sync._coordination.wakeups import WakeupSubscription


class TestMutexLock:
    """The mutex."""

    def test_acquire_and_release(self, any_client: Redis):
        """It excludes, is released at the end of its block, and reports its state."""
        with MutexLock(any_client, "k", 60) as one:
            assert one.acquire()
            assert one.locked
            one.check()
            assert one.renew()
            assert 59 < one.remaining < 60
            assert one.owner() == one.current().token
            two = MutexLock(any_client, "k", 60)
            assert not two.acquire()
            assert not two.acquire(0.5)
            assert not two.wait(0.02)

        assert two.wait(1)
        assert two.acquire()
        assert two.release()
        assert not two.exists()

    def count(self, any_client: Redis) -> int:
        """Read a counter, leave it alone and write it back, eighty times in sixteen threads; return it."""
        count = 0

        def work(_number: int) -> None:
            nonlocal count

            for _ in range(5):
                with MutexLock(any_client, "k", 60).hold():
                    seen = count
                    time.sleep(0.001)
                    count = seen + 1

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))

        return count

    def test_excludes_threads(self, any_client: Redis):
        """A counter that is read, left alone and written back ends up exact."""
        assert self.count(any_client) == 80

    def test_a_lock_that_excludes_nobody_is_seen(self, any_client: Redis):
        """The control: when everybody may enter, counts are lost."""
        with open_to_all():
            assert self.count(any_client) < 80

    @pytest.mark.parametrize("apart", [False, True])
    def test_the_release_wakes_the_next(self, any_client: Redis, any_redis: RedisServer, *, apart: bool):
        """A waiter is woken by its own coordinator or through the server."""
        with Redis.from_url(any_redis.url) as other:
            first = MutexLock(any_client, "k", 60)
            first.acquire()
            second = MutexLock(other if apart else any_client, "k", 60, heartbeat=30)
            thread = Thread(target=second.acquire, args=(None,))
            thread.start()
            waiting_for(first)
            first.release()
            thread.join(5)
            assert second.locked
            second.release()

    def test_without_wake_ups_it_looks_by_itself(
        self, any_client: Redis, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """When all messages are lost the heartbeat finds the lock free."""
        monkeypatch.setattr(WakeupSubscription, "_take", lambda *_arguments: None)

        with Redis.from_url(any_redis.url) as other:
            first = MutexLock(any_client, "k", 60)
            first.acquire()
            second = MutexLock(other, "k", 60, heartbeat=0.6)
            thread = Thread(target=second.acquire, args=(None,))
            thread.start()
            waiting_for(first)
            first.release()
            thread.join(5)
            assert second.release()

    def test_the_subscriber_is_killed(self, any_client: Redis, any_redis: RedisServer):
        """After CLIENT KILL the coordinator subscribes again, and all its waiters look."""
        with Redis.from_url(any_redis.url) as other:
            first = MutexLock(any_client, "k", 60)
            first.acquire()
            second = MutexLock(other, "k", 60, heartbeat=30)
            thread = Thread(target=second.acquire, args=(None,))
            thread.start()
            waiting_for(first)
            until(lambda: any_client.client_kill_filter(_type="pubsub") > 0)
            first.release()
            thread.join(5)
            assert second.release()

    def test_the_watchdog_renews(self, any_client: Redis):
        """A lock is held for longer than its lease while its thread works."""
        with MutexLock(any_client, "k", 0.5).hold() as held:
            time.sleep(0.8)
            held.check()

    def test_a_renewal_that_hangs_does_not_hide_the_deadline(self, start_server: StartServer):
        """The holder is notified at its deadline although the renewal is still under way."""
        server = start_server(RedisServer)

        with Redis.from_url(server.url, socket_timeout=5.0) as client:
            lock = MutexLock(client, "k", 0.6)
            lock.acquire()
            held = lock.current()
            assert held._watchdog is not None
            held._watchdog._coordinator.scripts._sender._pool = None  # the way of a client that is not plain
            server.pause()
            held.wait_lost()
            assert not lock.release()
            server.resume()

    def test_the_loss_is_told(self, any_client: Redis):
        """When the server forgets the lock, the holder finds out, at the block's end at the latest."""
        lost = Event()
        observer = CountingObserver()
        lock = MutexLock(any_client, "k", 0.6, on_lost=lambda _held: lost.set(), observer=observer)

        def body() -> None:
            with lock.hold() as held:
                any_client.flushall()
                held.wait_lost()
                assert held.lost
                held.wait_lost()

        with pytest.raises(LockLost, match="does not know it"):
            body()

        assert lost.wait(1)
        assert observer.statistics().lost == 1

    def test_a_deadline_without_renewal(self, any_client: Redis):
        """A lease that is not renewed ends, and is lost."""
        lock = MutexLock(any_client, "k", 0.5, auto_renew=False)
        lock.acquire()
        lock.current().wait_lost()

        with pytest.raises(LockLost, match="deadline"):
            lock.check()

        assert not lock.release()

    def test_force_release(self, any_client: Redis):
        """The dispossessed holder of the same coordinator is notified at once."""
        lock = MutexLock(any_client, "k", 60, on_lost=lambda _held: 1 / 0)  # type: ignore[arg-type]
        lock.acquire()
        held = lock.current()
        assert MutexLock(any_client, "k", 60).force_release()
        until(lambda: held.lost)
        assert not lock.release()

    def test_reentrant(self, any_client: Redis):
        """The same thread may acquire again, another may not."""
        one, two = (MutexLock(any_client, "k", 60, reentrant=True) for _ in range(2))
        assert one.acquire()
        assert two.acquire()

        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(MutexLock(any_client, "k", 60, reentrant=True).acquire).result()

        assert two.release()
        assert one.exists()
        assert one.release()
        assert not one.exists()

    def test_decorates(self, any_client: Redis):
        """A wrapped function runs under the lock."""
        lock = MutexLock(any_client, "k", 60)

        @lock.wrap(timeout=5)
        def work() -> bool:
            return lock.exists()

        assert work()
        assert not lock.exists()

    def test_hold_not_acquired(self, any_client: Redis):
        """A lock that is not free in time is an error for a block."""
        with MutexLock(any_client, "k", 60).hold(), pytest.raises(LockNotAcquired):
            MutexLock(any_client, "k", 60).hold(timeout=0).__enter__()

    def test_a_script_that_the_server_forgot(self, any_client: Redis):
        """NOSCRIPT is answered by sending the text."""
        any_client.script_flush()

        with MutexLock(any_client, "k", 60).hold():
            pass

    def test_owns_the_client_of_a_url(self, any_redis: RedisServer):
        """Made from a URL it makes its own client and closes it."""
        with MutexLock(any_redis.url, "k", 60) as lock:
            assert lock.acquire()
            other = MutexLock(any_redis.url, "k", 60)
            assert not other.acquire(0.5)
            other.close()

    def test_no_server(self):
        """Without a server it says so, in time."""
        url = "redis://127.0.0.1:1/0"

        with MutexLock(url, "k", 0.5) as lock, pytest.raises(UnavailableError, match="lock 'k'"):
            lock.acquire(0.2)

        with (
            FrequencyLimiter(url, 60, 3, timeout=0.05) as limiter,
            pytest.raises(UnavailableError, match="DEL"),
        ):
            limiter.reset("k")

    def test_a_server_that_says_nothing(self, start_server: StartServer):
        """A paused server is waited for only so long; afterwards the acquisition is undone."""
        server = start_server(RedisServer)

        with Redis.from_url(server.url) as client:
            lock = MutexLock(client, "k", 60)
            assert lock.acquire()
            assert lock.release()
            server.pause()

            with pytest.raises(UnavailableError, match="no reply in time"):
                lock.acquire(0.3)

            server.resume()
            lock.close()
            assert not lock.exists()

    @pytest.mark.parametrize("source", [object(), None])
    def test_no_client(self, source: object):
        """Something that is not a client is refused."""
        with pytest.raises(UsageError, match="not a Redis client"):
            MutexLock(source, "k", 60).acquire()  # type: ignore[arg-type]

    async def test_the_wrong_kind_of_client(self, redis7: AsyncRedis):
        """A client for asyncio is refused here, and a blocking one there."""
        from ws_redislock import MutexLock as AsyncMutexLock

        with pytest.raises(UsageError, match="for asyncio"):
            MutexLock(redis7, "k", 60).acquire()

        with Redis() as blocking, pytest.raises(UsageError, match="blocks the event loop"):
            await AsyncMutexLock(blocking, "k", 60).acquire()
