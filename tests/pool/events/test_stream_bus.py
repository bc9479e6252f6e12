"""Events over a stream: whatever happens, each is delivered at least once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from typing import Any

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool._events.consumer_group import entries_of, order_of, payload_of
from ws_pool.errors import UnavailableError, UsageError, WsError
from ws_pool.events import StreamEventBus
from ws_pool.redis import RedisPool


class Recorder:
    """A listener that counts its events, and may fail some times before."""

    def __init__(self, failures: int = 0) -> None:
        self.received: Counter[Any] = Counter()
        self.order: list[Any] = []
        self.failures = failures

    async def __call__(self, what: Any) -> None:
        """Record, or raise."""
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not yet")

        self.received[what] += 1
        self.order.append(what)

    async def until(self, count: int) -> None:
        """Wait until so many different events were received."""
        async with asyncio.timeout(30):
            while len(self.received) < count:
                await asyncio.sleep(0.005)


async def pending(pool: RedisPool, stream: str = "s", group: str = "g") -> int:
    """Count the messages of a group that are not acknowledged."""
    return int((await pool.redis.xpending(stream, group))["pending"])


async def until_acknowledged(pool: RedisPool) -> None:
    """Wait until nothing is pending."""
    async with asyncio.timeout(30):
        while await pending(pool):
            await asyncio.sleep(0.005)


class TestDelivery:
    """What groups and consumers get."""

    @pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
    async def test_each_group_gets_all_and_each_consumer_a_part(
        self, any_redis_url: str, *, decode: bool
    ) -> None:
        """Within a group each event goes to one consumer; each group gets all; all are acknowledged."""
        async with RedisPool(url=any_redis_url, decode_responses=decode) as pool:
            recorders = {name: Recorder() for name in ("a1", "a2", "b")}
            buses = {
                name: StreamEventBus(pool, "s", name[0], consumer=name, prefetch=5) for name in recorders
            }

            for name, bus in buses.items():
                bus.add_listener("tag", recorders[name])
                await bus.start()

            for number in range(100):
                await buses["a1"].publish("tag", number)

            await recorders["b"].until(100)
            both = Recorder()

            while len(both.received) < 100:
                both.received = recorders["a1"].received + recorders["a2"].received
                await asyncio.sleep(0.005)

            for group in ("a", "b"):
                while await pending(pool, "s", group):
                    await asyncio.sleep(0.005)

            for bus in buses.values():
                await bus.close()

        assert set(both.received.values()) == {1}
        assert recorders["b"].order == list(range(100))
        assert buses["b"].statistics().delivered == 100

    async def test_what_was_published_before_the_start_is_delivered(self, redis_url: str) -> None:
        """A group that is new begins with the stream's first event."""
        async with RedisPool(url=redis_url) as pool:
            recorder = Recorder()
            bus = StreamEventBus(pool, "s", "g")
            await bus.publish("tag", "early")
            bus.add_listener("tag", recorder)

            async with bus:
                await recorder.until(1)

    async def test_tags_do_not_wait_for_each_other(self, redis_url: str) -> None:
        """A listener that is stuck holds up its own tag only."""
        stuck = asyncio.Event()
        recorder = Recorder()

        async def wait() -> None:
            await stuck.wait()

        async with RedisPool(url=redis_url) as pool, StreamEventBus(pool, "s", "g") as bus:
            bus.add_listener("stuck", wait)
            bus.add_listener("tag", recorder)
            await bus.publish("stuck")

            for number in range(10):
                await bus.publish("tag", number)

            await recorder.until(10)

            async with asyncio.timeout(20):
                while bus.statistics().in_hand > 1:
                    await asyncio.sleep(0.005)

            assert not stuck.is_set()
            stuck.set()
            await until_acknowledged(pool)

    async def test_a_failing_listener_is_called_again_and_others_are_not(self, redis_url: str) -> None:
        """Only the listener that raised is called again, after a pause, until it returns."""
        async with (
            RedisPool(url=redis_url) as pool,
            StreamEventBus(pool, "s", "g", backoff=(0.001, 0.002)) as bus,
        ):
            good, late = Recorder(), Recorder(failures=3)
            bus.add_listener("tag", good)
            bus.add_listener("tag", late)
            await bus.publish("tag", 1)
            await late.until(1)
            await until_acknowledged(pool)
            assert good.received == {1: 1}
            assert bus.statistics().retried == 3

    async def test_what_never_succeeds_becomes_a_dead_letter(self, redis_url: str) -> None:
        """After the last attempt an event is a dead letter, with the reason, and the next is delivered."""
        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", attempts=3, backoff=(0.001, 0.002)) as bus,
        ):
            recorder = Recorder(failures=3)
            bus.add_listener("tag", recorder)
            await bus.publish("tag", "poison")
            await bus.publish("tag", "good")
            await recorder.until(1)
            await until_acknowledged(pool)
            letters: Any = await pool.redis.xrange("s:dead")  # Any: redis-py's type allows for None
            ((_, letter),) = letters
            assert recorder.order == ["good"]
            assert "poison" in letter["event"]
            assert letter["reason"] == "RuntimeError: not yet"
            assert (letter["group"], bus.statistics().dead) == ("g", 1)

    async def test_ignored_tags_are_acknowledged(self, redis_url: str) -> None:
        """Events of tags that are ignored don't stay pending; foreign entries become dead letters."""
        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            StreamEventBus(pool, "s", "g", ignore=["nobody"]) as bus,
        ):
            await bus.publish("nobody")
            await pool.redis.xadd("s", {"other": "entry"})
            await pool.redis.xadd("s", {"event": "no json"})

            async with asyncio.timeout(20):
                while bus.statistics().dead < 2:
                    await asyncio.sleep(0.005)

            await until_acknowledged(pool)
            assert (bus.statistics().unheard, bus.statistics().delivered) == (1, 0)
            letters = [letter for _, letter in entries_of([["s:dead", await pool.redis.xrange("s:dead")]])]
            assert ["entry" in letter["event"] for letter in letters] == [True, False]
            assert {letter["reason"] for letter in letters} == {"it is not an event"}

    async def test_listeners_can_be_removed(self, redis_url: str) -> None:
        """A removed listener receives nothing more; its events wait for another."""
        async with RedisPool(url=redis_url) as pool, StreamEventBus(pool, "s", "g") as bus:
            recorder, other = Recorder(), Recorder()
            bus.add_listener("tag", recorder)
            assert bus.remove_listener("tag", recorder)
            assert not bus.remove_listener("tag", recorder)
            await bus.publish("tag", 1)

            async with asyncio.timeout(20):
                while bus.statistics().waiting < 1:
                    await asyncio.sleep(0.005)

            assert await pending(pool) == 1
            bus.add_listener("tag", other)
            await other.until(1)
            assert not recorder.received

    async def test_what_all_groups_have_is_trimmed(self, redis_url: str) -> None:
        """Trimming drops what every group has acknowledged, and nothing else."""
        async with RedisPool(url=redis_url) as pool:
            recorder = Recorder()
            await pool.redis.execute_command("XGROUP CREATE", "s", "slow", "0", "MKSTREAM")

            async with StreamEventBus(pool, "s", "g", trim_every=0.01) as bus:
                bus.add_listener("tag", recorder)

                for number in range(500):
                    await bus.publish("tag", number)

                await recorder.until(500)
                await until_acknowledged(pool)
                assert await pool.redis.xlen("s") == 500
                slow = await pool.redis.xreadgroup("slow", "c", {"s": ">"}, count=500)
                ids = [entry_id for entry_id, _ in entries_of(slow)]
                await pool.redis.xack("s", "slow", *ids[:-1])

                while await pool.redis.xlen("s") > 200:
                    await asyncio.sleep(0.005)

                assert await pool.redis.xrange("s", ids[-1], ids[-1])


class TestFaults:
    """Consumers, connections and servers that die."""

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    async def test_a_server_that_is_killed_loses_nothing(
        self, start_server: StartServer, kind: type[RedisServer]
    ) -> None:
        """With AOF, every event whose publish returned is delivered, through SIGKILLs of the server."""
        server = start_server(kind, config={"appendonly": "yes", "appendfsync": "always"})
        published: set[int] = set()
        stop = asyncio.Event()
        recorder = Recorder()

        async def publish(bus: StreamEventBus) -> None:
            number = 0

            while not stop.is_set():
                number += 1

                try:
                    await bus.publish("tag", number)
                except WsError:
                    continue

                published.add(number)

        async with (
            RedisPool(url=server.url, outage_timeout=20.0) as pool,
            StreamEventBus(pool, "s", "g", claim_after=1.0) as bus,
        ):
            bus.add_listener("tag", recorder)
            publishing = asyncio.ensure_future(publish(bus))

            for round_number in range(1, 4):
                await recorder.until(round_number * 100)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)

            stop.set()
            await publishing

            async with asyncio.timeout(30):
                while published - recorder.received.keys():
                    await asyncio.sleep(0.01)

            await until_acknowledged(pool)

        assert published <= recorder.received.keys()

    async def test_a_consumer_that_is_killed_loses_nothing(self, redis_url: str) -> None:
        """What a consumer had in hand when it got SIGKILL is claimed by another and delivered."""
        program = textwrap.dedent(
            """
            import asyncio, sys
            from ws_pool.events import StreamEventBus
            from ws_pool.redis import RedisPool

            async def main(url):
                async with RedisPool(url=url) as pool, StreamEventBus(pool, "s", "g", prefetch=10) as bus:
                    async def stuck(number):
                        print("taken", flush=True)
                        await asyncio.Event().wait()

                    bus.add_listener("tag", stuck)
                    await asyncio.Event().wait()

            asyncio.run(main(sys.argv[1]))
            """
        )

        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(pool, "s", "g", claim_after=0.5)

            for number in range(20):
                await bus.publish("tag", number)

            victim = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, redis_url, stdout=subprocess.PIPE
            )
            assert victim.stdout is not None
            await victim.stdout.readline()
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
            assert await pending(pool) > 0
            recorder = Recorder()
            bus.add_listener("tag", recorder)

            async with bus:
                await recorder.until(20)
                await until_acknowledged(pool)

            assert recorder.received.keys() == set(range(20))
            assert bus.statistics().claimed > 0

    async def test_a_hasty_bus_is_caught(self, redis_url: str) -> None:
        """The broken twin, which acknowledges before it delivers, loses what it had in hand."""

        class Hasty(StreamEventBus):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                call = self._dispatcher._call

                async def acknowledge_first(listeners: Any, event: Any) -> Any:
                    await self._member.acknowledge(next(iter(self._dispatcher.in_hand)))
                    return await call(listeners, event)

                self._dispatcher._call = acknowledge_first  # type: ignore[method-assign]  # to break it

        async with RedisPool(url=redis_url) as pool:
            never = asyncio.Event()

            async def stuck(_: int) -> None:
                await never.wait()

            for kind, lost in ((Hasty, True), (StreamEventBus, False)):
                name = kind.__name__
                first = kind(pool, name, "g")
                first.add_listener("tag", stuck)
                await first.publish("tag", 1)
                await first.start()

                while not first.statistics().in_hand:
                    await asyncio.sleep(0.005)

                await asyncio.sleep(0.05)
                await first.close(drain=0)
                assert (await pending(pool, name) == 0) == lost

    async def test_a_slow_consumer_keeps_what_it_has(self, redis_url: str) -> None:
        """A consumer that works for longer than the claim time shows that it lives, and keeps its event."""
        calls = 0
        go = asyncio.Event()

        async def slow() -> None:
            nonlocal calls
            calls += 1
            await go.wait()

        async with (
            RedisPool(url=redis_url) as pool,
            StreamEventBus(pool, "s", "g", claim_after=0.2) as one,
            StreamEventBus(pool, "s", "g", claim_after=0.2) as two,
        ):
            for bus in (one, two):
                bus.add_listener("tag", slow)

            await one.publish("tag")
            loop = asyncio.get_running_loop()
            end = loop.time() + 1.0

            while loop.time() < end or not calls:
                await asyncio.sleep(0.01)

            go.set()
            await until_acknowledged(pool)

        assert calls == 1
        assert one.statistics().claimed + two.statistics().claimed == 0

    async def test_lost_replies_lose_nothing(self, redis_server: RedisServer) -> None:
        """Messages whose reply was lost are read again, and an XADD whose reply was lost is repeated."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            RedisPool(url=redis_server.url) as other,
            StreamEventBus(pool, "s", "g", claim_after=30.0) as bus,
        ):
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            lost = proxy.drop_reply(match="XREADGROUP")
            await StreamEventBus(other, "s", "x").publish("tag", "read")
            await lost.wait()
            await recorder.until(1)
            proxy.drop_reply(match="XADD")
            await bus.publish("tag", "added")
            await recorder.until(2)
            proxy.drop_reply(match="XACK")
            await bus.publish("tag", "acknowledged")
            await recorder.until(3)
            await until_acknowledged(other)

    async def test_a_consumer_comes_back_under_its_name(self, redis_url: str) -> None:
        """What a consumer left pending in an earlier life it takes at once when it is back."""
        async with RedisPool(url=redis_url) as pool:
            await StreamEventBus(pool, "s", "g").publish("tag", 1)
            never = asyncio.Event()

            async def stuck(_: int) -> None:
                await never.wait()

            first = StreamEventBus(pool, "s", "g", consumer="me")
            first.add_listener("tag", stuck)
            await first.start()

            while not first.statistics().in_hand:
                await asyncio.sleep(0.005)

            await first.close(drain=0.01)
            recorder = Recorder()
            again = StreamEventBus(pool, "s", "g", consumer="me")
            again.add_listener("tag", recorder)

            async with again:
                await recorder.until(1)
                await until_acknowledged(pool)

    async def test_a_message_that_kills_consumers_is_given_up(self, redis_url: str) -> None:
        """A message that was delivered too often without being done is a dead letter at the next claim."""
        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(pool, "s", "g", claim_after=0.05, attempts=2)
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            await bus.publish("tag", "deadly")
            await pool.redis.execute_command("XGROUP CREATE", "s", "g", "0")

            for _ in range(3):  # consumers that took it and died
                await pool.redis.execute_command("XREADGROUP", "GROUP", "g", "late", "STREAMS", "s", ">")
                await pool.redis.execute_command("XREADGROUP", "GROUP", "g", "late", "STREAMS", "s", "0")

            async with bus:
                while not bus.statistics().dead:
                    await asyncio.sleep(0.005)

            assert not recorder.received
            assert await pool.redis.xlen("s:dead") == 1

    async def test_a_lost_group_is_made_again(self, redis_url: str) -> None:
        """When the stream is deleted, the group is created anew and what comes then is delivered."""
        async with RedisPool(url=redis_url) as pool, StreamEventBus(pool, "s", "g") as bus:
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            await bus.publish("tag", 1)
            await recorder.until(1)
            await pool.redis.delete("s")
            await bus.publish("tag", 2)
            await recorder.until(2)

    async def test_start_without_a_server_fails(self, start_server: StartServer) -> None:
        """A bus that cannot reach the server says so at the start."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=0.05) as pool:
            await asyncio.to_thread(server.kill)

            with pytest.raises(UnavailableError):
                await StreamEventBus(pool, "s", "g").start()

    async def test_a_closed_pool_ends_the_bus(self, redis_url: str) -> None:
        """When the pool is closed first, the bus ends quietly; what it had in hand stays pending."""
        pool = RedisPool(url=redis_url)
        await pool.start()
        bus = StreamEventBus(pool, "s", "g", claim_after=0.05, trim_every=0.01)
        await bus.start()
        await pool.close()
        await bus.close()


class TestUse:
    """How a bus is used, and misused."""

    async def test_misuse(self, redis_url: str) -> None:
        """Wrong options and arguments are refused before anything is sent."""
        async with RedisPool(url=redis_url) as pool:
            for options in ({"prefetch": 0}, {"attempts": 0}, {"claim_after": 0}, {"backoff": (2, 1)}):
                with pytest.raises(UsageError, match="prefetch"):
                    StreamEventBus(pool, "s", "g", **options)

            with pytest.raises(UsageError, match="names"):
                StreamEventBus(pool, "s", "")

            bus = StreamEventBus(pool, "s", "g")
            assert repr(bus) == "<StreamEventBus 's', group 'g', new>"
            assert str(os.getpid()) in bus.consumer

            with pytest.raises(UsageError, match="JSON"):
                await bus.publish("tag", {1, 2})

            async with bus:
                with pytest.raises(UsageError, match="is open already"):
                    await bus.start()

            await bus.close()

            unused = StreamEventBus(pool, "s", "g")
            await unused.close()

    def test_shapes(self) -> None:
        """Replies of all protocol versions give the same entries."""
        entries = [(b"1-1", {b"event": b"e"})]

        for reply in ([[b"s", entries]], {b"s": entries}, {b"s": [entries]}):
            assert entries_of(reply) == entries

        assert entries_of(None) == entries_of([]) == []
        assert payload_of([b"event", b"e"]) == payload_of({"event": "e"}) == "e"
        assert payload_of(None) is None
        assert payload_of({b"x": b"\xff"}) == "fields {'x': '\\\\xff'}"
        assert order_of("10-2") > order_of("9-30") > order_of("9")
