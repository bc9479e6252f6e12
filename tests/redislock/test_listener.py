"""The subscription of a hub: refused, lost, deaf, and no longer needed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis import exceptions

from tests.redislock._fakes import FakeHub
from ws_redislock._hub import Hub
from ws_redislock._lease import boot_time
from ws_redislock._listen import LINGER, QUIET, Listener


@pytest.fixture
async def hub() -> FakeHub:
    """Give a hub without a server."""
    return FakeHub()


SUBSCRIBED = [b"subscribe", b"wsl:hub:h", 1]


class TestListener:
    """The subscription of a hub, with a driver and a clock of the test's own."""

    @pytest.fixture
    def listener(self, hub: FakeHub) -> Listener:
        """Give the listener of the hub."""
        return Listener(cast("Hub", hub))

    async def test_ends_when_the_driver_connects_again_for_nobody(self, hub: FakeHub, listener: Listener):
        """A subscription that nobody needs ends when the driver renews it by itself."""
        hub.pubsub.heard = iter([lambda: SUBSCRIBED, lambda: SUBSCRIBED])
        assert await listener.begin(None, boot_time())
        await asyncio.wait(hub.tasks)
        assert hub.tasks[0].exception() is None
        assert hub.pubsub.closed == 1

    async def test_who_asked_before_it_began_must_look_again(self, hub: FakeHub, listener: Listener):
        """What was published before the subscription is lost; whoever asked after it has missed nothing."""
        forever = asyncio.Event()

        async def hear(**_: object) -> list[Any]:
            if listener._subscribed is not None and listener._subscribed.done():
                await forever.wait()

            return SUBSCRIBED

        hub.pubsub.parse_response = hear  # type: ignore[method-assign]  # hears nothing more
        before = boot_time()
        assert await listener.begin(None, before)
        assert await listener.begin(None, before)  # another one, whose answer took longer
        assert not await listener.begin(None, boot_time())
        listener.stop()
        await asyncio.wait(hub.tasks)

    async def test_refused(self, hub: FakeHub, listener: Listener):
        """A server that refuses subscriptions is not asked again for a while."""
        hub.pubsub.refusal = exceptions.NoPermissionError("no channel for you")
        assert not await listener.begin(hub.clock.now + 1, boot_time())
        assert not await listener.begin(None, boot_time())
        assert len(hub.tasks) == 1
        hub.clock.now += 31
        hub.pubsub.refusal = None
        hub.pubsub.heard = iter([lambda: SUBSCRIBED, lambda: SUBSCRIBED])
        assert await listener.begin(None, boot_time())
        assert len(hub.tasks) == 2

    async def test_a_lost_connection_that_nobody_needs(self, hub: FakeHub, listener: Listener):
        """When nobody waits, a lost connection ends the subscription without an error."""
        hub.pubsub.refusal = exceptions.ConnectionError("gone")
        assert not await listener.begin(None, boot_time())
        assert hub.tasks[0].done()
        assert hub.tasks[0].exception() is None

    async def test_lingers(self, hub: FakeHub, listener: Listener):
        """It outlives the last waiter by a while, and goes on when somebody waits again by then."""
        listener.linger()
        assert not hub.clock.timers  # it does not listen at all
        forever = asyncio.Event()

        async def hear(**_: object) -> list[Any]:
            if listener._subscribed is not None and listener._subscribed.done():
                await forever.wait()

            return SUBSCRIBED

        hub.pubsub.parse_response = hear  # type: ignore[method-assign]  # hears nothing more
        assert await listener.begin(None, boot_time())
        listener.linger()
        assert [when for when, _ in hub.clock.timers] == [hub.clock.now + LINGER]
        hub.waiting = True
        hub.clock.fire()
        await asyncio.sleep(0)
        assert not hub.tasks[0].done()
        hub.waiting = False
        listener.linger()
        assert not await listener.begin(None, boot_time())  # takes the end back; it has begun long ago
        assert not hub.clock.timers
        listener.linger()
        hub.clock.fire()
        await asyncio.wait(hub.tasks)
        assert hub.tasks[0].cancelled()
        assert hub.pubsub.closed == 1

    async def test_deaf(self, hub: FakeHub, listener: Listener):
        """Only two quiet times in a row while somebody waits mean that it went deaf."""

        def quiet() -> None:
            hub.clock.now += QUIET

        def somebody_waits() -> None:
            hub.waiting = True
            quiet()

        def health_check() -> None:
            hub.clock.now += 0.1

        hub.pubsub.heard = iter(
            [quiet, somebody_waits, health_check, quiet, lambda: [b"pong", b""], quiet, quiet]
        )
        assert await listener._hear(hub.pubsub)
        assert hub.pubsub.pings == 3

    async def test_messages(self, hub: FakeHub, listener: Listener):
        """Messages become hints; a subscription that is late or new makes the waiters look."""
        assert listener._take([b"message", b"wsl:hub:h", b"a b"])
        assert hub.hints == [[b"a", b"b"]]
        assert listener._take([b"pong", b""])
        listener._subscribed, listener._late = hub.clock.create_future(), True
        assert listener._take(SUBSCRIBED)
        assert hub.looked == 1
        hub.waiting = True
        assert listener._take(SUBSCRIBED)
        assert hub.looked == 2
        hub.waiting = False
        assert not listener._take(SUBSCRIBED)
