"""Events without a listener: they wait for one, and are never acknowledged in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from ws_pool._events.consumer_group import ConsumerGroup
from ws_pool._events.waiting import WaitingEvents
from ws_pool.errors import UsageError
from ws_pool.events import StreamEventBus
from ws_pool.redis import RedisPool


class Recorder:
    """A listener that keeps its events in order."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    async def __call__(self, what: Any) -> None:
        """Record."""
        self.received.append(what)

    async def until(self, count: int) -> None:
        """Wait until so many events were received."""
        async with asyncio.timeout(30):
            while len(self.received) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def pool(any_redis_url: str) -> AsyncIterator[RedisPool]:
    """A pool on Redis, then on Valkey."""
    async with RedisPool(url=any_redis_url) as opened:
        yield opened


async def until_pending(pool: RedisPool, count: int) -> None:
    """Wait until so many messages of the group are not acknowledged."""
    async with asyncio.timeout(30):
        while (await pool.redis.xpending("s", "g"))["pending"] != count:
            await asyncio.sleep(0.005)


async def until_waiting(bus: StreamEventBus, count: int) -> None:
    """Wait until a bus has left so many events to wait."""
    async with asyncio.timeout(30):
        while bus.statistics().waiting < count:
            await asyncio.sleep(0.005)


class TestLateListener:
    async def test_a_backlog_reaches_a_listener_that_is_added_after_the_start(self, pool: RedisPool) -> None:
        """The whole backlog is delivered, in order and before newer events."""
        publisher = StreamEventBus(pool, "s", "g")

        for number in range(250):
            await publisher.publish("tag", number)

        recorder = Recorder()

        async with StreamEventBus(pool, "s", "g", prefetch=20) as bus:
            await until_waiting(bus, 250)
            assert (await pool.redis.xpending("s", "g"))["pending"] == 250
            bus.add_listener("tag", recorder)

            for number in range(250, 300):
                await publisher.publish("tag", number)

            await recorder.until(300)
            await until_pending(pool, 0)

        assert recorder.received == list(range(300))
        assert bus.statistics().delivered == 300

    async def test_a_bus_that_acknowledges_them_is_caught(
        self, pool: RedisPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broken twin, which acknowledges events without a listener, loses the backlog."""

        async def acknowledge(self: WaitingEvents, messages: Any) -> None:
            for message in messages:
                await self._member.acknowledge(message.id)

            self.left += len(messages)

        monkeypatch.setattr(WaitingEvents, "leave", acknowledge)
        recorder = Recorder()
        await StreamEventBus(pool, "s", "g").publish("tag", 1)

        async with StreamEventBus(pool, "s", "g") as bus:
            await until_waiting(bus, 1)
            bus.add_listener("tag", recorder)
            await bus.publish("tag", 2)
            await recorder.until(1)

        assert recorder.received == [2]

    async def test_two_versions_in_one_group(self, pool: RedisPool) -> None:
        """The share of a consumer without the listener reaches the one that has it, each event once."""
        new, other = Recorder(), Recorder()

        async with (
            StreamEventBus(pool, "s", "g") as older,
            StreamEventBus(pool, "s", "g") as newer,
        ):
            older.add_listener("order", other)
            newer.add_listener("order", other)
            newer.add_listener("refund", new)

            for number in range(200):
                await newer.publish("refund", number)
                await newer.publish("order", number)

            await new.until(200)
            await other.until(200)
            await until_pending(pool, 0)
            assert older.statistics().waiting > 0  # else there was no share

        assert sorted(new.received) == list(range(200))
        assert sorted(other.received) == list(range(200))
        assert newer.statistics().dead == older.statistics().dead == 0

    async def test_waiting_costs_no_attempts(self, pool: RedisPool) -> None:
        """An event that was handed on is not given up for that, even with one attempt."""
        recorder = Recorder()

        async with StreamEventBus(pool, "s", "g", attempts=1, claim_after=0.2) as bus:
            await bus.publish("tag", 1)
            await until_waiting(bus, 1)
            await asyncio.sleep(0.5)  # claimed by nobody meanwhile
            assert bus.statistics().claimed == 0
            bus.add_listener("tag", recorder)
            await recorder.until(1)
            await until_pending(pool, 0)
            assert bus.statistics().dead == 0

    async def test_a_consumer_that_dies_leaves_them(self, pool: RedisPool) -> None:
        """Events that wait outlive the process that has read them."""
        async with StreamEventBus(pool, "s", "g") as first:
            await first.publish("tag", 1)
            await until_waiting(first, 1)

        recorder = Recorder()

        async with StreamEventBus(pool, "s", "g") as second:
            second.add_listener("tag", recorder)
            await recorder.until(1)
            await until_pending(pool, 0)


class TestExpiry:
    async def test_what_nobody_listens_to_becomes_a_dead_letter(
        self, pool: RedisPool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After unheard_after the event is moved to the dead letters, which is logged; not before."""
        async with StreamEventBus(pool, "s", "g", unheard_after=1.5) as bus:
            with caplog.at_level(logging.WARNING, "ws_pool.events"):
                await bus.publish("refund", 7)
                await until_waiting(bus, 1)
                await asyncio.sleep(0.5)
                assert bus.statistics().dead == 0
                await until_pending(pool, 0)

            ((_, letter),) = cast("Any", await pool.redis.xrange("s:dead"))
            assert letter[b"reason"] == b"no listener of group 'g' for 'refund' in 1.5 s"
            assert b"refund" in letter[b"event"]
            assert (bus.statistics().dead, bus.statistics().unheard) == (1, 0)

        assert "events 'refund' wait for a listener in group 'g'" in caplog.text
        assert "1 events are dead letters: no listener" in caplog.text

    async def test_ignored_tags(self, pool: RedisPool) -> None:
        """``ignore="*"`` acknowledges every event without a listener, and counts it."""
        recorder = Recorder()

        async with StreamEventBus(pool, "s", "g", ignore="*") as bus:
            bus.add_listener("order", recorder)
            await bus.publish("sale", 1)
            await bus.publish("order", 2)
            await recorder.until(1)
            await until_pending(pool, 0)
            assert (bus.statistics().unheard, bus.statistics().waiting) == (1, 0)

    @pytest.mark.parametrize("value", [0, -1.0])
    def test_misuse(self, value: float) -> None:
        """A time that cannot be is refused."""
        with pytest.raises(UsageError, match="unheard_after > 0"):
            StreamEventBus(RedisPool(url="redis://x"), "s", "g", unheard_after=value)


async def test_two_that_look_at_once(pool: RedisPool) -> None:
    """Of two consumers that take waiting events at once, one gets each."""
    await pool.redis.xgroup_create("s", "g", id="0", mkstream=True)
    members = [ConsumerGroup(pool, "s", "g", name, "dead") for name in ("a", "b")]
    first = cast("bytes", await pool.redis.xadd("s", {"event": "{}"}))
    await members[0].read_new(10)
    await members[0].leave_waiting("tag", [first.decode()], 3)
    await asyncio.sleep(0.05)  # idle for longer than a round trip takes
    taken = await asyncio.gather(*(member.take_waiting("tag", 10) for member in members))
    assert sorted(map(len, taken)) == [0, 1]
    assert [entry[2] for entries in taken for entry in entries] == [4]
