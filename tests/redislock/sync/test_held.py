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
from ws_redislock.sync._concurrency import Job
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
        """Yield a held lock."""
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

    def test_a_look_during_a_renewal(self, lock: MutexLock):
        """The renewal may have been answered before the lock was taken: another follows it."""
        watch = watch_of(lock)
        watch._job = Job()
        watch.look()
        assert [watch._again] == [True]
        watch._finish()
        assert [watch._again] == [False]
        until(lambda: watch._job is None)
        assert lock.locked

    def test_only_one_renewal_at_a_time(self, lock: MutexLock):
        """A renewal that is due while one is in flight begins no other."""
        watch = watch_of(lock)
        in_flight = watch._job = Job()
        watch._clock = lambda: boot_time() + 25
        watch._decide()
        assert watch._job is in_flight
        watch._clock = boot_time
        watch._keep()  # nothing is due any more: it ends
        assert watch._job is None

    def test_lost_once(self, lock: MutexLock):
        """The first reason stays; a lock that has ended is neither lost nor looked at."""
        watch = watch_of(lock)
        watch._lose("first")
        watch._lose("second")
        assert lock.current().lost
        assert "first" in str(lock.current()._loss())
        watch._job = Job()
        watch._finish()
        assert watch._job is None

    def test_ended_while_it_was_renewed(self, lock: MutexLock, monkeypatch: pytest.MonkeyPatch):
        """A renewal that is answered after the end of its lease changes nothing."""
        watch = watch_of(lock)

        def answer(*_arguments: object) -> list[int]:
            watch._lease.end()
            return [1]

        with monkeypatch.context() as patch:
            patch.setattr(ScriptClient, "once", answer)
            assert not watch.renew()

        assert not lock.current().lost


class TestCoordinator:
    """What the locks of one client share."""

    def test_one_round_at_a_time(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """A queue that is due during a round joins the next one, and a round that breaks off ends."""
        coordinator = coordinator_for(client)
        queue = QueueWatch(coordinator, MutexLock(client, "k")._keys)
        coordinator._beating = True
        coordinator.beat_soon(queue)
        assert coordinator._due == [queue]
        assert not coordinator._jobs
        assert coordinator._take_due() == []

        def stop() -> list[QueueWatch]:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(coordinator, "_take_due", stop)
            coordinator._beating = True

            with pytest.raises(SystemExit):
                coordinator._beat()

        assert not coordinator._beating

    def test_no_answer_at_all(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """Queues with waiters look again before long, those without do not."""
        monkeypatch.setattr(ScriptClient, "many", unreachable)
        coordinator = coordinator_for(client)
        waiting, left = (QueueWatch(coordinator, MutexLock(client, name)._keys) for name in ("k", "l"))
        waiting.waiters["x1"] = Waiter("x1")
        coordinator._beat_round([waiting, left])
        assert waiting.timer is not None
        assert left.timer is None
        waiting.stop()

    def test_looks_between_heartbeats(self, client: Redis):
        """They name no waiter; those behind a token that nobody has are nobody's."""
        coordinator = coordinator_for(client)
        lock = MutexLock(client, "k")
        queue = QueueWatch(coordinator, lock._keys)
        queue.waiters["x1"] = Waiter("x1")
        assert coordinator._beat_call(queue)[2][-1] == "x1"
        assert coordinator._beat_call(queue)[2][-1] != "x1"
        assert not coordinator.contended(lock._keys)
        coordinator.grant("unknown", 0.0, 1)
        coordinator.wake([b"unknown", "unknown"])
        coordinator.remove_waiter(queue.waiters["x1"])

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
