"""Listeners of both buses that raise, hang or go, and messages that are not events."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from redis.client import NEVER_DECODE

from ws_pool._core.background import cancel_and_wait
from ws_pool._events.listeners import Event, dump
from ws_pool.errors import ClosedError, UsageError
from ws_pool.events import RedisEventBus, StreamEventBus
from ws_pool.redis import RedisPool

FOREIGN = (
    b"\xff\xfe",
    b'{"tag":"tag","args":' + b"[" * 100_000 + b"]" * 100_000 + b',"kwargs":{}}',
    b'{"tag":"tag"}',
)
"""Messages that are not text, that JSON cannot hold, and that lack what an event has."""


class Recorder:
    """A listener that raises for some of its events."""

    def __init__(self, error: type[BaseException] | None = None, *, over: Any = None) -> None:
        self.received: list[Any] = []
        self.calls = 0
        self._error = error
        self._over = over

    async def __call__(self, what: Any) -> None:
        """Record, or raise."""
        self.calls += 1
        await asyncio.sleep(0)

        if self._error is not None and self._over in {None, what}:
            raise self._error

        self.received.append(what)

    async def until(self, count: int) -> None:
        """Wait until so many events were received."""
        async with asyncio.timeout(20):
            while len(self.received) < count:
                await asyncio.sleep(0.005)


class TestCancelledListeners:
    """A listener that raises CancelledError has failed; nobody has cancelled the bus."""

    async def test_a_stream_goes_on(self, redis_url: str) -> None:
        """The event is tried again and becomes a dead letter; those behind it are delivered."""
        async with (
            RedisPool(url=redis_url) as pool,
            StreamEventBus(pool, "s", "g", attempts=2, backoff=(0.001, 0.002)) as bus,
        ):
            recorder = Recorder(asyncio.CancelledError, over=1)
            bus.add_listener("tag", recorder)

            for number in (1, 2, 3):
                await bus.publish("tag", number)

            await recorder.until(2)
            assert recorder.received == [2, 3]
            assert recorder.calls == 4
            assert bus.statistics().dead == 1

    async def test_pubsub_goes_on(self, redis_url: str) -> None:
        """It counts as a failure, and the next events are delivered."""
        async with RedisPool(url=redis_url) as pool, RedisEventBus(pool, "c") as bus:
            recorder = Recorder(asyncio.CancelledError, over=1)
            bus.add_listener("tag", recorder)

            for number in (1, 2, 3):
                await bus.publish("tag", number)

            await recorder.until(2)
            assert recorder.received == [2, 3]
            assert bus.statistics().listeners[0].failed == 1


class TestForeignMessages:
    """What others put where events are expected, however odd, ends no bus."""

    @pytest.mark.parametrize("foreign", FOREIGN, ids=["binary", "deep", "plain"])
    @pytest.mark.parametrize("text", [False, True], ids=["bytes", "text"])
    async def test_on_a_channel(self, any_redis_url: str, foreign: bytes, *, text: bool) -> None:
        """Events are received after it; where it cannot be decoded the bus reports a gap."""
        async with (
            RedisPool(url=any_redis_url, decode_responses=text) as pool,
            RedisEventBus(pool, "c") as bus,
        ):
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            await pool.redis.publish("c", foreign)

            async with asyncio.timeout(20):
                while not recorder.received:
                    await bus.publish("tag", 1)
                    await asyncio.sleep(0.005)

            assert bus.statistics().gaps == (text and foreign == FOREIGN[0])

    @pytest.mark.parametrize("foreign", FOREIGN, ids=["binary", "deep", "plain"])
    @pytest.mark.parametrize("text", [False, True], ids=["bytes", "text"])
    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_in_a_stream(
        self, any_redis_url: str, foreign: bytes, protocol: int, *, text: bool
    ) -> None:
        """It becomes a dead letter, new or left behind, and events after it are delivered."""
        async with RedisPool(url=any_redis_url, decode_responses=text, protocol=protocol) as pool:
            recorder = Recorder()
            await pool.redis.xgroup_create("s", "g", id="0", mkstream=True)

            for name in ("me", "gone"):
                await pool.redis.xadd("s", {"event": foreign, b"\xff": b"\xff"})
                take = ("XREADGROUP", "GROUP", "g", name, "STREAMS", "s", ">")
                await pool.redis.execute_command(*take, **{NEVER_DECODE: True})

            await pool.redis.xadd("s", {"event": foreign})

            async with StreamEventBus(pool, "s", "g", consumer="me", claim_after=0.1) as bus:
                bus.add_listener("tag", recorder)
                await bus.publish("tag", 1)
                await recorder.until(1)

                async with asyncio.timeout(20):
                    while (await pool.redis.xpending("s", "g"))["pending"]:
                        await asyncio.sleep(0.01)

                assert bus.statistics().dead == 3
                assert bus.statistics().in_hand == 0

    def test_what_is_nested_too_deep_is_not_sent(self) -> None:
        """JSON cannot be written for ever, either."""
        deep: list[Any] = []

        for _ in range(100_000):
            deep = [deep]

        with pytest.raises(UsageError, match="holds what JSON cannot"):
            dump(Event("tag", deep, {}))


class TestStreams:
    """What a stream bus makes of the unexpected."""

    async def test_a_failing_tag_holds_up_no_other(self, redis_url: str) -> None:
        """More events than prefetch wait behind one that fails; other tags are delivered meanwhile."""
        async with (
            RedisPool(url=redis_url) as pool,
            StreamEventBus(pool, "s", "g", prefetch=5, attempts=50, backoff=(30, 30)) as bus,
        ):
            bad, good = Recorder(RuntimeError), Recorder()
            bus.add_listener("bad", bad)
            bus.add_listener("good", good)

            for number in range(20):
                await bus.publish("bad", number)

            for number in range(20):
                await bus.publish("good", number)

            await good.until(20)
            assert good.received == list(range(20))
            assert bad.calls == 1

            async with asyncio.timeout(20):  # the last good event is received before it is acknowledged
                while bus.statistics().in_hand > 20:
                    await asyncio.sleep(0.005)

            assert bus.statistics().in_hand == 20
            pending: Any = await pool.redis.xpending("s", "g")
            assert pending["pending"] == 20
            await bus.close(drain=0)

    async def test_what_waits_behind_a_failing_event_is_bounded(self, redis_url: str) -> None:
        """Ten times prefetch are in hand at most, however many there are."""
        async with (
            RedisPool(url=redis_url) as pool,
            StreamEventBus(pool, "s", "g", prefetch=2, attempts=50, backoff=(30, 30)) as bus,
        ):
            bus.add_listener("bad", Recorder(RuntimeError))
            await asyncio.gather(*(bus.publish("bad", number) for number in range(50)))

            async with asyncio.timeout(20):
                while bus.statistics().in_hand < 20:
                    await asyncio.sleep(0.005)

            pending: Any = await pool.redis.xpending("s", "g")
            assert pending["pending"] == 20
            await bus.close(drain=0)

    @pytest.mark.parametrize("same", [True, False], ids=["own name", "other name"])
    async def test_a_delivery_whose_reply_was_lost_is_no_attempt(self, redis_url: str, *, same: bool) -> None:
        """An event that was on its way to a consumer that ended is received, even with one attempt."""
        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(
                pool, "s", "g", consumer="me", attempts=1, claim_after=0.1 if not same else 30.0
            )
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            await bus.publish("tag", 1)
            await pool.redis.execute_command("XGROUP CREATE", "s", "g", "0")
            name = "me" if same else "other"
            await pool.redis.execute_command("XREADGROUP", "GROUP", "g", name, "STREAMS", "s", ">")

            async with bus:
                await recorder.until(1)

            assert bus.statistics().dead == 0

    async def test_a_reply_that_is_lost_often_costs_no_attempts(self, redis_url: str) -> None:
        """However often a running consumer has lost the reply, its event reaches the listener."""
        async with RedisPool(url=redis_url) as pool, StreamEventBus(pool, "s", "g", attempts=1) as bus:
            recorder = Recorder()
            bus.add_listener("tag", recorder)
            await bus.publish("tag", "first")
            await recorder.until(1)
            take = ("XREADGROUP", "GROUP", "g", bus.consumer, "STREAMS", "s")

            async with pool.redis.pipeline() as pipe:  # a transaction, so that the bus is not faster
                pipe.xadd("s", {"event": '{"tag":"tag","args":["second"],"kwargs":{}}'})
                pipe.execute_command(*take, ">")

                for _ in range(5):
                    pipe.execute_command(*take, "0")

                await pipe.execute()

            bus._look_back = True
            await recorder.until(2)
            assert bus.statistics().dead == 0

    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_a_deleted_event_that_is_pending_ends_nothing(self, redis_url: str, protocol: int) -> None:
        """An entry that was deleted before it was acknowledged is acknowledged; the bus goes on."""
        async with RedisPool(url=redis_url, protocol=protocol) as pool:
            await pool.redis.xgroup_create("s", "g", id="0", mkstream=True)
            gone = await pool.redis.xadd("s", {"event": "{}"})
            await pool.redis.execute_command("XREADGROUP", "GROUP", "g", "me", "STREAMS", "s", ">")
            await pool.redis.xdel("s", gone)
            recorder = Recorder()

            async with StreamEventBus(pool, "s", "g", consumer="me") as bus:
                bus.add_listener("tag", recorder)
                await bus.publish("tag", 1)
                await recorder.until(1)

    async def test_an_unexpected_failure_is_survived(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reply that cannot be understood is logged; the event is delivered by the next look back."""
        async with RedisPool(url=redis_url) as pool:
            recorder = Recorder()
            bus = StreamEventBus(pool, "s", "g")
            bus.add_listener("tag", recorder)
            accept = bus._dispatcher.accept
            failures = [LookupError("a shape that nobody knows")]

            def fail_once(message: Any) -> None:
                if failures:
                    raise failures.pop()

                accept(message)

            monkeypatch.setattr(bus._dispatcher, "accept", fail_once)
            await bus.publish("tag", 1)

            async with bus:
                await recorder.until(1)


class TestRemoving:
    """A listener that is removed while it is at work."""

    async def test_its_call_goes_on(self, redis_url: str) -> None:
        """A listener that removes itself first does its work, once."""
        done: list[int] = []

        async with RedisPool(url=redis_url) as pool, RedisEventBus(pool, "c") as bus:

            async def once(number: int) -> None:
                bus.remove_listener("tag", once)
                await pool.redis.ping()
                done.append(number)

            for round_ in range(3):
                bus.add_listener("tag", once)
                await bus.publish("tag", round_)
                await bus.publish("tag", round_)

                async with asyncio.timeout(20):
                    while len(done) <= round_:
                        await asyncio.sleep(0.005)

            assert done == [0, 1, 2]

    async def test_it_ends_with_the_bus(self, redis_url: str) -> None:
        """One that hangs is cancelled when the bus closes."""
        hangs, ended = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            hangs.set()

            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with RedisPool(url=redis_url) as pool:
            bus = RedisEventBus(pool, "c")
            await bus.start()
            bus.add_listener("tag", hang)
            await bus.publish("tag")
            await asyncio.wait_for(hangs.wait(), 20)
            assert bus.remove_listener("tag", hang)
            await bus.close(drain=0)
            assert ended.is_set()


class TestStarting:
    """A start of a stream bus that does not go its way."""

    async def test_closed_meanwhile(self, redis_url: str) -> None:
        """Closing wins: nothing is left running, and the start says so."""
        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(pool, "s", "g")
            starting = asyncio.ensure_future(bus.start())
            await asyncio.sleep(0)
            await bus.close()

            with pytest.raises(ClosedError):
                await starting

            assert not bus._tasks

    async def test_twice_at_once(self, redis_url: str) -> None:
        """The second is refused; one set of tasks runs."""
        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(pool, "s", "g")
            first, second = await asyncio.gather(bus.start(), bus.start(), return_exceptions=True)
            assert first is None
            assert isinstance(second, UsageError)
            await bus.close()

    async def test_cancelled(self, redis_url: str) -> None:
        """It can be started again."""
        async with RedisPool(url=redis_url) as pool:
            bus = StreamEventBus(pool, "s", "g")
            starting = asyncio.ensure_future(bus.start())
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])

            async with bus:
                recorder = Recorder()
                bus.add_listener("tag", recorder)
                await bus.publish("tag", 1)
                await recorder.until(1)


class TestEnding:
    """How things end."""

    async def test_a_closed_pool_ends_a_pubsub_bus_quietly(self, redis_url: str) -> None:
        """When the pool is closed before the bus, no task is left with an error that nobody retrieves."""
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        pool = RedisPool(url=redis_url)
        await pool.start()
        bus = RedisEventBus(pool, "c")
        await bus.start()
        task = bus._task
        await pool.close()
        assert task is not None
        await asyncio.wait_for(asyncio.wait([task]), 20)
        await bus.close()
        assert task.exception() is None
        del bus, task
        gc.collect()
        await asyncio.sleep(0)
        assert not complaints

    async def test_a_task_that_swallows_its_cancellation_is_left(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Ending tasks returns even when one refuses to end, and says so."""
        monkeypatch.setattr("ws_pool._core.background._AGAIN", 0.001)
        free = asyncio.Event()

        async def stubborn() -> None:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue

        task = asyncio.create_task(stubborn(), name="stubborn")
        await asyncio.sleep(0)
        await asyncio.wait_for(cancel_and_wait(task), 20)
        assert "stubborn swallows" in caplog.text
        free.set()
        await task
