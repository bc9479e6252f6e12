"""Threads: losses at awkward moments, watchdogs and heartbeats."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.redislock._threads import unreachable, until, watch_of
from ws_redislock._lease.lease import Lease, boot_time
from ws_redislock.errors import LockLost
from ws_redislock.sync import (
    CountingObserver,
    MutexLock,
)
from ws_redislock.sync._coordination.coordinator import QueueWatch, Waiter, coordinator_for
from ws_redislock.sync._lock import held as held_module
from ws_redislock.sync._lock.held import Held
from ws_redislock.sync._lock.renewal import RenewalWatchdog
from ws_redislock.sync._redis.script_client import ScriptClient

HOLDERS = "wsl:m:{k}:holders"


class TestHeld:
    """One acquisition."""

    def test_its_deadline_passed_unseen(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A release after a deadline that nobody noticed yet reports the loss."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        held = lock.current()
        held.uncertain = True  # an ENTER was not answered, and may still arrive
        monkeypatch.setattr(held_module, "boot_time", lambda: boot_time() + 1000)
        assert not lock.release()
        assert held._loss().context["reason"] == "its deadline passed"
        lock.close()
        assert client.pttl(f"wsl:m:{{k}}:done:{held.token}") > 10_000

    def test_ends_once(self, client: Redis):
        """A second end finds nothing left, and is not a loss."""
        lease = Lease(60, sent_at=boot_time())
        held = Held(
            name="k", token="x1", fence=1, lease=lease, coordinator=coordinator_for(client), since=0.0
        )
        assert held._end() > 59
        assert held._end() == 0.0
        assert not held.lost
        assert not held.renew()

    def test_is_lost_once(self, client: Redis):
        """The first reason stays, and is reported once."""
        observer = CountingObserver()
        lock = MutexLock(client, "k", 60, observer=observer)
        assert lock.acquire()
        held = lock.current()
        held._lose("first")
        held._lose("second")
        assert "first" in str(held._loss())
        assert observer.statistics().lost == 1
        assert not lock.release()

    def test_several_threads_wait_for_the_loss(self, client: Redis, pool: ThreadPoolExecutor):
        """All that wait notice of it."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        held = lock.current()
        first = pool.submit(held.wait_lost)
        until(lambda: held._event is not None)
        second = pool.submit(held.wait_lost)
        held._lose("for the test")
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
        held._end()

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
        """A loss between the acquisition and the block is reported at the block's end."""
        hold = MutexLock(client, "k", 60).hold()
        held = hold.acquire()
        held._lose("for the test")
        hold._enter()

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
        monkeypatch.setattr(RenewalWatchdog, "_check", lambda _self: pytest.fail("asked"))
        watch.look()
        watch._decide()
        assert watch._token not in watch._coordinator.held

    @pytest.mark.parametrize(
        ("jumps", "reason"), [((1000,), "could be renewed"), ((0, 1000), "was answered")]
    )
    def test_late(self, lock: MutexLock, jumps: tuple[float, ...], reason: str):
        """A renewal after the deadline, or answered after it, is a loss."""
        held, left = lock.current(), list(jumps)
        watch = watch_of(lock)
        watch._clock = lambda: boot_time() + (left.pop(0) if len(left) > 1 else left[0])
        assert not lock.renew()
        assert reason in str(held._loss())
        assert not lock.release()

    def test_the_deadline_has_moved(self, lock: MutexLock):
        """The timer of a deadline that was put off loses nothing."""
        watch_of(lock)._decide()
        assert lock.locked

    def test_a_look_that_fails(self, lock: MutexLock, monkeypatch: pytest.MonkeyPatch):
        """It changes nothing: the next regular renewal decides."""
        with monkeypatch.context() as patch:
            patch.setattr(ScriptClient, "once", unreachable)
            watch_of(lock)._check()

        assert lock.locked
        assert lock.release()


class TestCoordinator:
    """What the locks of one client share."""

    def test_a_heartbeat_for_nobody(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A queue without waiters sends nothing."""
        monkeypatch.setattr(ScriptClient, "once", lambda *_arguments: pytest.fail("sent"))
        coordinator = coordinator_for(client)
        queue = QueueWatch(coordinator, MutexLock(client, "k")._keys)
        coordinator.beat_soon(queue)
        until(lambda: not coordinator._jobs)
        assert queue.timer is None
        assert not coordinator._beating

    def test_a_heartbeat_that_fails(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """It is sent again before long."""
        monkeypatch.setattr(ScriptClient, "once", unreachable)
        coordinator = coordinator_for(client)
        queue = QueueWatch(coordinator, MutexLock(client, "k")._keys)
        queue.waiters["x1"] = Waiter("x1")
        coordinator._beat_round([queue])
        assert queue.timer is not None
        assert queue.due < time.monotonic() + 1
        queue.stop()

    def test_looks_at_all(self, client: Redis):
        """When wake-ups may be missing every queue looks at once; a closed coordinator beats no more."""
        lock = MutexLock(client, "k")
        coordinator = lock._bind()
        queue = coordinator._queues[lock._keys.identity] = QueueWatch(coordinator, lock._keys)
        queue.look_within(3.0)
        before = queue.due
        coordinator.look_at_all()
        assert queue.due < before
        coordinator.close()
        assert queue.timer is None
