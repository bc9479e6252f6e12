"""The ways to Redis: the shared connection, its protocol, timers, and clients that are not plain."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import pytest
from redis import exceptions
from redis._parsers import _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import DefaultParser

from tests.redislock._helpers import until_waiting
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import FrequencyLimiter, MutexLock
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._lease.timers import Timers
from ws_redislock._redis import connection
from ws_redislock._redis.pipelined_protocol import DriverReplies, Replies, encode, replies_of
from ws_redislock.errors import UnavailableError

REPLIES: list[tuple[bytes, object]] = [
    (b":42\r\n", 42),
    (b":-1\r\n", -1),
    (b"+OK\r\n", b"OK"),
    (b"$3\r\nabc\r\n", b"abc"),
    (b"$0\r\n\r\n", b""),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$2\r\nxy\r\n*1\r\n:2\r\n", [1, b"xy", [2]]),
    (b"*2\r\n$4\r\na\nb\n\r\n:1\r\n", [b"a\nb\n", 1]),
]
ERRORS: list[tuple[bytes, type[Exception]]] = [
    (b"-NOSCRIPT No matching script.\r\n", exceptions.NoScriptError),
    (b"-READONLY You can't write\r\n", exceptions.ReadOnlyError),
    (b"-LOADING Redis is loading\r\n", exceptions.BusyLoadingError),
    (b"-NOPERM no permissions\r\n", exceptions.NoPermissionError),
    (b"-ERR what?\r\n", exceptions.ResponseError),
]


Pair: TypeAlias = "tuple[Replies, type | None]"


@pytest.fixture(params=["RESP 2", "RESP 3", "hiredis"])
async def replies(request: pytest.FixtureRequest, redis7: Redis) -> AsyncIterator[Pair]:
    """Return a parser of replies, of each kind that a connection may have."""
    if request.param == "hiredis":
        yield replies_of(DefaultParser(1))
        return

    url = redis7.connection_pool.connection_kwargs
    protocol = int(request.param[-1])
    parser = _AsyncRESP3Parser if protocol == 3 else _AsyncRESP2Parser
    driver = Connection(host=url["host"], port=url["port"], protocol=protocol, parser_class=parser)
    await driver.connect()
    own: Any = driver._parser  # Any: the parsers have no public type
    stream = own._stream
    yield DriverReplies(own), None
    own._stream = stream
    await driver.disconnect()


class TestReplies:
    """Encoding commands and reading replies."""

    @pytest.mark.parametrize(("data", "reply"), REPLIES)
    def test_reads_every_kind(self, replies: Pair, data: bytes, reply: object):
        """Each kind of reply is read, however it is cut into pieces."""
        reader, _ = replies

        for cut in range(len(data)):
            reader.feed(data[:cut])
            assert reader.gets() is False
            reader.feed(data[cut:] + b":7\r\n:8\r\n")
            assert [reader.gets() for _ in range(4)] == [reply, 7, 8, False]

    @pytest.mark.parametrize(("data", "kind"), ERRORS)
    def test_errors_are_the_drivers(self, replies: Pair, data: bytes, kind: type[Exception]):
        """An error reply becomes the exception that redis-py has for it, and the next reply is read."""
        reader, _ = replies
        reader.feed(data + b":7\r\n")
        assert type(reader.gets()) is kind
        assert reader.gets() == 7

    def test_pushes_are_not_replies(self, replies: Pair, request: pytest.FixtureRequest):
        """What the server sends by itself is marked by hiredis, and taken out by redis-py's parser."""
        if "RESP 2" in request.node.name:
            pytest.skip("RESP 2 has no pushes")

        reader, push = replies
        reader.feed(b">2\r\n$1\r\na\r\n:1\r\n*1\r\n:1\r\n")
        first = reader.gets()
        assert first == [1] or (type(first) is push and reader.gets() == [1])

    def test_rubbish(self, replies: Pair):
        """What is not a reply is an error."""
        reader, _ = replies
        reader.feed(b"HTTP/1.1 400\r\n")

        with pytest.raises(exceptions.InvalidResponse):
            reader.gets()

    def test_encodes(self):
        """Text, bytes and numbers are arguments."""
        assert encode((b"SET", "ä", 5)) == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n5\r\n"

    async def test_without_hiredis(self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
        """Without hiredis, fifty tasks share a connection by redis-py's own parser; then the pool has it."""
        monkeypatch.setitem(sys.modules, "hiredis", None)
        monkeypatch.setattr(connection, "IDLE", 0.1)
        pool = ConnectionPool.from_url(any_redis.url, parser_class=_AsyncRESP3Parser, protocol=3)

        async with Redis.from_pool(pool) as client:
            shared: Any = coordinator_for(client).scripts._sender._shared
            locks = [MutexLock(client, f"k{number}", 60) for number in range(50)]
            assert all(await asyncio.gather(*(lock.acquire() for lock in locks)))
            assert isinstance(shared._link._replies, DriverReplies)
            assert all(await asyncio.gather(*(lock.release() for lock in locks)))

            async with asyncio.timeout(5):
                while shared._link is not None:
                    await asyncio.sleep(0.01)

            connections = await client.client_list()
            assert await client.set("k", "value")
            assert await client.get("k") == b"value"
            assert len(await client.client_list()) == len(connections)


class TestWire:
    """The shared connection of a plain client."""

    async def test_one_connection_for_all(self, redis: Redis):
        """A hundred tasks that wait use one connection for calls and one for the subscription."""
        clients = len(await redis.client_list())
        first = MutexLock(redis, "k", 60)
        await first.acquire()
        locks = [MutexLock(redis, "k", 60) for _ in range(100)]
        tasks = [asyncio.create_task(lock.acquire(None)) for lock in locks]
        await until_waiting(first, 100)
        assert len(await redis.client_list()) <= clients + 2

        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(lock.aclose() for lock in locks))
        await first.release()

    async def test_pushes_are_no_replies(self, any_redis: RedisServer):
        """Messages that the server sends by itself on the shared connection answer no call."""
        async with Redis.from_url(any_redis.url, protocol=3) as client:
            lock = MutexLock(client, "k", 60)
            await lock.acquire()
            wire = coordinator_for(client).scripts._sender._shared
            assert wire is not None
            await wire.call(("CLIENT", "TRACKING", "ON", "BCAST"), 1.0)
            assert all([await lock.renew() for _ in range(20)])
            assert await lock.owner() == lock.current().token
            assert await lock.release()

    async def test_is_given_back_when_idle(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """After a while without calls the pool has its connection again, and it is whole."""
        monkeypatch.setattr(connection, "IDLE", 0.05)
        lock = MutexLock(redis, "k", 60)
        await lock.acquire()
        wire = coordinator_for(redis).scripts._sender._shared
        assert wire is not None

        while wire._link is not None:
            await asyncio.sleep(0.01)

        assert await redis.ping()
        assert await lock.release()
        await redis.aclose()
        await asyncio.sleep(0.12)
        assert wire._link is None

    async def test_one_timer_watches_it(self, redis: Redis):
        """However often the connection is made anew, one timer waits for it to be idle."""
        lock = MutexLock(redis, "k", 60)
        assert await lock.acquire()
        wire = coordinator_for(redis).scripts._sender._shared
        assert wire is not None

        for _ in range(5):
            assert wire._link is not None
            wire._link.abort()
            assert await lock.renew()

        loop: Any = asyncio.get_running_loop()  # Any: its timers have no public name
        timers = [handle for handle in loop._scheduled if handle._callback == wire._check_idleness]
        assert [timer.cancelled() for timer in timers].count(False) == 1
        assert await lock.release()

    async def test_a_small_pool_is_left_alone(self, any_redis: RedisServer):
        """A pool with few connections is asked for each call, and works."""
        pool = BlockingConnectionPool.from_url(any_redis.url, max_connections=2)

        async with Redis.from_pool(pool) as client:
            one, two = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
            assert await one.acquire()
            waiting = asyncio.create_task(two.acquire(5))
            await until_waiting(one)
            await one.release()
            assert await waiting
            await two.release()

    async def test_rubbish_ends_the_connection(self):
        """A server that does not speak the protocol is an error, and not taken for a reply."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.current_task())

            with contextlib.suppress(ConnectionError):
                while data := await reader.read(10_000):
                    welcome = b"+OK\r\n" * data.count(b"*")
                    writer.write(b"HTTP/1.1 400\r\n\r\n" if b"EVAL" in data else welcome)

                writer.close()
                await writer.wait_closed()

        handlers: list[Any] = []

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]

            async with Redis(host="127.0.0.1", port=port, protocol=2) as client:
                with pytest.raises(UnavailableError):
                    await MutexLock(client, "k", 0.5).acquire(0.2)

                await asyncio.sleep(1.2)  # until nobody tries to undo it any more

            await asyncio.gather(*handlers)

    async def test_a_silent_connection_is_left(self, any_redis: RedisServer):
        """When nothing is received any more, the next attempt takes another connection."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            lock = MutexLock(client, "k", 60)
            await lock.acquire()
            before = proxy.connections
            lost = proxy.drop_reply(1, match="EVALSHA", then="silence")
            assert await lock.release()
            assert lost.is_set()
            assert proxy.connections == before + 1

    async def test_replicas_are_not_written_to(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """READONLY ends the connection: the master is resolved anew."""
        lock = MutexLock(redis7, "k", 60)
        await lock.acquire()
        wire = coordinator_for(redis7).scripts._sender._shared
        assert wire is not None
        link = wire._link
        assert link is not None
        await redis7.execute_command("REPLICAOF", "127.0.0.1", "1")

        try:
            with pytest.raises((UnavailableError, exceptions.ReadOnlyError)):
                await MutexLock(redis7, "k2", 0.5).acquire(0.3)
        finally:
            await redis7.execute_command("REPLICAOF", "NO", "ONE")

        assert link.closed
        assert await lock.release()

    async def test_many_calls_of_a_lost_connection(self, any_redis: RedisServer):
        """Calls that went together and were lost are made again, each by itself."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            async with MutexLock(client, "warm", 60).hold():
                pass

            for then in ("close", "cut"):
                locks = [MutexLock(client, f"{then}{number}", 60) for number in range(40)]
                proxy.drop_reply(8, match="EVALSHA", then=then)
                assert all(await asyncio.gather(*(lock.acquire() for lock in locks)))
                proxy.drop_reply(8, match="EVALSHA", then=then)
                assert all(await asyncio.gather(*(lock.release() for lock in locks)))


class OtherRedis(Redis):
    """A client with a way of its own to send commands, as pools have."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""
        return await super().execute_command(*args, **options)


class TestOtherClients:
    """Clients that are not plain."""

    @pytest.fixture
    async def other(self, any_redis: RedisServer) -> AsyncIterator[OtherRedis]:
        """Yield such a client."""
        client: OtherRedis = OtherRedis.from_url(any_redis.url)  # type: ignore[assignment]
        yield client
        await client.aclose()

    async def test_many_waiters_on_many_locks(self, other: OtherRedis):
        """Their heartbeats go in one round trip, and all are served."""
        await other.script_flush()
        holders = [MutexLock(other, f"k{number}", 60) for number in range(20)]
        assert all(await asyncio.gather(*(lock.acquire() for lock in holders)))
        waiters = [MutexLock(other, f"k{number}", 60, heartbeat=0.3) for number in range(20)]
        tasks = [asyncio.create_task(lock.acquire(None)) for lock in waiters]

        for lock in holders:
            await until_waiting(lock)

        await asyncio.sleep(0.35)
        await other.script_flush()
        await asyncio.sleep(0.3)
        assert [await lock.waiters() for lock in holders] == [1] * 20
        await asyncio.gather(*(lock.release() for lock in holders))
        assert all(await asyncio.gather(*tasks))
        await asyncio.gather(*(lock.release() for lock in waiters))

    async def test_a_server_that_says_nothing(self, start_server: StartServer):
        """An attempt ends in time, and a cancel from outside is not taken for it."""
        server = start_server(RedisServer)

        async with OtherRedis.from_url(server.url) as client:
            lock = MutexLock(client, "k", 60)
            assert await lock.acquire()
            assert await lock.release()
            server.pause()

            with pytest.raises(UnavailableError, match="no reply in time"):
                await MutexLock(client, "k", 60).acquire(0.2)

            limiter = FrequencyLimiter(client, 60, 3, timeout=30)
            task = asyncio.create_task(limiter.hit("k"))
            await asyncio.sleep(0.05)
            task.cancel()

            with pytest.raises(asyncio.CancelledError):
                await task

            server.resume()

    async def test_waiters_survive_an_outage(self, start_server: StartServer):
        """While the server is away heartbeats fail; afterwards the waiter is served."""
        server = start_server(RedisServer)

        async with OtherRedis.from_url(server.url) as client:
            first = MutexLock(client, "k", 60)
            second = MutexLock(client, "k", 60, heartbeat=0.6)
            await first.acquire()
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first)
            server.kill()
            await asyncio.sleep(0.5)
            server.restart()

            async with asyncio.timeout(20):
                assert await waiting

            await second.release()
            assert not await first.release()

    async def test_a_client_that_hides_a_cancel(self, any_redis: RedisServer):
        """A client that makes an error of the cancel at the end of an attempt leaves no cancel behind."""

        class HidingRedis(OtherRedis):
            async def execute_command(self, *args: Any, **options: Any) -> Any:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    raise exceptions.ConnectionError("interrupted") from None

        async with HidingRedis.from_url(any_redis.url) as client:
            with pytest.raises(exceptions.ConnectionError, match="interrupted"):
                await coordinator_for(client).scripts._sender.send(("PING",), 0.01)

        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


class TestTimers:
    """Many timers on one of the loop's."""

    async def test_fire_in_order_and_not_when_cancelled(self):
        """They fire when they are due; cancelled ones do not, and leave the heap."""
        timers = Timers(asyncio.get_running_loop())
        fired: list[float] = []
        done = asyncio.Event()
        chance = random.Random(7)
        delays = [number / 100 for number in range(12)]
        chance.shuffle(delays)
        kept = [timers.call_later(delay, functools.partial(fired.append, delay)) for delay in delays]
        whens = {timer: when for when, _, timer in timers._heap}  # a busy machine makes some calls late
        due = {delay: whens[timer] for delay, timer in zip(delays, kept, strict=True)}
        dropped = [timers.call_later(60, fired.clear) for _ in range(300)]
        timers.call_later(0.13, done.set)

        for timer in dropped:
            timers.cancel(timer)
            timers.cancel(timer)

        assert len(timers) < 150
        await done.wait()
        assert fired == sorted(delays, key=due.__getitem__)
        assert all(timer.function is None for timer in kept)

    async def test_one_that_raises_does_not_stop_the_others(self):
        """An error goes to the loop's handler, and one timer may cancel another that is due as well."""
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        done = asyncio.Event()
        fired: list[str] = []

        def fail() -> None:
            timers.cancel(cancelled)
            raise ZeroDivisionError

        timers.call_later(0.0, fail)
        cancelled = timers.call_later(0.0, lambda: fired.append("cancelled"))
        timers.call_later(0.0, done.set)
        await done.wait()
        assert not fired
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
