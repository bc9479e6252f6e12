"""The listener timeout of a stream bus, and the consumers that it leaves behind."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ws_pool.errors import UsageError
from ws_pool.events import StreamEventBus
from ws_pool.redis import RedisPool


async def consumers(pool: RedisPool) -> set[str]:
    """Name the consumers of the group."""
    return {consumer["name"] for consumer in await pool.redis.xinfo_consumers("s", "g")}


async def until_nothing_is_pending(pool: RedisPool) -> None:
    """Wait until all messages were acknowledged."""
    while (await pool.redis.xpending("s", "g"))["pending"]:
        await asyncio.sleep(0.01)


class TestOverdue:
    """A listener that takes too long."""

    async def test_a_listener_that_hangs_takes_its_own_time_only(self, redis_url: str) -> None:
        """More messages than may be in hand hang; those of other tags are delivered, and theirs again."""
        tries: list[int] = []
        received: asyncio.Queue[int] = asyncio.Queue()

        async def hang(number: int) -> None:
            tries.append(number)

            if tries.count(number) == 1:
                await asyncio.Event().wait()

        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", prefetch=3, claim_after=0.2, listener_timeout=0.05) as bus,
        ):
            bus.add_listener("hang", hang)
            bus.add_listener("go", received.put)

            for number in range(6):
                await bus.publish("hang", number)

            await bus.publish("go", 7)

            async with asyncio.timeout(30):
                assert await received.get() == 7
                await until_nothing_is_pending(pool)

            assert sorted(tries) == sorted([*range(6), *range(6)])
            assert bus.statistics().overdue == 6
            assert bus.statistics().claimed == 6
            assert bus.statistics().dead == 0

    async def test_another_consumer_takes_over(self, redis_url: str) -> None:
        """A message whose listener hangs is not kept, so that another consumer claims it."""
        received: asyncio.Queue[int] = asyncio.Queue()

        async def hang(_: int) -> None:
            await asyncio.Event().wait()

        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", claim_after=60, listener_timeout=0.01) as hanging,
        ):
            hanging.add_listener("tag", hang)
            await hanging.publish("tag", 1)

            async with asyncio.timeout(30):
                while not hanging.statistics().overdue:
                    await asyncio.sleep(0.01)

                async with StreamEventBus(pool, "s", "g", claim_after=0.1) as other:
                    other.add_listener("tag", received.put)
                    assert await received.get() == 1
                    await until_nothing_is_pending(pool)

    async def test_attempts_are_counted(self, redis_url: str) -> None:
        """A message over which listeners always hang becomes a dead letter, with the reason."""
        tries = 0

        async def hang() -> None:
            nonlocal tries
            tries += 1
            await asyncio.Event().wait()

        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", attempts=3, claim_after=0.1, listener_timeout=0.01) as bus,
        ):
            bus.add_listener("tag", hang)
            await bus.publish("tag")

            async with asyncio.timeout(30):
                while not bus.statistics().dead:
                    await asyncio.sleep(0.01)

                await until_nothing_is_pending(pool)

            letters = await pool.redis.xrange("s:dead")
            assert letters is not None
            assert ["longer than 0.01 s" in str(letter) for letter in letters] == [True]
            assert tries == 3

    async def test_a_listener_that_swallows_its_cancellation(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is left behind with an error in the log, and the bus goes on."""
        monkeypatch.setattr("ws_pool._core.background._AGAIN", 0.01)
        received: asyncio.Queue[int] = asyncio.Queue()
        free = asyncio.Event()

        async def hang() -> None:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue

        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", prefetch=1, listener_timeout=0.01) as bus,
        ):
            bus.add_listener("hang", hang)
            bus.add_listener("go", received.put)
            await bus.publish("hang")
            await bus.publish("go", 1)

            with caplog.at_level(logging.ERROR, logger="ws_pool"):
                assert await asyncio.wait_for(received.get(), 30) == 1

            assert "swallows its cancellation" in caplog.text
            free.set()

    async def test_a_close_ends_a_listener_that_is_timed(self, redis_url: str) -> None:
        """Closing cancels the listener too, and its message stays pending."""
        began, ended = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            began.set()

            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            bus = StreamEventBus(pool, "s", "g", listener_timeout=60)
            bus.add_listener("tag", hang)
            await bus.start()
            await bus.publish("tag")
            await asyncio.wait_for(began.wait(), 30)
            await bus.close(drain=0.01)
            assert ended.is_set()
            assert (await pool.redis.xpending("s", "g"))["pending"] == 1

    def test_misuse(self) -> None:
        """A limit of nothing is refused."""
        with pytest.raises(UsageError, match="listener_timeout"):
            StreamEventBus(RedisPool(), "s", "g", listener_timeout=0)


class TestConsumersThatHaveGone:
    """What is left of consumers in their group."""

    async def test_one_that_closes_leaves_nothing_behind(self, redis_url: str) -> None:
        """A made-up name goes with its bus, unless messages are pending; a given name stays."""
        began = asyncio.Event()

        async def hang() -> None:
            began.set()
            await asyncio.Event().wait()

        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            async with (
                StreamEventBus(pool, "s", "g", consumer="mine") as named,
                StreamEventBus(pool, "s", "g") as bus,
            ):
                while await consumers(pool) != {"mine", bus.consumer}:
                    await asyncio.sleep(0.01)

            assert named.consumer == "mine"
            assert await consumers(pool) == {"mine"}
            bus = StreamEventBus(pool, "s", "g")
            bus.add_listener("tag", hang)
            await bus.start()
            await bus.publish("tag")
            await asyncio.wait_for(began.wait(), 30)
            await bus.close(drain=0.01)
            assert await consumers(pool) == {"mine", bus.consumer}

    async def test_one_that_was_killed_is_removed_in_the_end(self, redis_url: str) -> None:
        """Consumers that were silent for long are removed, but for those with messages pending."""
        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            await pool.redis.xgroup_create("s", "g", mkstream=True)
            await pool.redis.xgroup_createconsumer("s", "g", "gone")
            await pool.redis.xadd("s", {"event": "{}"})
            await pool.redis.xreadgroup("g", "owing", {"s": ">"})

            async with StreamEventBus(pool, "s", "g", trim_every=0.02, claim_after=0.02) as other:
                other._dispatcher._room.clear()  # so that it claims nothing

                async with asyncio.timeout(30):
                    while "gone" in await consumers(pool):
                        await asyncio.sleep(0.01)

                assert "owing" in await consumers(pool)
