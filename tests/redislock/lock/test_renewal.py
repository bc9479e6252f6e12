"""The watchdog at awkward moments, and acquisitions that are over or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest
from redis import exceptions
from redis.asyncio import Redis

from tests.redislock._fakes import FakeCoordinator
from ws_redislock import LockLost, MutexLock
from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._lease.cancel_scope import CancelScope
from ws_redislock._lease.lease import Lease
from ws_redislock._lock.held import Held
from ws_redislock._lock.renewal import RenewalWatchdog


@pytest.fixture
async def coordinator() -> FakeCoordinator:
    """Return a coordinator without a server."""
    return FakeCoordinator()


class Losses(list[str]):
    """What a watch was notified of."""

    _lose = list.append


class TestWatch:
    """The watchdog, with a server and a clock of the test's own."""

    def make(self, coordinator: FakeCoordinator) -> tuple[RenewalWatchdog, Lease, Losses]:
        """RenewalWatchdog a lease of 30 s."""
        losses = Losses()
        lease = Lease(30.0, sent_at=coordinator.clock.now)
        watch = RenewalWatchdog(
            cast("Coordinator", coordinator),
            lease,
            "t",
            keys=(b"k",),
            args=("t",),
            target=losses,
            clock=coordinator.clock,
        )
        watch.start()
        return watch, lease, losses

    async def test_stopped_during_a_look(self, coordinator: FakeCoordinator):
        """A watch that is stopped cancels its renewal."""
        watch, lease, losses = self.make(coordinator)
        watch.look()
        await asyncio.sleep(0)
        watch.stop()
        await asyncio.wait(coordinator.tasks)
        assert coordinator.tasks[0].cancelled()
        assert not losses
        assert not coordinator.clock.timers
        lease.end()
        watch.look()
        assert len(coordinator.tasks) == 1  # nothing to look at any more

    async def test_renewed_after_the_deadline(self, coordinator: FakeCoordinator):
        """A lease that is over by the clock is lost without asking, and only once."""
        watch, _, losses = self.make(coordinator)
        coordinator.clock.now += 30
        assert not await watch.renew()
        assert not await watch.renew()
        assert losses == ["its deadline passed before it could be renewed"]

    async def test_answered_after_the_deadline(self, coordinator: FakeCoordinator):
        """A renewal whose reply is seen after the deadline comes too late."""
        watch, _, losses = self.make(coordinator)

        def late() -> list[int]:
            coordinator.clock.now += 30
            return [1]

        coordinator.once = late
        assert not await watch.renew()
        assert losses == ["its deadline passed before the renewal was answered"]

    async def test_released_meanwhile(self, coordinator: FakeCoordinator):
        """A renewal that is answered after the lock was given back renews nothing and loses nothing."""
        watch, lease, losses = self.make(coordinator)

        def released() -> list[int]:
            lease.end()
            return [0]

        coordinator.once = released
        assert not await watch.renew()
        assert not losses

    async def test_due_during_a_look(self, coordinator: FakeCoordinator):
        """A renewal that is due while a look is under way waits for it, and a failed look is not a loss."""
        watch, lease, losses = self.make(coordinator)
        replies: Iterator[list[int]] = iter([[1]])

        def fail() -> list[int]:
            coordinator.once = lambda: next(replies)
            raise exceptions.ConnectionError("gone")

        coordinator.once = fail
        watch.look()
        coordinator.clock.fire()
        assert len(coordinator.tasks) == 1
        await coordinator.tasks[0]
        await coordinator.tasks[1]  # the look failed, and the renewal that was due came after it
        assert not losses
        assert lease.renew_at == coordinator.clock.now + 10
        watch.stop()


class TestHeld:
    """What a holder sees."""

    async def test_twice_lost(self, redis7: Redis):
        """A loss is reported once, and those who wait for it all see it."""
        lost: list[Held] = []
        lock = MutexLock(redis7, "k", 60, on_lost=lost.append)
        assert await lock.acquire()
        held = lock.current()
        assert repr(held) == f"<Held 'k' fence={held.fence} held>"
        waiters = [asyncio.create_task(held.wait_lost()) for _ in range(2)]
        await asyncio.sleep(0)
        held._lose("first")
        held._lose("second")
        await asyncio.gather(*waiters)
        await held.wait_lost()
        assert lost == [held]
        assert "first" in str(held._loss())
        assert repr(held) == f"<Held 'k' fence={held.fence} lost>"
        held._end()
        assert held._end() == 0  # a second end changes nothing
        await lock.aclose()

    async def test_over(self, redis7: Redis):
        """A lock that was given back is over, not lost."""
        lock = MutexLock(redis7, "k", 60)
        assert await lock.acquire()
        held = lock.current()
        assert await lock.release()
        assert repr(held).endswith(" over>")
        assert not held.lost

        with pytest.raises(LockLost, match="it was released"):
            held.check()

    async def test_cancels_once(self):
        """A body that two locks want to cancel is cancelled once."""

        async def body() -> int:
            scope = CancelScope()
            scope.cancel("one")
            scope.cancel("other")
            task = asyncio.current_task()
            assert task is not None
            count = task.cancelling()
            await scope.leave(None)
            return count

        assert await asyncio.create_task(body()) == 1
