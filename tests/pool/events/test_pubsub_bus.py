"""Events over pub/sub: in order, apart from other listeners, with a report of each gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool.errors import ClosedError, NotReadyError, UnavailableError, UsageError
from ws_pool.events import RedisEventBus
from ws_pool.redis import RedisPool


class Recorder:
    """A listener that keeps its events."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Record."""
        await self.received.put((args, kwargs))

    async def next(self) -> Any:
        """Wait for the next event."""
        return await asyncio.wait_for(self.received.get(), 20)


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
async def pool(any_redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisPool]:
    """Yield a pool whose replies are bytes, then text."""
    async with RedisPool(url=any_redis_url, decode_responses=request.param) as opened:
        yield opened


class TestDelivery:
    """What listeners get."""

    async def test_arguments_arrive_everywhere(self, pool: RedisPool) -> None:
        """Each bus on the channel gets the arguments that were published, and others get nothing."""
        async with (
            RedisEventBus(pool, "c") as one,
            RedisEventBus(pool, "c") as two,
            RedisEventBus(pool, "d") as no,
        ):
            recorders = [Recorder(), Recorder(), Recorder()]

            for bus, recorder in zip((one, two, no), recorders, strict=True):
                bus.add_listener("tag", recorder)

            assert await one.publish("tag", 1, "ü", None, key=[{"a": 1.5}]) == 1  # both share a connection
            expected = ((1, "ü", None), {"key": [{"a": 1.5}]})
            assert [await recorders[0].next(), await recorders[1].next()] == [expected, expected]
            assert recorders[2].received.empty()

    async def test_order_is_kept(self, pool: RedisPool) -> None:
        """A listener receives the events of a tag in the order in which they were published."""
        async with RedisEventBus(pool, "c") as bus:
            recorder = Recorder()
            bus.add_listener("tag", recorder)

            for number in range(500):
                await bus.publish("tag", number)

            assert [await recorder.next() for _ in range(500)] == [((number,), {}) for number in range(500)]

    async def test_raising_and_slow_listeners_harm_nobody(self, pool: RedisPool) -> None:
        """A listener that raises and one that never ends hold up neither others nor later events."""
        never = asyncio.Event()
        recorder = Recorder()

        async def raising(_: int) -> None:
            raise RuntimeError("a listener's own fault")

        async def stuck(_: int) -> None:
            await never.wait()

        async with RedisEventBus(pool, "c", queue_size=5) as bus:
            for listener in (raising, stuck, recorder):
                bus.add_listener("tag", listener)

            for number in range(20):
                await bus.publish("tag", number)

            assert [(await recorder.next())[0][0] for _ in range(20)] == list(range(20))
            by_name = {item.name.rpartition(".")[2]: item for item in bus.statistics().listeners}
            assert by_name["raising"].failed == 20
            assert by_name["stuck"].queued == 5
            assert by_name["stuck"].dropped == 14
            never.set()

    @pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [0, 8, 9]), ("drop_newest", [0, 1, 2])])
    async def test_what_is_dropped(self, redis_url: str, overflow: Any, kept: list[int]) -> None:
        """A full queue drops what the policy says."""
        go, got = asyncio.Event(), Recorder()

        async def slow(number: int) -> None:
            await go.wait()
            await got(number)

        async with (
            RedisPool(url=redis_url) as pool,
            RedisEventBus(pool, "c", queue_size=2, overflow=overflow) as bus,
        ):
            bus.add_listener("tag", slow)
            await bus.publish("tag", 0)

            while bus.statistics().received < 1:
                await asyncio.sleep(0)

            while bus.statistics().listeners[0].queued:
                await asyncio.sleep(0)

            for number in range(1, 10):
                await bus.publish("tag", number)

            while bus.statistics().received < 10:
                await asyncio.sleep(0)

            go.set()
            assert [(await got.next())[0][0] for _ in range(3)] == kept

    async def test_listeners_come_and_go(self, pool: RedisPool) -> None:
        """A listener can be added and removed while the bus runs, also by itself."""
        async with RedisEventBus(pool, "c") as bus:
            recorder, once = Recorder(), Recorder()

            async def hear_once(number: int) -> None:
                await once(number)
                bus.remove_listener("tag", hear_once)

            bus.add_listener("tag", recorder)
            bus.add_listener("tag", recorder)
            bus.add_listener("tag", hear_once)
            await bus.publish("tag", 1)
            assert (await recorder.next(), await once.next()) == (((1,), {}), ((1,), {}))
            await bus.publish("tag", 2)
            assert await recorder.next() == ((2,), {})
            assert bus.remove_listener("tag", recorder)
            assert not bus.remove_listener("tag", recorder)
            await bus.publish("tag", 3)

            while bus.statistics().received < 3:
                await asyncio.sleep(0)

            assert recorder.received.empty()
            assert once.received.empty()
            assert bus.statistics().unknown == 1

    async def test_foreign_messages_are_ignored(self, pool: RedisPool) -> None:
        """Foreign messages on the channel are counted and dropped; so is a forged gap."""
        async with RedisEventBus(pool, "c") as bus:
            recorder, gap = Recorder(), Recorder()
            bus.add_listener("tag", recorder)
            bus.add_listener(bus.GAP, gap)
            forged = json.dumps({"tag": "gap", "args": [], "kwargs": {}})

            for message in (
                "no json",
                "[]",
                '{"tag": "tag"}',
                b"\xff" if not pool.redis.decodes else "x",
                forged,
            ):
                await pool.redis.publish("c", message)

            await bus.publish("tag")
            assert await recorder.next() == ((), {})
            assert bus.statistics().unknown == 5
            assert gap.received.empty()


class TestOutages:
    """What a bus does when its connection is gone."""

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    async def test_a_restart_is_reported_as_a_gap(
        self, start_server: StartServer, kind: type[RedisServer]
    ) -> None:
        """After the server's restart the bus receives again, and has reported a gap."""
        server = start_server(kind)

        async with RedisPool(url=server.url, outage_timeout=20.0) as pool, RedisEventBus(pool, "c") as bus:
            recorder, gap = Recorder(), Recorder()
            bus.add_listener("tag", recorder)
            bus.add_listener(RedisEventBus.GAP, gap)

            for number in range(3):
                await bus.publish("tag", number)
                assert await recorder.next() == ((number,), {})
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
                args, kwargs = await gap.next()
                assert args == ()
                assert kwargs.keys() == {"seconds", "reason"}
                assert kwargs["seconds"] > 0
                assert bus.subscribed

            await bus.publish("tag", "last")
            assert await recorder.next() == (("last",), {})
            assert bus.statistics().gaps == 3

    async def test_a_silent_connection_is_noticed(self, redis_server: RedisServer) -> None:
        """When nothing comes any more, not even the answer to a PING, the bus subscribes anew."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            RedisPool(url=redis_server.url) as other,
            RedisEventBus(pool, "c", heartbeat=0.1) as bus,
        ):
            gap, recorder = Recorder(), Recorder()
            bus.add_listener("gap", gap)
            bus.add_listener("tag", recorder)
            proxy.black_hole()

            while bus.subscribed:
                await asyncio.sleep(0.01)

            proxy.heal()
            await gap.next()

            async with RedisEventBus(other, "c") as sender:
                assert await sender.publish("tag", 1) == 2

            assert await recorder.next() == ((1,), {})

    async def test_a_gap_counts_from_the_last_sign_of_life(self, redis_server: RedisServer) -> None:
        """A connection that is silent for 3 seconds makes a gap of 3 seconds, not of the reconnect."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            RedisEventBus(pool, "c", heartbeat=1.4) as bus,
        ):
            gap = Recorder()
            bus.add_listener("gap", gap)
            loop = asyncio.get_running_loop()
            proxy.black_hole()
            began = loop.time()

            while bus.subscribed:
                await asyncio.sleep(0.01)

            noticed = loop.time() - began
            proxy.heal()
            _, kwargs = await gap.next()
            assert noticed > 2.5
            assert noticed <= kwargs["seconds"] <= loop.time() - began + 1.5

    async def test_a_client_that_subscribes_again_by_itself_makes_a_gap(
        self, redis_server: RedisServer
    ) -> None:
        """redis-py's own client reconnects without an error; the bus reports the gap all the same."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            Redis.from_url(proxy.url(redis_server.url)) as client,
            RedisEventBus(client, "c", heartbeat=0.1) as bus,
        ):
            gap, recorder = Recorder(), Recorder()
            bus.add_listener("gap", gap)
            bus.add_listener("tag", recorder)
            proxy.cut()
            await gap.next()
            await bus.publish("tag", 1)
            assert await recorder.next() == ((1,), {})

    async def test_an_idle_bus_stays_subscribed(self, redis_url: str) -> None:
        """Without any event the connection is checked by PING, and kept."""
        async with RedisPool(url=redis_url) as pool, RedisEventBus(pool, "c", heartbeat=0.02) as bus:

            async def pings() -> int:
                return int((await pool.redis.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0))

            before = await pings()  # the server may be older than this test

            while await pings() < before + 5:
                await asyncio.sleep(0.01)

            assert bus.subscribed
            assert bus.statistics().gaps == 0

    async def test_start_without_a_server_fails(self, start_server: StartServer) -> None:
        """A bus that cannot subscribe at the start says so, and leaves nothing behind."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=0.05) as pool:
            await asyncio.to_thread(server.kill)
            bus = RedisEventBus(pool, "c")

            for _ in range(2):
                with pytest.raises((UnavailableError, OSError)):
                    await bus.start()


class TestUse:
    """How a bus is used, and misused."""

    async def test_misuse(self, redis_url: str) -> None:
        """Wrong options, tags and arguments are refused before anything is sent."""
        async with RedisPool(url=redis_url, name="shop") as pool:
            for options in ({"queue_size": 0}, {"heartbeat": 0}, {"overflow": "block"}):
                with pytest.raises(UsageError, match="queue_size"):
                    RedisEventBus(pool, "c", **options)

            with pytest.raises(UsageError, match="must not be empty"):
                RedisEventBus(pool, "")

            bus = RedisEventBus(pool, "c")
            assert repr(bus) == "<RedisEventBus 'c' of redis pool 'shop', new>"

            with pytest.raises(NotReadyError):
                bus.statistics()

            with pytest.raises(UsageError, match="bus's own"):
                await bus.publish("gap")

            with pytest.raises(NotReadyError, match="is new: enter it with `async with`"):
                await bus.publish("tag", 1)

            async with bus:
                with pytest.raises(UsageError, match="started already"):
                    await bus.start()

                with pytest.raises(UsageError, match="JSON"):
                    await bus.publish("tag", object())

            await bus.close()

            with pytest.raises(ClosedError):
                await bus.publish("tag", 1)

    async def test_close_lets_listeners_finish(self, redis_url: str) -> None:
        """Closing waits for what is queued, but not for ever."""
        done: list[int] = []

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            done.append(number)

        async with RedisPool(url=redis_url) as pool:
            bus = RedisEventBus(pool, "c")
            bus.add_listener("tag", work)
            await bus.start()

            for number in range(50):
                await bus.publish("tag", number)

            while bus.statistics().received < 50:
                await asyncio.sleep(0)

            await bus.close()
            assert done == list(range(50))

            async def never() -> None:
                await asyncio.Event().wait()

            bus = RedisEventBus(pool, "c")
            bus.add_listener("tag", never)
            await bus.start()
            await bus.publish("tag")
            await bus.close(drain=0.01)
