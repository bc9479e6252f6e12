"""The subscription of a coordinator: refused, lost, silent, and no longer needed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis import exceptions

from tests.redislock._fakes import FakeCoordinator
from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._coordination.wakeups import IDLE, QUIET, WakeupSubscription
from ws_redislock._lease.lease import boot_time


@pytest.fixture
async def coordinator() -> FakeCoordinator:
    """Return a coordinator without a server."""
    return FakeCoordinator()


SUBSCRIBED = [b"subscribe", b"wsl:hub:h", 1]


class TestListener:
    """The subscription of a coordinator, with a driver and a clock of the test's own."""

    @pytest.fixture
    def listener(self, coordinator: FakeCoordinator) -> WakeupSubscription:
        """Return the listener of the coordinator."""
        return WakeupSubscription(cast("Coordinator", coordinator))

    async def test_ends_when_the_driver_connects_again_for_nobody(
        self, coordinator: FakeCoordinator, listener: WakeupSubscription
    ):
        """A subscription that nobody needs ends when the driver renews it by itself."""
        coordinator.pubsub.heard = iter([lambda: SUBSCRIBED, lambda: SUBSCRIBED])
        assert await listener.begin(None, boot_time())
        await asyncio.wait(coordinator.tasks)
        assert coordinator.tasks[0].exception() is None
        assert coordinator.pubsub.closed == 1

    async def test_who_asked_before_it_began_must_look_again(
        self, coordinator: FakeCoordinator, listener: WakeupSubscription
    ):
        """What was published before the subscription is lost; whoever asked after it has missed nothing."""
        forever = asyncio.Event()

        async def hear(**_: object) -> list[Any]:
            if listener._ready.is_set():
                await forever.wait()

            return SUBSCRIBED

        coordinator.pubsub.parse_response = hear  # type: ignore[method-assign]  # hears nothing more
        before = boot_time()
        assert await listener.begin(None, before)
        assert await listener.begin(None, before)  # another one, whose answer took longer
        assert not await listener.begin(None, boot_time())
        listener.stop()
        await asyncio.wait(coordinator.tasks)

    async def test_refused(self, coordinator: FakeCoordinator, listener: WakeupSubscription):
        """A server that refuses subscriptions is not asked again for a while."""
        coordinator.pubsub.refusal = exceptions.NoPermissionError("no channel for you")
        assert not await listener.begin(coordinator.clock.now + 1, boot_time())
        assert not await listener.begin(None, boot_time())
        assert len(coordinator.tasks) == 1
        coordinator.clock.now += 31
        coordinator.pubsub.refusal = None
        coordinator.pubsub.heard = iter([lambda: SUBSCRIBED, lambda: SUBSCRIBED])
        assert await listener.begin(None, boot_time())
        assert len(coordinator.tasks) == 2

    async def test_a_lost_connection_that_nobody_needs(
        self, coordinator: FakeCoordinator, listener: WakeupSubscription
    ):
        """When nobody waits, a lost connection ends the subscription without an error."""
        coordinator.pubsub.refusal = exceptions.ConnectionError("gone")
        assert not await listener.begin(None, boot_time())
        await asyncio.wait(coordinator.tasks)
        assert coordinator.tasks[0].exception() is None

    async def test_lingers(self, coordinator: FakeCoordinator, listener: WakeupSubscription):
        """It outlives the last waiter by a while, and goes on when somebody waits again by then."""
        listener.stop_when_idle()
        assert not coordinator.clock.timers  # it does not listen at all
        forever = asyncio.Event()

        async def hear(**_: object) -> list[Any]:
            if listener._ready.is_set():
                await forever.wait()

            return SUBSCRIBED

        coordinator.pubsub.parse_response = hear  # type: ignore[method-assign]  # hears nothing more
        assert await listener.begin(None, boot_time())
        listener.stop_when_idle()
        assert [when for when, _ in coordinator.clock.timers] == [coordinator.clock.now + IDLE]
        coordinator.waiting = True
        coordinator.clock.fire()
        await asyncio.sleep(0)
        assert not coordinator.tasks[0].done()
        coordinator.waiting = False
        listener.stop_when_idle()
        assert not await listener.begin(None, boot_time())  # takes the end back; it has begun long ago
        assert not coordinator.clock.timers
        listener.stop_when_idle()
        coordinator.clock.fire()
        await asyncio.wait(coordinator.tasks)
        assert coordinator.tasks[0].cancelled()
        assert coordinator.pubsub.closed == 1

    async def test_silent(self, coordinator: FakeCoordinator, listener: WakeupSubscription):
        """Only two quiet times in a row while somebody waits mean that it receives nothing any more."""

        def quiet() -> None:
            coordinator.clock.now += QUIET

        def somebody_waits() -> None:
            coordinator.waiting = True
            quiet()

        def health_check() -> None:
            coordinator.clock.now += 0.1

        coordinator.pubsub.heard = iter(
            [quiet, somebody_waits, health_check, quiet, lambda: [b"pong", b""], quiet, quiet]
        )
        assert await listener._read(coordinator.pubsub, listener._ready)
        assert coordinator.pubsub.pings == 3

    async def test_messages(self, coordinator: FakeCoordinator, listener: WakeupSubscription):
        """Messages become hints; a subscription that is late or new makes the waiters look."""
        ready = listener._ready
        assert listener._take([b"message", b"wsl:hub:h", b"a b"], ready)
        assert coordinator.hints == [[b"a", b"b"]]
        assert listener._take([b"pong", b""], ready)
        listener._late = True
        assert listener._take(SUBSCRIBED, ready)
        assert coordinator.looked == 1
        coordinator.waiting = True
        assert listener._take(SUBSCRIBED, ready)
        assert coordinator.looked == 2
        coordinator.waiting = False
        assert not listener._take(SUBSCRIBED, ready)
