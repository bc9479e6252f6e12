"""Buses take any client of redis-py, not only ws-pool's pools."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from ws_pool.events import RedisEventBus, StreamEventBus


async def test_a_pubsub_bus_on_a_plain_client(redis_url: str) -> None:
    """Events reach a listener over a client of redis-py."""
    arrived: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def listener(item: str, *, price: int) -> None:
        arrived.put_nowait((item, price))

    async with Redis.from_url(redis_url) as client, RedisEventBus(client, "shop") as bus:
        bus.add_listener("sale", listener)
        assert await bus.publish("sale", "tea", price=3) == 1
        assert await asyncio.wait_for(arrived.get(), 10) == ("tea", 3)
        assert "of a client" in repr(bus)


async def test_a_stream_bus_on_a_plain_client(redis_url: str) -> None:
    """Events are delivered, acknowledged and dead-lettered over a client of redis-py."""
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def listener(number: int) -> None:
        arrived.put_nowait(number)

    async def failing(number: int) -> None:
        raise RuntimeError(number)

    async with Redis.from_url(redis_url) as client:
        async with StreamEventBus(client, "s", "g", attempts=1) as bus:
            bus.add_listener("order", listener)
            bus.add_listener("refund", failing)
            await bus.publish("refund", 1)
            await bus.publish("order", 42)
            assert await asyncio.wait_for(arrived.get(), 10) == 42

            async with asyncio.timeout(10):
                while bus.statistics().dead < 1:
                    await asyncio.sleep(0.005)

        assert (await client.xpending("s", "g"))["pending"] == 0
        assert await client.xlen("s:dead") == 1
