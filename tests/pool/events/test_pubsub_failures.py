"""What a pub/sub bus makes of servers that are silent, slow or away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool._events import pubsub_bus
from ws_pool.errors import AcquireTimeout, ClosedError, UnavailableError
from ws_pool.events import RedisEventBus, StreamEventBus
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[FaultProxy]:
    """Stand between a bus and its server."""
    async with FaultProxy(redis_server.host, redis_server.port) as opened:
        yield opened


class Gaps:
    """A listener that keeps the gaps."""

    def __init__(self) -> None:
        self.found: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __call__(self, **kwargs: Any) -> None:
        """Record."""
        await self.found.put(kwargs)

    async def next(self) -> dict[str, Any]:
        """Wait for the next gap."""
        return await asyncio.wait_for(self.found.get(), 60)


class TestSilence:
    """A server that does not answer."""

    @pytest.mark.parametrize("own", [True, False], ids=["pool", "redis-py"])
    async def test_an_unanswered_ping(
        self, proxy: FaultProxy, redis_server: RedisServer, *, own: bool
    ) -> None:
        """After two silent heartbeats the bus subscribes anew, and says that the server was silent."""
        url = proxy.url(redis_server.url)
        pool = RedisPool(url=url, command_timeout=300) if own else None
        client = Redis.from_url(url)

        if pool is not None:
            await pool.start()

        async with RedisEventBus(client if pool is None else pool, "c", heartbeat=1.0) as bus:
            gaps = Gaps()
            bus.add_listener("gap", gaps)
            proxy.hold(to="client")

            async with asyncio.timeout(60):
                while bus.subscribed:
                    await asyncio.sleep(0.01)

            proxy.heal()
            proxy.cut()  # what was held back is of no use to anybody
            gap = await gaps.next()
            assert "silent for 2 s" in gap["reason"]
            assert gap["seconds"] >= 2
            assert bus.statistics().gaps >= 1

        await client.aclose()

        if pool is not None:
            await pool.close()

    async def test_a_subscription_that_is_not_confirmed(
        self, proxy: FaultProxy, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`start` waits for so long and then raises what nobody takes for something else."""
        monkeypatch.setattr(pubsub_bus, "_SUBSCRIBE_TIMEOUT", 0.1)

        async with Redis.from_url(proxy.url(redis_server.url)) as client:
            await client.ping()
            bus = RedisEventBus(client, "c", heartbeat=0.05)
            proxy.hold(to="client")

            with pytest.raises(UnavailableError, match="'c': the server does not confirm its subscription"):
                await bus.start()

            proxy.heal()

    async def test_a_pool_that_is_full(self, redis_server: RedisServer) -> None:
        """What the pool itself says is left as it is: no connection in time."""
        async with (
            RedisPool(url=redis_server.url, maxsize=1, acquire_timeout=0.1) as pool,
            pool.get_client(alone=True),
        ):
            with pytest.raises(AcquireTimeout, match="no connection was free"):
                await RedisEventBus(pool, "c").start()

    async def test_closed_while_it_starts(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """A caller that waits for the start of a bus gets an error when it is closed meanwhile."""
        async with RedisPool(url=proxy.url(redis_server.url), command_timeout=300) as pool:
            bus = RedisEventBus(pool, "c")
            proxy.hold(to="client")
            starting = asyncio.ensure_future(bus.start())
            await asyncio.sleep(0.05)
            assert not starting.done()
            await bus.close()

            with pytest.raises(ClosedError, match="'c' was closed"):
                await starting

            proxy.heal()


class TestOutages:
    """A server that is away for some time."""

    async def test_a_long_one_is_one_gap(
        self, start_server: StartServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """However often the bus tries in vain, one loss is logged and one gap reported."""
        server = start_server(RedisServer)

        async with Redis.from_url(server.url) as client, RedisEventBus(client, "c", heartbeat=0.1) as bus:
            gaps = Gaps()
            bus.add_listener("gap", gaps)
            await asyncio.to_thread(server.kill)

            async with asyncio.timeout(60):
                while bus.subscribed:
                    await asyncio.sleep(0.01)

            await asyncio.sleep(1)  # several attempts
            await asyncio.to_thread(server.start)
            assert (await gaps.next())["seconds"] >= 1
            assert bus.statistics().gaps == 1
            assert caplog.text.count("lost its subscription") == 1

    async def test_a_pool_that_is_closed_first(
        self, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A bus whose pool is closed under it ends by itself, and says so."""
        caplog.set_level("INFO", "ws_pool.events")

        async with RedisPool(url=redis_url) as pool:
            bus = RedisEventBus(pool, "c")
            await bus.start()

        async with asyncio.timeout(60):
            while "'c' ends: its pool was closed" not in caplog.text:
                await asyncio.sleep(0.01)

        assert not bus.subscribed
        await bus.close()


class TestUse:
    """What else there is to a bus."""

    async def test_sharded_on_a_single_server(self, any_redis_url: str) -> None:
        """Sharded pub/sub works without a cluster, too, and is counted like any other."""
        async with RedisPool(url=any_redis_url) as pool, RedisEventBus(pool, "c", sharded=True) as bus:
            got: asyncio.Queue[int] = asyncio.Queue()
            bus.add_listener("tag", got.put)
            await bus.publish("tag", 1)
            await bus.publish("unknown", 2)
            await bus.publish("tag", 3)
            assert [await asyncio.wait_for(got.get(), 60) for _ in range(2)] == [1, 3]
            statistics = bus.statistics()
            assert (statistics.received, statistics.unknown, statistics.gaps) == (3, 1, 0)
            found = {
                (sample.metric.name, dict(sample.attributes).get("wintersweet.reason")): sample.value
                for sample in statistics.samples()
            }
            assert found["messaging.client.consumed.messages", None] == 3
            assert found["wintersweet.messaging.undelivered", "unknown"] == 1

    @pytest.mark.parametrize("kind", [RedisEventBus, StreamEventBus])
    async def test_listeners_of_a_closed_bus(self, redis_url: str, kind: Any) -> None:
        """A listener waits for the next start; one that comes twice is there once."""

        async def listener() -> None: ...

        async with RedisPool(url=redis_url) as pool:
            arguments = ("c",) if kind is RedisEventBus else ("closed:s", "g")

            async with kind(pool, *arguments) as bus:
                bus.add_listener("tag", listener)
                bus.add_listener("tag", listener)
                assert bus.remove_listener("tag", listener)
                assert not bus.remove_listener("tag", listener)
                bus.add_listener("tag", listener)

            assert bus.remove_listener("tag", listener)
            bus.add_listener("tag", listener)
            await bus.close()
