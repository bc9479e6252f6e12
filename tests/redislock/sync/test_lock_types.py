"""Threads: semaphores, readers and writers, elections, limiters, claims, and the timers under them."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest
from redis import Redis

from tests.redislock._helpers import cluster_client
from tests.redislock._threads import until
from tests.servers import StartServer
from tools.servers import RedisServer, SentinelServers
from ws_redislock.errors import ConfigError, LockLost, LockNotAcquired, UnavailableError, UsageError
from ws_redislock.sync import (
    CountingObserver,
    FrequencyLimiter,
    LeaderElection,
    MultiLock,
    MutexLock,
    ReadWriteLock,
    RunClaims,
    Semaphore,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_redislock.sync._concurrency import Timers, current_loop
from ws_redislock.sync.limiter import OnError


class TestOthers:
    """The other kinds, once each: their logic is the same text."""

    def test_semaphore(self, any_client: Redis):
        """Two of three get a permit."""
        locks = [Semaphore(any_client, "s", 2, 60) for _ in range(3)]
        assert [lock.acquire() for lock in locks] == [True, True, False]
        assert [lock.release() for lock in locks] == [True, True, False]

    def test_read_write_lock(self, any_client: Redis):
        """Readers share, a writer does not."""
        lock = ReadWriteLock(any_client, "rw", 60)

        with lock.read().hold(), lock.read().hold():
            assert not lock.write().acquire()

        with lock.write().hold():
            assert not lock.read().acquire()

    def test_multi_lock(self, any_client: Redis):
        """All names or none."""
        with MultiLock(any_client, ["b", "a"], 60) as lock, lock.hold() as fences:
            assert list(fences) == ["a", "b"]
            lock.check()
            assert not MultiLock(any_client, ["b", "c"], 60).acquire()
            assert MutexLock(any_client, "c", 60).owner() is None

    def test_election(self, any_client: Redis):
        """A lost term is followed by the next."""
        fences = []

        with LeaderElection(any_client, "l", lease=60) as election:
            for term in election:
                fences.append(term.fence)

                if len(fences) == 2:
                    break

                with term:
                    assert election.depose()
                    term.wait_over()
                    term.check()

        assert fences == sorted(set(fences))

    def test_limiters_and_claims(self, any_client: Redis):
        """They count as their twins do."""
        assert [FrequencyLimiter(any_client, 60, 2).is_limited("k") for _ in range(3)] == [False, False, True]
        assert [TokenBucketLimiter(any_client, 1, 2).hit("k").allowed for _ in range(3)] == [
            True,
            True,
            False,
        ]

        with RunClaims(any_client) as claims:
            assert claims.claim("run", 60)
            assert not claims.claim("run", 60)
            claims.give_back("run")
            assert claims.claim("run", 60)

        with pytest.raises(ConfigError):
            Semaphore(any_client, "s", 0)

    def test_limiter_options(self, any_client: Redis):
        """Policies, the memory of denials, peeking and wrong numbers work as in the twin."""
        policies: tuple[tuple[OnError, bool], ...] = (("open", True), ("closed", False))

        for policy, allowed in policies:
            with FrequencyLimiter("redis://127.0.0.1:1/0", 60, 3, on_error=policy, timeout=0.05) as lost:
                verdict = lost.hit("k")
                assert (verdict.allowed, verdict.degraded) == (allowed, True)

        now = 100.0
        limiter = TokenBucketLimiter(any_client, 0.01, 1, deny_cache=1, clock=lambda: now)
        assert limiter.hit("k").allowed
        denied = limiter.hit("k")
        any_client.flushall()
        assert not limiter.hit("k").allowed
        now += denied.retry_after
        assert limiter.hit("k").allowed
        assert limiter.peek("k").remaining == 0
        limiter.hit("k")
        limiter.hit("other")
        limiter.hit("other")
        assert list(limiter._denied) == [("other", 1)]
        limiter.reset("other")
        assert limiter.peek("other").allowed
        assert SlidingWindowLimiter(any_client, 60, 2, namespace="x").hit("k").remaining == 1

        with pytest.raises(UsageError, match="can never"):
            limiter.hit("k", 2)

        for wrong in ({"on_error": "maybe"}, {"deny_cache": -1}, {"timeout": 0}):
            with pytest.raises(ConfigError):
                FrequencyLimiter(any_client, 60, 3, **wrong)

        for numbers in ((0, 3), (1e-9, 3), (60, 0)):
            with pytest.raises(ConfigError):
                FrequencyLimiter(any_client, *numbers)

        with pytest.raises(ConfigError):
            TokenBucketLimiter(any_client, 0.333333333333, 10**9)

        with pytest.raises(ConfigError):
            TokenBucketLimiter(any_client, 1e-9, 3)

    def test_misuse(self, any_client: Redis):
        """Wrong use is refused in threads as well."""
        lock = MutexLock(any_client, "k", 60)

        with pytest.raises(UsageError, match="acquire it first"):
            lock.check()

        assert not lock.release()
        assert repr(lock) == "<MutexLock 'k' not held>"
        assert (lock.name, lock.expire, lock.remaining) == ("k", 60, 0.0)

        with lock.hold():
            assert repr(lock.current()).endswith("held>")
            assert "left" in repr(lock)

            with pytest.raises(UsageError, match="held by this object"):
                lock.acquire()

        with pytest.raises(ConfigError, match="min_replicas"):
            MutexLock(any_client, "k", 60, min_replicas=-1)

        with pytest.raises(ConfigError, match="expire"):
            MutexLock(any_client, "k", 0)

        with pytest.raises(ConfigError, match="expire"):
            MutexLock(any_client, "k", "60")  # type: ignore[arg-type]

        with pytest.warns(RuntimeWarning, match="expire"):
            MutexLock(any_client, "k", 0.4)

        with pytest.raises(ConfigError):
            MultiLock(any_client, [])

        with pytest.raises(ConfigError):
            MultiLock(any_client, "abc")

        with pytest.raises(ConfigError, match="ttl"):
            RunClaims(any_client).claim("run", 0)

        with RunClaims("redis://127.0.0.1:1/0", timeout=0.05) as claims, pytest.raises(UnavailableError):
            claims.claim("run", 1)

    def test_a_forked_process(self, any_client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A lock that was used before a fork is refused in the child, whose tokens would be the same."""
        lock = MutexLock(any_client, "k", 60)
        assert lock.acquire()

        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)

            with pytest.raises(UsageError, match="forked"):
                lock.exists()

        assert lock.release()

    def test_observers(self, any_client: Redis):
        """Every event is counted."""
        observer = CountingObserver()
        one, two = (MutexLock(any_client, "k", 60, observer=observer) for _ in range(2))
        assert one.acquire()
        assert not two.acquire(0.5)
        assert one.release()
        numbers = observer.statistics()
        assert (numbers.acquired, numbers.contended, numbers.not_acquired) == (1, 1, 1)

    def test_several_names(self, any_client: Redis):
        """What several names report of themselves, and when they are lost."""
        lock = MultiLock(any_client, ["b", "a"], 60)
        assert repr(lock) == "<MultiLock 'a', 'b'>"
        assert lock.names == ("a", "b")

        with pytest.raises(LockLost), lock.hold():
            any_client.flushall()

        with MutexLock(any_client, "b", 60).hold(), pytest.raises(LockNotAcquired):
            lock.hold(0).__enter__()

        assert not lock.release()
        assert not lock.locked

    def test_elections(self, any_client: Redis):
        """What an election reports itself; an error in a term comes out."""
        election = LeaderElection(any_client, "l", lease=60)
        assert repr(election) == "<LeaderElection 'l'>"
        assert election.leader() is None
        term = next(election)
        assert election.leading
        assert term.leading
        error = ZeroDivisionError()

        with pytest.raises(ZeroDivisionError), term:
            raise error

        assert ReadWriteLock(any_client, "rw").name == "rw"
        assert repr(ReadWriteLock(any_client, "rw")) == "<ReadWriteLock 'rw'>"
        assert Semaphore(any_client, "s", 2).permits == 2

    def test_a_release_without_an_answer(self, start_server: StartServer):
        """A release that is not answered says so; a block that ends then does not raise."""
        server = start_server(RedisServer)

        with Redis.from_url(server.url) as client:
            lock = MutexLock(client, "k", 1.0)

            with lock.hold():
                server.pause()

            assert not lock.locked
            server.resume()
            lock.close()

    def test_cluster(self, cluster_url: str):
        """A cluster's client does as well."""
        with cluster_client(cluster_url) as client:
            for number in range(6):
                with MutexLock(client, f"k{number}", 60).hold():
                    assert not MutexLock(client, f"k{number}", 60).acquire()

    def test_replicas_must_confirm(self, start_server: StartServer):
        """With min_replicas a replica must have confirmed it."""
        servers = start_server(SentinelServers)
        servers.wait_settled()
        (replica,) = servers.replicas

        with Redis.from_url(servers.master.url) as client:
            with MutexLock(client, "k", 60, min_replicas=1).hold():
                pass

            replica.pause()
            lock = MutexLock(client, "k", 1, min_replicas=1)

            with pytest.raises(UnavailableError, match="only 0 of 1"):
                lock.acquire()

            lock.close()
            assert not lock.exists()
            replica.resume()


class TestTimers:
    """The thread of timers."""

    def test_fires_in_order(self):
        """Timers fire when they are due, whatever the order in which they were set."""
        fired: list[float] = []
        timers = Timers(current_loop())
        timers.cancel(timers.call_later(0.02, partial(fired.append, 0.0)))

        for seconds in (0.06, 0.03, 0.01):
            timers.call_later(seconds, partial(fired.append, time.monotonic() + seconds))

        until(lambda: len(fired) == 3)
        assert fired == sorted(fired)
