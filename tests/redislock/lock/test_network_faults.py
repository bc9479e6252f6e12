"""The network between: lost replies, silence, lost wake-ups."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

import ws_redislock
from tests.redislock._helpers import broken, lag, until_waiting
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import LockLost, MutexLock
from ws_redislock._coordination.coordinator import Coordinator, Waiter
from ws_redislock._coordination.wakeups import WakeupSubscription
from ws_redislock._lease.lease import Lease, drift
from ws_redislock._lock.acquisition import AcquireProtocol
from ws_redislock._lock.renewal import RenewalWatchdog
from ws_redislock._redis.scripts import load
from ws_redislock.errors import UnavailableError

pytestmark = pytest.mark.outage

Then = Literal["close", "cut", "silence"]


@pytest.fixture
async def proxy(any_redis: RedisServer) -> AsyncIterator[FaultProxy]:
    """Yield a proxy before the server."""
    async with FaultProxy(any_redis.host, any_redis.port) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: FaultProxy, any_redis: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client that goes through the proxy, with all scripts known to the server."""
    client = Redis.from_url(proxy.url(any_redis.url))

    for file in (Path(ws_redislock.__file__).parent / "_scripts").glob("*.lua"):
        await client.script_load(file.read_text(encoding="utf-8"))

    yield client
    proxy.heal()
    await client.aclose()


@pytest.mark.parametrize("then", ["close", "cut", "silence"])
class TestLostReplies:
    """The server acts, and the client learns nothing."""

    async def test_of_enter(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """One acquisition: asked again, the server says that it is ours already."""
        lock = MutexLock(through, "k", 60)
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        assert await lock.acquire()
        assert lost.is_set()
        assert await MutexLock(redis, "k", 60).holders() == [lock.current().token]
        assert await lock.release()
        assert not await lock.exists()

    async def test_of_release(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """The release, asked again, says released; and nobody is left behind."""
        lock = MutexLock(through, "k", 60)
        await lock.acquire()
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        assert await lock.release()
        assert lost.is_set()
        assert not await MutexLock(redis, "k", 60).exists()

    async def test_of_renew(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """The watchdog tries again, and the lease goes on."""
        lock = MutexLock(through, "k", 3.0)

        async with lock.hold() as held:
            deadline = held._lease.deadline
            lost = proxy.drop_reply(1, match="EVALSHA", then=then)
            await lost.wait()

            while held._lease.deadline == deadline:
                await asyncio.sleep(0.01)

            held.check()

    async def test_of_the_enter_that_queues(
        self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then
    ):
        """The waiter has one place in the queue, and gets the lock."""
        first, second = MutexLock(redis, "k", 60), MutexLock(through, "k", 60)
        await first.acquire()
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        waiting = asyncio.create_task(second.acquire(None))
        await lost.wait()
        await until_waiting(first)
        assert await first.waiters() == 1
        await first.release()
        assert await waiting
        assert await second.release()

    async def test_of_abandon(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """A waiter that gives up has left the queue, whatever the network does."""
        first, second = MutexLock(redis, "k", 60), MutexLock(through, "k", 60)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting

        await second.aclose()
        assert lost.is_set()
        assert await first.waiters() == 0
        await first.release()

    async def test_of_beat(
        self,
        through: Redis,
        proxy: FaultProxy,
        redis: Redis,
        then: Then,
        monkeypatch: pytest.MonkeyPatch,
    ):
        """A heartbeat whose answer "it is your turn" was lost is sent again in time, without a wake-up."""
        monkeypatch.setattr(WakeupSubscription, "_take", _take_no_message)
        first, second = MutexLock(redis, "k", 60), MutexLock(through, "k", 60, heartbeat=0.9)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        await first.release()
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)

        async with asyncio.timeout(20), lag() as late:
            await lost.wait()
            began = time.monotonic()
            assert await waiting
            assert time.monotonic() - began <= 0.9 + 0.3 + late.worst

        assert await second.release()

    async def test_of_reset(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """The lock is taken away once: asked again, it says so, and leaves the next holder alone."""
        first, second = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        await through.script_load(load("reset").text)
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        taking = asyncio.create_task(MutexLock(through, "k", 60).force_release())
        assert await waiting
        assert await taking
        assert lost.is_set()
        assert not await first.release()
        assert await second.renew()
        assert await second.release()

    async def test_of_status(self, through: Redis, proxy: FaultProxy, redis: Redis, then: Then):
        """A question is asked again."""
        lock = MutexLock(redis, "k", 60)
        await lock.acquire()
        await MutexLock(through, "k", 60).exists()
        lost = proxy.drop_reply(1, match="EVALSHA", then=then)
        assert await MutexLock(through, "k", 60).owner() == lock.current().token
        assert lost.is_set()
        await lock.release()


class TestLostRepliesOfBrokenScripts:
    """The controls: scripts that may not be repeated."""

    async def test_an_enter_that_does_not_know_its_token(self, through: Redis, proxy: FaultProxy):
        """Asked again, it finds the lock taken, by itself."""
        mine = "local mine = tonumber(redis.call('ZSCORE', holders, token) or 0) > now"

        with broken(mine, "local mine = false", "enter"):
            await through.script_load(load("enter").text)
            proxy.drop_reply(1, match="EVALSHA")
            lock = MutexLock(through, "k", 60)
            assert not await lock.acquire()
            await lock.aclose()

    async def test_a_release_that_does_not_remember(self, through: Redis, proxy: FaultProxy):
        """Asked again, it calls the lock lost."""
        with broken("redis.pcall('SET', done, 'r', 'PX', remember)", "", "release"):
            await through.script_load(load("release").text)
            lock = MutexLock(through, "k", 60)
            await lock.acquire()
            proxy.drop_reply(1, match="EVALSHA")
            assert not await lock.release()

    async def test_a_reset_that_does_not_remember(self, through: Redis, proxy: FaultProxy, redis: Redis):
        """Asked again, it takes the lock from the next holder too."""
        with broken("redis.pcall('SET', done, count, 'PX', remember)", "", "reset"):
            await through.script_load(load("reset").text)
            first, second = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
            await first.acquire()
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first)
            proxy.drop_reply(1, match="EVALSHA", then="silence")
            taking = asyncio.create_task(MutexLock(through, "k", 60).force_release())
            assert await waiting
            await taking
            assert not await first.release()
            assert not await second.renew()


class TestOutage:
    """No answer at all."""

    async def test_a_request_that_comes_late_is_refused(
        self, through: Redis, redis: Redis, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ):
        """An ENTER that reaches the server after its ABANDON does not acquire."""
        lock = MutexLock(through, "k", 60)
        waiter_tokens: list[str] = []
        give_up = AcquireProtocol._undo

        def remember(self: AcquireProtocol, coordinator: Coordinator, token: str, budget: float) -> None:
            waiter_tokens.append(token)
            give_up(self, coordinator, token, budget)

        monkeypatch.setattr(AcquireProtocol, "_undo", remember)
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        await lock.aclose()
        coordinator = lock._bind()
        _, reply = await lock._protocol._send_enter(coordinator, Waiter(waiter_tokens[0]), 10_000, 5.0)
        assert reply == [-1, 0]
        assert not await lock.exists()

    async def test_is_told_within_the_budget(self, any_redis: RedisServer):
        """When no server is there, acquiring says so."""
        async with Redis(host="127.0.0.1", port=1) as client:
            lock = MutexLock(client, "k", 60)

            with pytest.raises(UnavailableError, match="lock 'k'"):
                await lock.acquire(timeout=0.2)

    async def held_in_a_black_hole(self, through: Redis, redis: Redis, proxy: FaultProxy) -> float:
        """Return by how many seconds the holder's deadline is before the server's."""
        lock = MutexLock(through, "k", 1.0)
        margin = -math.inf
        loop = asyncio.get_running_loop()
        late_by = 0.0

        async def body() -> None:
            nonlocal margin, late_by

            async with lock.hold() as held:
                proxy.black_hole()

                for _ in range(20):  # what a sample takes makes the margin smaller: the largest is true
                    before = held.remaining
                    server = await redis.pttl(lock._keys.shared[0]) / 1000
                    margin = max(margin, server - before)

                deadline = loop.time() + held.remaining

                try:
                    await asyncio.sleep(30)
                finally:
                    late_by = loop.time() - deadline

        async with lag() as late:
            with pytest.raises(LockLost, match="deadline"):
                await body()

        assert late_by <= 2 * late.worst + 0.1
        return margin

    async def test_of_the_server_while_holding(self, through: Redis, redis: Redis, proxy: FaultProxy):
        """In a black hole the body is cancelled at its deadline, which is before the server's."""
        assert await self.held_in_a_black_hole(through, redis, proxy) > 0

    async def test_a_watchdog_that_counts_from_the_reply_is_late(
        self, through: Redis, redis: Redis, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ):
        """The control: counted without drift and from a late moment, the server is first."""
        monkeypatch.setattr(Lease, "__init__", _begin_late)
        assert await self.held_in_a_black_hole(through, redis, proxy) < 0

    async def test_a_short_one_is_survived(self, through: Redis, proxy: FaultProxy):
        """The connections break, and the lease goes on."""
        async with MutexLock(through, "k", 0.9).hold() as held:
            for _ in range(4):
                proxy.cut()
                await asyncio.sleep(0.25)

            held.check()

    async def test_renew_by_hand_says_so(self, through: Redis, proxy: FaultProxy):
        """An unanswered renewal is an error, not a loss."""
        lock = MutexLock(through, "k", 60)
        await lock.acquire()
        proxy.refuse()
        proxy.cut()

        with pytest.raises(UnavailableError, match="RENEW"):
            await lock.renew()

        assert lock.locked
        proxy.heal()
        assert await lock.release()


def nothing(*_arguments: object) -> None:
    """Stand for something that does not happen."""


_take = WakeupSubscription._take


def _take_no_message(listener: WakeupSubscription, message: list[object], ready: asyncio.Event) -> bool:
    return message[0] in {b"message", "message"} or _take(listener, message, ready)


_begin = Lease.__init__


def _begin_late(lease: Lease, duration: float, *, sent_at: float, renewing: bool = True) -> None:
    _begin(lease, duration, sent_at=sent_at, renewing=renewing)
    lease.deadline += drift(duration) + 0.3


class TestStall:
    """A loop that stands still for longer than the lease."""

    async def test_the_holder_is_told(self, redis: Redis):
        """After the stall the lock is lost at once, and the body is cancelled at its next await."""
        lock = MutexLock(redis, "k", 0.5)
        seen: list[bool] = []

        async def body() -> None:
            async with lock.hold():
                time.sleep(0.7)  # noqa: ASYNC251 - the stall is the point
                seen.append(lock.locked)
                await asyncio.sleep(30)

        with pytest.raises(LockLost, match="deadline"):
            await body()

        assert seen == [False]

    async def test_a_lock_without_a_watchdog_is_not(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """The control: without the watchdog the body goes on, although another could hold the lock."""
        monkeypatch.setattr(RenewalWatchdog, "start", nothing)
        lock, other = MutexLock(redis, "k", 0.5), MutexLock(redis, "k", 60)
        went_on = False

        async def body() -> None:
            nonlocal went_on
            async with lock.hold():
                time.sleep(0.7)  # noqa: ASYNC251 - the stall is the point
                assert await other.acquire()
                went_on = True

        with pytest.raises(LockLost):
            await body()

        assert went_on
        await other.release()


class TestWakeUps:
    """Wake-ups that do not arrive."""

    HEARTBEAT = 0.9

    async def hand_over(self, redis: Redis, url: str) -> float:
        """Release for a waiter of another client; return how long it took."""
        async with Redis.from_url(url) as client:
            one = MutexLock(redis, "k", 60)
            two = MutexLock(client, "k", 60, heartbeat=self.HEARTBEAT)
            await one.acquire()
            waiting = asyncio.create_task(two.acquire(None))
            await until_waiting(one)
            began = time.monotonic()
            await one.release()
            assert await waiting
            took = time.monotonic() - began
            await two.release()
            return took

    async def test_all_lost(self, redis: Redis, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """Without any message the waiter looks by itself within a third of its heartbeat."""
        monkeypatch.setattr(WakeupSubscription, "_take", _take_no_message)

        async with lag() as late:
            assert await self.hand_over(redis, any_redis.url) <= self.HEARTBEAT / 3 + 0.3 + late.worst

    async def test_without_the_fallback_nothing_would_happen(
        self, redis: Redis, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """The control: no messages and no look of its own, no lock."""
        monkeypatch.setattr(WakeupSubscription, "_take", lambda *_arguments: True)
        monkeypatch.setattr("ws_redislock._coordination.coordinator.Coordinator.beat_soon", nothing)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.hand_over(redis, any_redis.url), 1.0)

    async def test_a_late_subscription(
        self, redis: Redis, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """A waiter without the subscription looks again when it begins: the wake-up was missed."""
        released, subscribe = asyncio.Event(), PubSub.subscribe

        async def late(pubsub: PubSub, channel: str) -> None:
            await released.wait()
            await subscribe(pubsub, channel)

        monkeypatch.setattr(PubSub, "subscribe", late)
        monkeypatch.setattr("ws_redislock._coordination.wakeups.BEGINNING", 0)

        async with Redis.from_url(any_redis.url) as client:
            one, two = MutexLock(redis, "k", 60), MutexLock(client, "k", 60, heartbeat=60)
            await one.acquire()
            waiting = asyncio.create_task(two.acquire(None))
            await until_waiting(one)
            await one.release()
            released.set()

            async with asyncio.timeout(10):  # half of what its own look would take
                assert await waiting

            await two.release()

    async def test_forbidden(self, start_server: StartServer, caplog: pytest.LogCaptureFixture):
        """A user who must not subscribe is warned once, and waits by looking."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "-subscribe", "&*")
        url = server.url.replace("redis://", "redis://mute:x@")

        async with Redis.from_url(server.url) as redis:
            for _ in range(2):
                assert await self.hand_over(redis, url) <= self.HEARTBEAT

        assert caplog.text.count("no wake-ups") == 2

    async def test_the_subscriber_is_killed(self, redis: Redis, any_redis: RedisServer):
        """After CLIENT KILL the coordinator subscribes again, and all its waiters look."""
        async with Redis.from_url(any_redis.url) as client:
            one = MutexLock(redis, "k", 60)
            two = MutexLock(client, "k", 60, heartbeat=30)
            await one.acquire()
            waiting = asyncio.create_task(two.acquire(None))
            await until_waiting(one)

            while await redis.client_kill_filter(_type="pubsub") == 0:
                await asyncio.sleep(0.01)  # it may not have subscribed yet

            await one.release()

            async with asyncio.timeout(5):
                assert await waiting

            await two.release()
