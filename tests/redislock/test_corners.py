"""Corners that are seldom reached: late replies, double losses, subscriptions that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_redislock import FrequencyLimiter, LeaderElection, LockLost, MultiLock, MutexLock, _acquire
from ws_redislock._calls import Caller
from ws_redislock._held import Held
from ws_redislock._hub import Hub, hub_for
from ws_redislock._lease import Lease, boot_time
from ws_redislock._listen import LINGER, QUIET, Listener
from ws_redislock._scope import BodyScope
from ws_redislock._watch import Watch
from ws_redislock._wire import Wire, _Link
from ws_redislock.errors import UnavailableError


class FakeClock:
    """Time that passes only when a test says so; also the parts of a loop that tell time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        """Return the time, as a clock does."""
        return self.now

    def time(self) -> float:
        """Return the time, as a loop does."""
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        """Return a future of the running loop."""
        return asyncio.get_running_loop().create_future()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Any:  # Any: a fake handle
        """Take note of a timer."""
        entry = (self.now + seconds, function)
        self.timers.append(entry)
        return SimpleNamespace(cancel=lambda: self.timers.remove(entry))

    def cancel(self, timer: Any) -> None:  # Any: as above
        """Cancel a timer, as `Timers` does."""
        timer.cancel()

    def fire(self) -> None:
        """Let the next timer come."""
        when, function = self.timers.pop(0)
        self.now = max(self.now, when)
        function()


class FakeHub:
    """A hub without a server."""

    def __init__(self) -> None:
        self.clock = self.loop = FakeClock()
        self.id = "h"
        self.held: dict[str, object] = {}
        self.waiting = False
        self.hints: list[list[bytes]] = []
        self.looked = 0
        self.once: Callable[[], list[int]] = lambda: [1]
        self.pubsub = FakePubSub(self)
        self.tasks: list[asyncio.Task[None]] = []
        client = SimpleNamespace(pubsub=lambda: self.pubsub)
        self.caller = SimpleNamespace(timers=self.clock, once=self._once, client=client, cluster=False)

    async def _once(self, *_: object) -> list[int]:
        await asyncio.sleep(0)
        return self.once()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run work in a task."""
        task = asyncio.create_task(work())
        self.tasks.append(task)
        return task

    def hint(self, tokens: list[bytes]) -> None:
        """Take note of a hint."""
        self.hints.append(tokens)

    def look_at_all(self) -> None:
        """Take note of the wish."""
        self.looked += 1


class FakePubSub:
    """A subscription that hears what a test says; None is a time without a message."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.heard: Iterator[Callable[[], list[Any] | None]] = iter(())
        self.pings = 0
        self.closed = 0
        self.refusal: Exception | None = None

    async def subscribe(self, channel: str) -> None:
        """Subscribe, or fail."""
        assert channel == "wsl:hub:h"

        if self.refusal is not None:
            raise self.refusal

    async def parse_response(self, *, block: bool, timeout: float) -> list[Any] | None:  # noqa: ASYNC109 - as the driver
        """Hear the next thing."""
        assert (block, timeout) == (False, QUIET)
        return next(self.heard)()

    async def ping(self) -> None:
        """Count."""
        self.pings += 1

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


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
        assert await listener.begin(None)
        await asyncio.wait(hub.tasks)
        assert hub.tasks[0].exception() is None
        assert hub.pubsub.closed == 1

    async def test_refused(self, hub: FakeHub, listener: Listener):
        """A server that refuses subscriptions is not asked again for a while."""
        hub.pubsub.refusal = exceptions.NoPermissionError("no channel for you")
        assert not await listener.begin(hub.clock.now + 1)
        assert not await listener.begin(None)
        assert len(hub.tasks) == 1
        hub.clock.now += 31
        hub.pubsub.refusal = None
        hub.pubsub.heard = iter([lambda: SUBSCRIBED, lambda: SUBSCRIBED])
        assert await listener.begin(None)
        assert len(hub.tasks) == 2

    async def test_a_lost_connection_that_nobody_needs(self, hub: FakeHub, listener: Listener):
        """When nobody waits, a lost connection ends the subscription without an error."""
        hub.pubsub.refusal = exceptions.ConnectionError("gone")
        assert not await listener.begin(None)
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
        assert await listener.begin(None)
        listener.linger()
        assert [when for when, _ in hub.clock.timers] == [hub.clock.now + LINGER]
        hub.waiting = True
        hub.clock.fire()
        await asyncio.sleep(0)
        assert not hub.tasks[0].done()
        hub.waiting = False
        listener.linger()
        assert not await listener.begin(None)  # takes the end back; it has begun long ago
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


class Losses(list[str]):
    """What a watch was told."""

    lose = list.append


class TestWatch:
    """The watchdog, with a server and a clock of the test's own."""

    def make(self, hub: FakeHub) -> tuple[Watch, Lease, Losses]:
        """Watch a lease of 30 s."""
        losses = Losses()
        lease = Lease(30.0, sent_at=hub.clock.now)
        watch = Watch(cast("Hub", hub), lease, "t", keys=(b"k",), args=("t",), target=losses, clock=hub.clock)
        watch.start()
        return watch, lease, losses

    async def test_stopped_during_a_look(self, hub: FakeHub):
        """A watch that is stopped cancels its renewal."""
        watch, lease, losses = self.make(hub)
        watch.look()
        await asyncio.sleep(0)
        watch.stop()
        await asyncio.wait(hub.tasks)
        assert hub.tasks[0].cancelled()
        assert not losses
        assert not hub.clock.timers
        lease.end()
        watch.look()
        assert len(hub.tasks) == 1  # nothing to look at any more

    async def test_renewed_after_the_deadline(self, hub: FakeHub):
        """A lease that is over by the clock is lost without asking, and only once."""
        watch, _, losses = self.make(hub)
        hub.clock.now += 30
        assert not await watch.renew()
        assert not await watch.renew()
        assert losses == ["its deadline passed before it could be renewed"]

    async def test_answered_after_the_deadline(self, hub: FakeHub):
        """A renewal whose reply is seen after the deadline comes too late."""
        watch, _, losses = self.make(hub)

        def late() -> list[int]:
            hub.clock.now += 30
            return [1]

        hub.once = late
        assert not await watch.renew()
        assert losses == ["its deadline passed before the renewal was answered"]

    async def test_released_meanwhile(self, hub: FakeHub):
        """A renewal that is answered after the lock was given back renews nothing and loses nothing."""
        watch, lease, losses = self.make(hub)

        def released() -> list[int]:
            lease.end()
            return [0]

        hub.once = released
        assert not await watch.renew()
        assert not losses

    async def test_due_during_a_look(self, hub: FakeHub):
        """A renewal that is due while a look is under way waits for it, and a failed look is no loss."""
        watch, lease, losses = self.make(hub)
        replies: Iterator[list[int]] = iter([[1]])

        def fail() -> list[int]:
            hub.once = lambda: next(replies)
            raise exceptions.ConnectionError("gone")

        hub.once = fail
        watch.look()
        hub.clock.fire()
        assert len(hub.tasks) == 1
        await hub.tasks[0]
        await hub.tasks[1]  # the look failed, and the renewal that was due came after it
        assert not losses
        assert lease.renew_at == hub.clock.now + 10
        watch.stop()


class TestHeld:
    """What a holder sees."""

    async def test_twice_lost(self, redis7: Redis):
        """A loss is told once, and those who wait for it all see it."""
        lost: list[Held] = []
        lock = MutexLock(redis7, "k", 60, on_lost=lost.append)
        assert await lock.acquire()
        held = lock.current()
        assert repr(held) == f"<Held 'k' fence={held.fence} held>"
        waiters = [asyncio.create_task(held.wait_lost()) for _ in range(2)]
        await asyncio.sleep(0)
        held.lose("first")
        held.lose("second")
        await asyncio.gather(*waiters)
        await held.wait_lost()
        assert lost == [held]
        assert "first" in str(held.loss())
        assert repr(held) == f"<Held 'k' fence={held.fence} lost>"
        held.end()
        assert held.end() == 0  # a second end changes nothing
        await lock.aclose()

    async def test_over(self, redis7: Redis):
        """A lock that was given back is over, not lost."""
        lock = MutexLock(redis7, "k", 60)
        assert await lock.acquire()
        held = lock.current()
        assert await lock.release()
        assert repr(held).endswith(" over>")
        assert not held.lost

        with pytest.raises(LockLost, match="it was released"):
            held.check()

    async def test_cancels_once(self):
        """A body that two locks want to cancel is cancelled once."""

        async def body() -> int:
            scope = BodyScope()
            scope.cancel("one")
            scope.cancel("other")
            task = asyncio.current_task()
            assert task is not None
            count = task.cancelling()
            await scope.leave(None)
            return count

        assert await asyncio.create_task(body()) == 1


class TestAcquire:
    """Acquiring against odds."""

    async def test_late_reply(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """A reply that comes after its own lease acquires nothing, and leaves nothing on the server."""
        lock = MutexLock(redis7, "k", 60)

        with monkeypatch.context() as patch:
            now = boot_time
            patch.setattr(_acquire, "boot_time", lambda: now() + 61)
            assert not await lock.acquire()

        await lock.aclose()
        assert not await lock.exists()

    async def test_refused_by_the_server(self, redis7: Redis):
        """A waiter whose acquisition was given up on the server says so instead of waiting on."""
        first, second = MutexLock(redis7, "k", 60), MutexLock(redis7, "k", 60)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        hub = hub_for(redis7)
        (token,) = hub._waiters
        await second._abandon(hub, token, 5.0)
        hub.hint([token])

        with pytest.raises(UnavailableError, match="gave up this acquisition"):
            await waiting

        assert await first.release()
        await second.aclose()

    async def test_without_an_answer_from_replicas(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """Without an answer about the replicas the lock is not held, and is undone on the server."""
        confirmed = Caller.confirmed

        async def lose_reply(*args: Any, **kwargs: Any) -> Any:  # Any: passed on
            await confirmed(*args, **{**kwargs, "replicas": 0})
            raise exceptions.TimeoutError("the reply was lost")

        monkeypatch.setattr(Caller, "confirmed", lose_reply)
        lock = MutexLock(redis7, "k", 60, min_replicas=1)

        with pytest.raises(UnavailableError, match="gave no answer: the reply was lost"):
            await lock.acquire()

        await lock.aclose()
        assert not await lock.exists()

    async def test_a_key_of_another_type_with_replicas(self, redis7: Redis):
        """A mistake in the data stays what it is."""
        await redis7.set("wsl:m:{k}:holders", "x")
        lock = MutexLock(redis7, "k", 1, min_replicas=1)  # WAIT takes a quarter of it, without replicas

        with pytest.raises(exceptions.ResponseError, match=r"WRONGTYPE|caused error"):
            await lock.acquire()

        await lock.aclose()


class TestMultiLock:
    """Several locks, of which one fails."""

    async def test_one_cannot_be_acquired(self, redis_url: str, redis7: Redis):
        """The others are given back, and the client of the object's own is closed."""
        await redis7.set("wsl:m:{b}:holders", "x")
        lock = MultiLock(redis_url, ["a", "b"], 60)

        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            async with lock.hold(0):
                pytest.fail("not all were acquired")

        assert not lock.locked
        assert not await MutexLock(redis7, "a", 60).exists()

    async def test_one_cannot_be_released(self, redis7: Redis):
        """The others are released all the same, and the error is the caller's."""
        lock = MultiLock(redis7, ["a", "b"], 60)
        assert await lock.acquire()
        await redis7.set("wsl:m:{b}:holders", "x")

        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await lock.release()

        assert not await MutexLock(redis7, "a", 60).exists()
        await lock.aclose()

    async def test_unreachable_at_the_end(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """A block whose work is done does not fail because giving back does."""
        release = MutexLock.release

        async def lose_reply(lock: MutexLock) -> bool:
            await release(lock)
            raise UnavailableError("the reply was lost")

        monkeypatch.setattr(MutexLock, "release", lose_reply)
        lock = MultiLock(redis7, ["a", "b"], 60)
        done = False

        async with lock.hold(0) as fences:
            done = set(fences) == {"a", "b"}

        assert done
        assert not lock.locked

    async def test_one_cannot_be_closed(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """The others are closed before the error is raised."""
        aclose, closed = MutexLock.aclose, []

        async def fail(lock: MutexLock) -> None:
            await aclose(lock)
            closed.append(lock.name)

            if lock.name == "b":
                raise UnavailableError("not now")

        monkeypatch.setattr(MutexLock, "aclose", fail)

        with pytest.raises(UnavailableError, match="not now"):
            await MultiLock(redis7, ["a", "b", "c"], 60).aclose()

        assert sorted(closed) == ["a", "b", "c"]


class TestLink:
    """The shared connection at its ends."""

    async def test_no_stream(self):
        """A connection that cannot be taken over goes back to its pool."""
        released = []

        class Pool:
            async def get_connection(self) -> object:
                return self

            async def release(self, connection: object) -> None:
                released.append(connection)

        pool = Pool()

        with pytest.raises(AttributeError):
            await Wire(pool).call(("PING",), 1.0)

        assert released == [pool]

    async def test_ends_once(self, redis7: Redis):
        """An aborted connection takes no more calls, and aborting it again changes nothing."""
        pool = redis7.connection_pool
        link = _Link(pool, await pool.get_connection())
        assert await link.call(b"*1\r\n$4\r\nPING\r\n", 5.0) == b"PONG"
        link.abort()
        assert link.closed
        cleaning = link._release
        link.abort()
        assert link._release is cleaning

        with pytest.raises(exceptions.ConnectionError, match="lost before the call"):
            await link.call(b"", 1.0)

        assert cleaning is not None
        await cleaning

    async def test_given_back_unused(self, redis7: Redis):
        """A connection that was never used goes back whole."""
        pool = redis7.connection_pool
        link = _Link(pool, await pool.get_connection())
        link.give_back()
        assert link._release is not None
        await link._release
        assert await redis7.ping()

    async def test_overdue_call_that_was_cancelled(self, redis7: Redis):
        """An overdue call whose caller has gone is left alone; a later one still gets its time."""
        pool = redis7.connection_pool
        link = _Link(pool, await pool.get_connection())
        gone, stays = link.call(b"*1\r\n$4\r\nPING\r\n", -1.0), link.call(b"*1\r\n$4\r\nPING\r\n", 5.0)
        gone.cancel()
        link._heard = float("inf")  # something was heard meanwhile
        link._expire()
        assert gone.cancelled()
        assert await stays == b"PONG"
        link.abort()
        assert link._release is not None
        await link._release


async def test_leader_without_credentials(redis_server: RedisServer):
    """A candidate whose credentials are refused stops standing for election."""
    host, port = redis_server.address

    async with (
        Redis(
            host=host, port=port, username="nobody", password="wrong", retry=Retry(NoBackoff(), 0)
        ) as client,
        LeaderElection(client, "k", lease=1) as election,
    ):
        with pytest.raises(UnavailableError) as caught:
            await anext(election)

        assert isinstance(caught.value.__cause__, exceptions.AuthenticationError)
        assert not election.leading


async def test_limiter_on_a_client_leaves_it_open(redis7: Redis):
    """Closing a limiter does not close a client that belongs to somebody else."""
    limiter = FrequencyLimiter(redis7, 10, 60)
    assert not await limiter.is_limited("k")
    await limiter.aclose()
    assert await redis7.ping()
