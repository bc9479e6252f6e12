"""Threads: handing an acquisition to another object."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from tests.redislock._threads import until, waiting_for
from ws_redislock.errors import ConfigError, LockLost, UsageError
from ws_redislock.sync import MutexLock


class TestTransfer:
    """`transfer` returns a token, by which another object can `adopt` the acquisition."""

    def test_to_another_client(self, client: Redis, redis_url: str):
        """The lock is held all the time, with the same fence; it is renewed and released by the other."""
        with Redis.from_url(redis_url) as elsewhere:
            first, second = MutexLock(client, "k", 60), MutexLock(elsewhere, "k", 30)
            assert first.acquire()
            fence = first.fence
            token = first.transfer()
            assert not first.locked
            assert first.exists()
            assert not MutexLock(client, "k", 60).acquire()
            assert second.adopt(token)
            assert second.fence == fence
            assert 29 < second.remaining <= 30
            assert not first.release()
            assert second.renew()
            assert second.release()
            assert not second.exists()

    def test_is_renewed_by_the_other(self, client: Redis):
        """Its watchdog goes on with the lease."""
        first, second = MutexLock(client, "k", 0.9), MutexLock(client, "k", 0.9)
        assert first.acquire()
        assert second.adopt(first.transfer())
        deadline = second.current()._lease.deadline
        until(lambda: second.current()._lease.deadline > deadline)
        assert second.release()

    def test_a_waiter_is_served_after_it(self, client: Redis, pool: ThreadPoolExecutor):
        """The queue stays as it is, and the release of the second object serves it."""
        first, second, third = (MutexLock(client, "k", 60) for _ in range(3))
        assert first.acquire()
        waiting = pool.submit(third.acquire, 10)
        waiting_for(first)
        assert second.adopt(first.transfer())
        assert third.waiters() == 1
        assert second.release()
        assert waiting.result(10)
        assert third.release()

    def test_adopted_too_late(self, client: Redis):
        """What was released meanwhile is not adopted."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        assert first.acquire()
        token = first.transfer()
        assert second.force_release()
        assert not second.adopt(token)
        assert not second.locked

    def test_lost(self, client: Redis):
        """What was taken away cannot be handed on."""
        first = MutexLock(client, "k", 60)
        assert first.acquire()
        client.delete("wsl:m:{k}:holders")

        with pytest.raises(LockLost):
            first.transfer()

        first.close()

    def test_of_a_reentrant_lock(self, client: Redis):
        """Its thread does not reenter what it has handed on."""
        first, second = (MutexLock(client, "k", 60, reentrant=True) for _ in range(2))
        assert first.acquire()
        assert second.adopt(first.transfer())
        assert not MutexLock(client, "k", 60, reentrant=True).acquire()
        assert second.release()

    def test_wrong_use(self, client: Redis):
        """A lock that is not held, is held twice, and a token that is not one are refused."""
        lock = MutexLock(client, "k", 60, reentrant=True)

        with pytest.raises(UsageError, match="not held"):
            lock.transfer()

        for token in ("", "x1", "x1/", "/1", 5):
            with pytest.raises(ConfigError, match="not a token"):
                lock.adopt(token)  # type: ignore[arg-type]

        with lock:
            assert lock.acquire()
            assert lock.acquire()

            with pytest.raises(UsageError, match="held 2 times"):
                lock.transfer()

            with pytest.raises(UsageError, match="already"):
                lock.adopt("x1/1")
