"""Corners of the twin for threads: bad input, late replies, outages, and losses at awkward moments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError
from redis.retry import Retry

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock._lease import Lease, boot_time
from ws_redislock.errors import ConfigError, LockLost, LockNotAcquired, UnavailableError, UsageError
from ws_redislock.sync import (
    CountingObserver,
    FrequencyLimiter,
    LeaderElection,
    MultiLock,
    MutexLock,
    _acquire,
    _held,
)
from ws_redislock.sync._calls import Caller
from ws_redislock.sync._held import Held
from ws_redislock.sync._hub import Line, Waiter, hub_for
from ws_redislock.sync._look import Looking
from ws_redislock.sync._scope import all_done
from ws_redislock.sync._watch import Watch

NOWHERE = "redis://127.0.0.1:1/0"
AT_ONCE = Retry(NoBackoff(), 0)
HOLDERS = "wsl:m:{k}:holders"


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """Give a blocking client."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def until(condition: Callable[[], object]) -> None:
    """Let other threads go on until something is true."""
    end = time.monotonic() + 10

    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def watch_of(lock: MutexLock) -> Watch:
    """Return the watchdog of a held lock."""
    watch = lock.current()._watch
    assert watch is not None
    return watch


def unreachable(*_arguments: object) -> object:
    """Stand in for a call that finds no server."""
    raise ConnectionError("gone")


class TestBadInput:
    """What cannot work is refused before any command."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("expire", 1e15),
            ("expire", 0.001),
            ("heartbeat", 1e15),
            ("lock_delay", -1),
            ("min_replicas", True),
            ("on_lost", 3),
            ("auto_renew", None),
            ("reentrant", 1),
        ],
    )
    def test_options(self, client: Redis, option: str, value: object):
        """Each error names the option and the value."""
        with pytest.raises(ConfigError, match=f"{option} must be") as caught:
            MutexLock(client, "k", **{option: value})  # type: ignore[arg-type]

        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("seconds", [-1, float("nan"), "x", True])
    def test_timeouts(self, client: Redis, seconds: float):
        """A timeout that is no time is refused, wherever it is given."""
        for call in (
            MutexLock(client, "k").acquire,
            MutexLock(client, "k").wait,
            MultiLock(client, ["k", "l"]).acquire,
        ):
            with pytest.raises(ConfigError, match="timeout must be"):
                call(seconds)

    def test_replicas_of_a_cluster(self, cluster_url: str):
        """A cluster cannot wait for replicas on the connection of a script."""
        with (
            RedisCluster.from_url(cluster_url) as client,
            pytest.raises(UsageError, match="not a cluster"),
        ):
            MutexLock(client, "k", min_replicas=1).acquire()

    def test_a_look_needs_a_lock(self):
        """The part that only looks cannot be used by itself."""
        with pytest.raises(NotImplementedError):
            Looking()._bind()


class TestLateReplies:
    """Replies that come after the end of their own lease."""

    @pytest.fixture(autouse=True)
    def _late(self, monkeypatch: pytest.MonkeyPatch):
        """Let the clock that judges a granted lease run far ahead."""
        monkeypatch.setattr(_acquire, "boot_time", lambda: boot_time() + 1000)

    def test_one_try(self, client: Redis):
        """A single try fails, and nothing stays behind."""
        lock = MutexLock(client, "k", 60)
        assert not lock.acquire()
        lock.close()
        assert not lock.exists()

    def test_three_are_enough(self, client: Redis):
        """Waiting for ever, three of them are an error."""
        lock = MutexLock(client, "k", 60)

        with pytest.raises(UnavailableError, match="3 replies in a row came after"):
            lock.acquire(None)

        lock.close()
        assert not lock.exists()

    def test_end_with_the_timeout(self, client: Redis):
        """The timeout counts also when every reply comes too late."""
        lock = MutexLock(client, "k", 60)
        assert not lock.acquire(1e-9)
        lock.close()
        assert not lock.exists()


class TestAcquiring:
    """The way to a lock."""

    def test_given_up_by_the_server(self, client: Redis, pool: ThreadPoolExecutor):
        """An acquisition that the server refuses for good is an error, and no endless wait."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        assert first.acquire()
        waiting = pool.submit(second.acquire, None)
        until(first.waiters)
        hub = hub_for(client)
        (waiter,) = hub._waiters.values()
        second._abandon(hub, waiter.token, 1.0)
        waiter.wake()

        with pytest.raises(UnavailableError, match="gave up this acquisition"):
            waiting.result(10)

        assert first.release()

    def test_once_at_a_time(self, client: Redis, pool: ThreadPoolExecutor):
        """An object that another thread acquires by now is refused."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        assert first.acquire()
        waiting = pool.submit(second.acquire, None)
        until(first.waiters)

        with pytest.raises(UsageError, match="is being acquired"):
            second.acquire()

        assert first.release()
        assert waiting.result(10)
        assert second.release()

    @pytest.mark.parametrize("min_replicas", [0, 1])
    def test_a_key_of_another_type(self, client: Redis, min_replicas: int):
        """A mistake in the data stays what it is, with and without replicas to confirm."""
        client.set(HOLDERS, "x")
        lock = MutexLock(client, "k", 60, min_replicas=min_replicas)

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            lock.acquire()

        client.delete(HOLDERS)
        assert not lock.exists()

    def test_replicas_through_a_client_of_another_class(self, redis_url: str):
        """A client with commands of its own is asked through its pipeline."""

        class Own(Redis):
            def execute_command(self, *args: Any, **options: Any) -> Any:  # as the driver's
                return super().execute_command(*args, **options)

        with Own.from_url(redis_url) as client:
            lock = MutexLock(client, "k", 0.5, min_replicas=1)

            with pytest.raises(UnavailableError, match="only 0 of 1"):
                lock.acquire()

            lock.close()
            assert not lock.exists()

    def test_through_an_outage(
        self,
        start_server: StartServer,
        pool: ThreadPoolExecutor,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ):
        """A waiter without a deadline gets the lock after the outage, one with a deadline an error."""
        monkeypatch.setattr(_acquire, "BUDGET", 0.1)
        server = start_server(RedisServer)

        with Redis.from_url(server.url) as client:
            held = MutexLock(client, "held", 60)
            assert held.acquire()
            server.kill()

            with pytest.raises(UnavailableError, match="RENEW"):
                held.renew()

            lock = MutexLock(client, "k", 60)
            waiting = pool.submit(lock.acquire, None)

            with pytest.raises(UnavailableError):
                MutexLock(client, "k2", 60).acquire(0.2)

            until(lambda: "through an outage" in caplog.text)
            assert not waiting.done()
            server.restart()
            assert waiting.result(20)
            assert lock.release()
            assert not held.release()
            held.close()

    def test_waits_for_ever(self, client: Redis):
        """Without a timeout, the wait for a free lock ends when it is free."""
        assert MutexLock(client, "k", 60).wait()


class TestHeld:
    """One acquisition."""

    def test_its_deadline_passed_unseen(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A release after a deadline that nobody noticed yet tells the loss."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        held = lock.current()
        held.doubtful = True  # an ENTER was not answered, and may still arrive
        monkeypatch.setattr(_held, "boot_time", lambda: boot_time() + 1000)
        assert not lock.release()
        assert held.loss().context["reason"] == "its deadline passed"
        lock.close()
        assert client.pttl(f"wsl:m:{{k}}:done:{held.token}") > 10_000

    def test_ends_once(self, client: Redis):
        """A second end finds nothing left, and is no loss."""
        lease = Lease(60, sent_at=boot_time())
        held = Held(name="k", token="x1", fence=1, lease=lease, hub=hub_for(client), since=0.0)
        assert held.end() > 59
        assert held.end() == 0.0
        assert not held.lost
        assert not held.renew()

    def test_is_lost_once(self, client: Redis):
        """The first reason stays, and is told once."""
        observer = CountingObserver()
        lock = MutexLock(client, "k", 60, observer=observer)
        assert lock.acquire()
        held = lock.current()
        held.lose("first")
        held.lose("second")
        assert "first" in str(held.loss())
        assert observer.statistics()["lost"] == 1
        assert not lock.release()

    def test_several_threads_wait_for_the_loss(self, client: Redis, pool: ThreadPoolExecutor):
        """All that wait hear of it."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        held = lock.current()
        first = pool.submit(held.wait_lost)
        until(lambda: held._event is not None)
        second = pool.submit(held.wait_lost)
        held.lose("for the test")
        first.result(10)
        second.result(10)
        assert not lock.release()

    def test_dropped(self, client: Redis):
        """A lock that is dropped while it is held warns, and is renewed no more."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        held = lock.current()

        with pytest.warns(ResourceWarning, match="dropped while it was held"):
            del lock

        assert not held._lease.renewing
        held.end()

    def test_a_renewal_that_is_refused(self, client: Redis):
        """A mistake in the data comes out of a renewal as it is."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        client.set(HOLDERS, "x")

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            lock.renew()

        client.delete(HOLDERS)
        assert not lock.release()

    def test_reentered_by_one_object(self, client: Redis):
        """The lock is given back with the last release."""
        lock = MutexLock(client, "k", 60, reentrant=True)
        assert lock.acquire()
        assert lock.acquire()
        assert lock.release()
        assert lock.locked
        assert lock.release()
        assert not lock.exists()

    def test_lost_before_the_block(self, client: Redis):
        """A loss between the acquisition and the block is told at the block's end."""
        hold = MutexLock(client, "k", 60).hold()
        held = hold.acquire()
        held.lose("for the test")
        hold.enter()

        with pytest.raises(LockLost, match="for the test"):
            hold.__exit__(None, None, None)


class TestWatch:
    """The watchdog of one lock."""

    @pytest.fixture
    def lock(self, client: Redis) -> Iterator[MutexLock]:
        """Give a held lock."""
        with MutexLock(client, "k", 60) as lock:
            assert lock.acquire()
            yield lock

    def test_nothing_to_look_at(self, lock: MutexLock, monkeypatch: pytest.MonkeyPatch):
        """A lease that is over is not asked for."""
        watch = watch_of(lock)
        assert lock.release()
        monkeypatch.setattr(Watch, "_check", lambda _self: pytest.fail("asked"))
        watch.look()
        watch._schedule()
        assert watch._token not in watch._hub.held

    @pytest.mark.parametrize(
        ("jumps", "reason"), [((1000,), "could be renewed"), ((0, 1000), "was answered")]
    )
    def test_late(self, lock: MutexLock, jumps: tuple[float, ...], reason: str):
        """A renewal after the deadline, or answered after it, is a loss."""
        held, left = lock.current(), list(jumps)
        watch = watch_of(lock)
        watch._clock = lambda: boot_time() + (left.pop(0) if len(left) > 1 else left[0])
        assert not lock.renew()
        assert reason in str(held.loss())
        assert not lock.release()

    def test_the_deadline_has_moved(self, lock: MutexLock):
        """The timer of a deadline that was put off loses nothing."""
        watch_of(lock)._expire()
        assert lock.locked

    def test_a_look_that_fails(self, lock: MutexLock, monkeypatch: pytest.MonkeyPatch):
        """It changes nothing: the next regular renewal will tell."""
        with monkeypatch.context() as patch:
            patch.setattr(Caller, "once", unreachable)
            watch_of(lock)._check()

        assert lock.locked
        assert lock.release()


class TestHub:
    """What the locks of one client share."""

    def test_a_heartbeat_for_nobody(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A line without waiters sends nothing."""
        monkeypatch.setattr(Caller, "once", lambda *_arguments: pytest.fail("sent"))
        line = Line(hub_for(client), MutexLock(client, "k")._spec)
        line.beat()
        assert line.timer is None

    def test_a_heartbeat_that_fails(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """It is sent again before long."""
        monkeypatch.setattr(Caller, "once", unreachable)
        line = Line(hub_for(client), MutexLock(client, "k")._spec)
        line.waiters["x1"] = Waiter("x1")
        line.beat()
        assert line.timer is not None
        assert line.due < time.monotonic() + 1
        line.stop()

    def test_looks_at_all(self, client: Redis):
        """When wake-ups may be missing every line looks at once; a closed hub beats no more."""
        lock = MutexLock(client, "k")
        hub = lock._bind()
        line = hub._lines[lock._spec.identity] = Line(hub, lock._spec)
        line.look_within(3.0)
        before = line.due
        hub.look_at_all()
        assert line.due < before
        hub.close()
        assert line.timer is None


class TestElection:
    """Terms of office."""

    def test_lost_in_the_block(self, client: Redis):
        """The loss that the block found itself ends the block silently; another's loss comes out."""
        with LeaderElection(client, "l", lease=60) as election:
            with next(election) as term:
                assert election.depose()
                term.wait_over()
                term.check()
                pytest.fail("went on")

            term = next(election)

            with term:
                assert election.depose()
                term.wait_over()

            assert not term.leading

    def test_stands_again(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        """A candidate that was refused for now stands again."""
        client.config_set("maxmemory", 1)
        election = LeaderElection(client, "l", lease=60)
        sleep, pauses = election._lock.rest, list[float]()

        def rest(seconds: float) -> None:
            pauses.append(seconds)
            sleep(0.0)
            client.config_set("maxmemory", 0)

        monkeypatch.setattr(election._lock, "rest", rest)

        try:
            assert next(election).leading
        finally:
            client.config_set("maxmemory", 0)

        assert len(pauses) == 1
        assert "stands again" in caplog.text
        election.close()

    def test_refused_credentials_are_told(self, start_server: StartServer):
        """A wrong password ends the candidature."""
        server = start_server(RedisServer, config={"requirepass": "right"})

        with (
            Redis(host=server.host, port=server.port, password="wrong", retry=AT_ONCE) as client,
            pytest.raises(UnavailableError),
        ):
            next(LeaderElection(client, "l", lease=60))


class TestLimiter:
    """Limiters without a server, and on clients of their own."""

    def test_peek_without_a_server(self):
        """A look that is not answered says that the policy decided."""
        with FrequencyLimiter(NOWHERE, 60, 3, on_error="open", timeout=0.05) as limiter:
            verdict = limiter.peek("k")

        assert (verdict.allowed, verdict.degraded) == (True, True)

    def test_raises_without_a_server(self):
        """By default a hit that is not answered is an error."""
        with FrequencyLimiter(NOWHERE, 60, 3, timeout=0.05) as limiter, pytest.raises(UnavailableError):
            limiter.hit("k")

    def test_leaves_the_users_client_open(self, client: Redis):
        """Closing a limiter closes nothing that it did not make."""
        with FrequencyLimiter(client, 60, 3) as limiter:
            assert limiter.hit("k").remaining == 2

        assert client.ping()


class TestOwnClients:
    """Locks made from a URL."""

    def test_a_block_closes_its_client(self, redis_url: str):
        """After a block, and after one that was not entered, the own client is closed."""
        one, other = MutexLock(redis_url, "k", 60), MutexLock(redis_url, "k", 60)

        with one.hold():
            assert one._owned is not None

            with pytest.raises(LockNotAcquired):
                other.hold(0).__enter__()

        assert one._owned is None
        assert other._owned is None
        other.close()

    def test_an_error_closes_it_too(self):
        """So does an acquisition without a server."""
        lock = MutexLock(NOWHERE, "k", 0.5)

        with pytest.raises(UnavailableError):
            lock.hold(0.1).__enter__()

        assert lock._owned is None

    def test_several_share_one(self, redis_url: str, client: Redis):
        """Several names work on one client, which the end of the block closes."""
        lock = MultiLock(redis_url, ["a", "b"], 60)

        for _ in range(2):
            with lock.hold():
                first, second = (part._hub for part in lock._locks)
                assert first is second
                assert MutexLock(client, "b").exists()

        assert lock._locks[0]._owned is None
        assert not MutexLock(client, "b").exists()

        with MutexLock(client, "b").hold(), pytest.raises(LockNotAcquired):
            lock.hold(0).__enter__()

        unreachable_lock = MultiLock(NOWHERE, ["a", "b"], 0.5)

        with pytest.raises(UnavailableError):
            unreachable_lock.hold(0.1).__enter__()

        assert unreachable_lock._locks[0]._owned is None


class TestSeveral:
    """Errors of several names."""

    def test_all_are_asked(self):
        """An error of one does not keep the others from being asked."""
        first, last = all_done([lambda: 1 // 0, lambda: 2])
        assert isinstance(first, ZeroDivisionError)
        assert last == 2

    @pytest.mark.parametrize("step", ["release", "close"])
    def test_an_error_comes_out(self, client: Redis, monkeypatch: pytest.MonkeyPatch, step: str):
        """When one cannot be given back the others are, and the error is told."""
        lock = MultiLock(client, ["a", "b"], 60)
        assert lock.acquire()

        with monkeypatch.context() as patch:
            patch.setattr(lock._locks[1], step, unreachable)

            with pytest.raises(ConnectionError, match="gone"):
                getattr(lock, step)()

        assert not MutexLock(client, "a").exists()
        assert MutexLock(client, "b").exists()
        lock.close()

    def test_a_block_that_cannot_give_back(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        """The block's work counts: that the release was not answered is logged only."""

        def silent() -> bool:
            raise UnavailableError("no answer")

        lock = MultiLock(client, ["a", "b"], 60)

        with caplog.at_level(logging.WARNING, logger="ws_redislock"), lock.hold():
            part = lock._locks[1]
            release = part.release
            monkeypatch.setattr(part, "release", silent)

        assert "no answer" in caplog.text
        assert release()
