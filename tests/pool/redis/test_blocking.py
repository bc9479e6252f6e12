"""Blocking commands never block others, and cancelling one eats nothing."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.exceptions import ResponseError

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.client import round_trip
from ws_pool._redis.commands.command import Command
from ws_pool._redis.dedicated.blocking import cancel_blocking, undo_of
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import (
    MaybeExecuted,
    UnavailableError,
    UsageError,
)
from ws_pool.redis import RedisPool


async def blocked(pool: RedisPool) -> int:
    """Count the clients that wait at the server."""
    return int((await pool.redis.info("clients"))["blocked_clients"])


async def until_blocked(pool: RedisPool, count: int) -> None:
    """Wait until so many clients wait at the server."""
    while await blocked(pool) != count:
        await asyncio.sleep(0)


def push_and_sleep(server: RedisServer, seconds: float) -> None:
    """Push an item, which is popped at once, and keep the server busy before it can send the reply."""
    with socket.create_connection(server.address, timeout=seconds + 10) as connection:
        connection.sendall(b"LPUSH queue item\r\nDEBUG SLEEP %g\r\n" % seconds)
        assert connection.recv(100).startswith(b":1")


class TestRouting:
    """What may not share the connection gets one of its own."""

    async def test_a_blocked_command_holds_nobody_up(self, any_redis_url: str) -> None:
        """While BLPOP waits, the shared connection serves, and hands it the item."""
        async with RedisPool(url=any_redis_url, decode_responses=True) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            await pool.redis.rpush("queue", "item")

            assert await waiting == ("queue", "item") or await waiting == ["queue", "item"]
            assert pool.statistics().leased[0].opened == 1

    async def test_a_session_command_changes_nobody_elses_session(self, redis_url: str) -> None:
        """SELECT on the shared client has no effect on others, and its connection is not kept."""
        async with RedisPool(url=redis_url) as pool:
            await pool.redis.set("k", "in 0")
            await pool.redis.select(5)
            await pool.redis.execute_command("CLIENT", "SETNAME", "odd")

            assert await pool.redis.get("k") == b"in 0"
            assert await pool.redis.client_getname() is None
            assert pool.statistics().leased[0].idle == 0

    async def test_alone_is_alone(self, redis_url: str) -> None:
        """A client that is alone has its own session, pipelines included; its handle is dead afterwards."""
        async with RedisPool(url=redis_url, decode_responses=True, maxsize=1) as pool:
            async with pool.get_client(alone=True) as alone:
                await alone.select(3)
                await alone.set("k", "in 3")

                async with alone.pipeline() as pipe:
                    pipe.get("k")
                    assert await pipe.execute() == ["in 3"]

                assert await pool.redis.get("k") is None

            with pytest.raises(Exception, match="block has ended"):
                await alone.get("k")

            async with pool.get_client(alone=True) as other:
                assert await other.get("k") is None

    async def test_tasks_take_turns_on_a_client_that_is_alone(self, any_redis_url: str) -> None:
        """What several tasks do on one connection does not mix, and no task can lock itself out."""
        async with (
            RedisPool(url=any_redis_url, decode_responses=True) as pool,
            pool.get_client(alone=True) as alone,
        ):

            async def echo(number: int) -> None:
                assert await alone.echo(f"{number}") == f"{number}"

            async def pipeline(number: int) -> None:
                async with alone.pipeline(transaction=bool(number % 2)) as pipe:
                    pipe.echo(f"{number}")
                    pipe.echo("x")
                    assert await pipe.execute() == [f"{number}", "x"]

            async def watch(number: int) -> None:
                async with alone.pipeline() as pipe:
                    await pipe.watch("k")
                    await pipe.get("k")
                    pipe.multi()
                    pipe.echo(f"{number}")
                    assert await pipe.execute() == [f"{number}"]

            await asyncio.gather(*(work(number) for number in range(50) for work in (echo, pipeline, watch)))

            async with alone.pipeline() as pipe:
                await pipe.watch("k")

                with pytest.raises(UsageError, match="pipeline with WATCH"):
                    await alone.get("k")

            async with alone.pubsub() as pubsub:
                await pubsub.subscribe("c")
                assert await alone.publish("c", "m") == 1

            async with alone.monitor():
                assert await alone.ping()

    async def test_a_long_pipeline_gets_a_connection_of_its_own(self, redis_url: str) -> None:
        """Beyond 2,000 commands a pipeline does not hold the shared connection up."""
        async with RedisPool(url=redis_url) as pool:
            for count, opened in ((2000, 0), (2001, 1)):
                async with pool.redis.pipeline(transaction=False) as pipe:
                    for _ in range(count):
                        pipe.incr("n")

                    assert len(await pipe.execute()) == count

                assert pool.statistics().leased[0].opened == opened


class TestCancelling:
    """Cancelling a blocking command."""

    async def test_a_thousand_cancels_eat_nothing_and_cost_no_capacity(self, any_redis: RedisServer) -> None:
        """After each of 1,000 cancelled BLPOPs the next item is there; in the end no waiter is left."""
        chance = random.Random(3)

        async with RedisPool(url=any_redis.url, decode_responses=True, maxsize=1) as pool:
            for number in range(1000):
                waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))

                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)

                if number % 3 == 0:
                    await until_blocked(pool, 1)

                waiting.cancel()

                with pytest.raises(asyncio.CancelledError):
                    await waiting

                await pool.redis.rpush("queue", number)
                assert await pool.redis.lpop("queue") == str(number)

            assert await blocked(pool) == 0
            leased = pool.statistics().leased[0]
            assert (leased.leased, leased.waiting) == (0, 0)
            assert await pool.redis.blpop("queue", timeout=0.01) is None

    async def test_an_abandoned_waiter_would_eat(
        self, monkeypatch: pytest.MonkeyPatch, redis_url: str
    ) -> None:
        """The broken twin, which leaves the waiter at the server as it is, loses the item."""
        free = asyncio.Event()
        monkeypatch.setattr(round_trip, "cancel_in_background", lambda *_: asyncio.ensure_future(free.wait()))

        async with RedisPool(url=redis_url) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await pool.redis.rpush("queue", "item")

            assert await pool.redis.lpop("queue") is None
            free.set()

    async def test_on_a_client_that_is_alone(self, any_redis: RedisServer) -> None:
        """There, too, nothing is eaten, and the session goes on."""
        chance = random.Random(5)

        async with (
            RedisPool(url=any_redis.url, decode_responses=True) as pool,
            pool.get_client(alone=True) as alone,
            pool.redis.client() as single,
        ):
            for client in (alone, single):
                await client.client_setname("mine")

                for number in range(200):
                    waiting = asyncio.ensure_future(client.blpop("queue", timeout=0))

                    for _ in range(1 + chance.randrange(8)):
                        await asyncio.sleep(0)

                    waiting.cancel()
                    await asyncio.wait([waiting])
                    await pool.redis.rpush("queue", number)
                    assert await client.lpop("queue") == str(number)

                assert await client.client_getname() == "mine"

            assert await blocked(pool) == 0

    async def test_between_multi_and_exec_nothing_blocks(self, redis_url: str) -> None:
        """What the server has queued there is no reply of a blocking command; the session is over."""
        async with RedisPool(url=redis_url) as pool:
            async with pool.get_client(alone=True) as alone:
                await alone.execute_command("MULTI")
                waiting = asyncio.ensure_future(alone.blpop("queue", timeout=0))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])

                with pytest.raises(UnavailableError, match="take another client"):
                    await alone.execute_command("EXEC")

            assert await pool.redis.keys() == []

    async def test_where_unblocking_is_forbidden(
        self, redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A user who may not use CLIENT can block all the same; a cancelled command closes its connection."""
        redis_server.command("ACL", "SETUSER", "quiet", "on", ">pw", "~*", "&*", "+@all", "-client")

        async with (
            RedisPool(url=redis_url) as other,
            RedisPool(url=redis_url, username="quiet", password="pw") as pool,
        ):
            await pool.redis.rpush("queue", "item")
            assert await pool.redis.blpop("queue", timeout=1)
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(other, 1)
            waiting.cancel()
            await asyncio.wait([waiting])
            await until_blocked(other, 0)

            while pool.statistics().leased[0].size:
                await asyncio.sleep(0)

        assert "CLIENT ID is forbidden" in caplog.text
        redis_server.command("ACL", "DELUSER", "quiet")

    @pytest.mark.parametrize(
        ("take", "give", "look"),
        [
            (lambda r: r.blpop("q", 0), lambda r: r.rpush("q", "i"), lambda r: r.lrange("q", 0, -1)),
            (lambda r: r.brpop("q", 0), lambda r: r.rpush("q", "i"), lambda r: r.lrange("q", 0, -1)),
            (
                lambda r: r.blmpop(0, 1, "q", direction="LEFT", count=2),
                lambda r: r.rpush("q", "i"),
                lambda r: r.lrange("q", 0, -1),
            ),
            (lambda r: r.bzpopmin("z", 0), lambda r: r.zadd("z", {"i": 1.5}), lambda r: r.zrange("z", 0, -1)),
            (
                lambda r: r.bzmpop(0, 1, ["z"], min=True, count=2),
                lambda r: r.zadd("z", {"i": 1.5}),
                lambda r: r.zrange("z", 0, -1),
            ),
            (
                lambda r: r.blmove("q", "to", 0, "LEFT", "RIGHT"),
                lambda r: r.rpush("q", "i"),
                lambda r: r.lrange("q", 0, -1),
            ),
            (
                lambda r: r.brpoplpush("q", "to", 0),
                lambda r: r.rpush("q", "i"),
                lambda r: r.lrange("q", 0, -1),
            ),
        ],
        ids=["blpop", "brpop", "blmpop", "bzpopmin", "bzmpop", "blmove", "brpoplpush"],
    )
    async def test_an_item_on_its_way_goes_back(
        self,
        redis_server: RedisServer,
        take: Callable[[Any], Coroutine[Any, Any, Any]],
        give: Callable[[Any], Coroutine[Any, Any, Any]],
        look: Callable[[Any], Coroutine[Any, Any, Any]],
    ) -> None:
        """An item that the server has given to a command which is cancelled before it arrives is put back."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=redis_server.url, decode_responses=True) as direct,
            RedisPool(url=proxy.url(redis_server.url), decode_responses=True) as pool,
        ):
            waiting = asyncio.ensure_future(take(pool.redis))
            await until_blocked(direct, 1)
            proxy.hold(to="client")
            await give(direct.redis)
            await until_blocked(direct, 0)
            waiting.cancel()

            with pytest.raises(asyncio.CancelledError):
                await waiting

            proxy.release()

            while await look(direct.redis) != ["i"]:
                await asyncio.sleep(0.001)

            assert not await direct.redis.exists("to")

    async def test_an_item_that_cannot_be_put_back_is_logged(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """When the key has another type meanwhile, the log names the lost item."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=redis_server.url) as direct,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            waiting = asyncio.ensure_future(pool.redis.blpop("q", 0))
            await until_blocked(direct, 1)
            proxy.hold(to="client")
            await direct.redis.rpush("q", "precious")
            await until_blocked(direct, 0)
            await direct.redis.set("q", "a string")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            proxy.release()

            while "precious" not in caplog.text:
                await asyncio.sleep(0.001)

    async def test_a_deleted_stream_ends_a_waiting_reader(self, redis_url: str) -> None:
        """A blocking command that ends with an error is an error, and its connection is kept."""
        async with RedisPool(url=redis_url) as pool:
            await pool.redis.xgroup_create("s", "g", mkstream=True)
            waiting = asyncio.ensure_future(pool.redis.xreadgroup("g", "c", {"s": ">"}, block=0))
            await until_blocked(pool, 1)
            await pool.redis.delete("s")

            with pytest.raises(ResponseError, match=r"UNBLOCKED|NOGROUP|no longer exists"):
                await waiting

            assert pool.statistics().leased[0].idle == 1

    async def test_concurrent_producers_lose_nothing(self, any_redis: RedisServer) -> None:
        """What is pushed while consumers are cancelled at random is consumed or still there, each once."""
        chance = random.Random(4)
        taken: list[str] = []

        async def consume(pool: RedisPool) -> None:
            reply = await pool.redis.blpop("queue", timeout=5)

            if reply is not None:
                taken.append(str(reply[1]))

        async def consume_for_long(pool: RedisPool) -> None:
            for _ in range(40):
                task = asyncio.ensure_future(consume(pool))
                await asyncio.wait([task], timeout=chance.random() * 0.004)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        async with RedisPool(url=any_redis.url, decode_responses=True) as pool:
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(consume_for_long(pool))

                for number in range(300):
                    await pool.redis.rpush("queue", number)

            left = await pool.redis.lrange("queue", 0, -1)

        assert sorted(map(int, [*taken, *left])) == list(range(300))

    async def test_a_client_that_is_alone_closes_its_connection(self, redis_url: str) -> None:
        """A cancelled blocking command on a client that is alone takes its connection along."""
        async with RedisPool(url=redis_url) as pool:
            async with pool.get_client(alone=True) as alone:
                waiting = asyncio.ensure_future(alone.blpop("queue", timeout=0))
                await until_blocked(pool, 1)
                waiting.cancel()

                with pytest.raises(asyncio.CancelledError):
                    await waiting

            await until_blocked(pool, 0)

    async def test_a_lost_server_is_told_of(self, start_server: StartServer) -> None:
        """A blocking command whose server dies may have been executed."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            server.kill()

            with pytest.raises(MaybeExecuted, match="BLPOP"):
                await waiting

    async def test_a_paused_server_holds_a_cancellation_up_for_a_moment_only(
        self, start_server: StartServer
    ) -> None:
        """When the server says nothing, the cancellation goes on and the connection is closed later."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, command_timeout=0.4) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            server.pause()
            waiting.cancel()

            with pytest.raises(asyncio.CancelledError):
                await waiting

            server.resume()
            await until_blocked(pool, 0)

    @pytest.mark.parametrize("alone", [False, True], ids=["shared", "alone"])
    async def test_a_busy_server_loses_no_item(self, start_server: StartServer, *, alone: bool) -> None:
        """An item that was popped for a cancelled caller while the server was busy for long is put back."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, command_timeout=0.3, outage_timeout=0.1) as pool,
            pool.get_client(alone=alone) as client,
        ):
            waiting = asyncio.ensure_future(client.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            pushing = asyncio.create_task(asyncio.to_thread(push_and_sleep, server, 4.0))
            await asyncio.sleep(0.2)
            waiting.cancel()
            began = asyncio.get_running_loop().time()

            with pytest.raises(asyncio.CancelledError):
                await waiting

            assert asyncio.get_running_loop().time() - began < 3
            await pushing

            async with asyncio.timeout(20):
                while server.command("LRANGE", "queue", 0, -1) != ["item"]:
                    await asyncio.sleep(0.02)

    async def test_a_lost_item_is_named(
        self, start_server: StartServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """When the connection is lost before the reply, the log names the command and its keys."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, command_timeout=0.3, outage_timeout=0.1) as pool:
            waiting = asyncio.ensure_future(pool.redis.blpop("queue", timeout=0))
            await until_blocked(pool, 1)
            server.pause()
            waiting.cancel()
            await asyncio.wait([waiting])
            server.kill()

            async with asyncio.timeout(20):
                while pool.statistics().leased[0].size:
                    await asyncio.sleep(0.02)

        assert "closes the connection of a cancelled BLPOP" in caplog.text
        assert "an item may be lost of ('queue', 0)" in caplog.text


@pytest.mark.parametrize(
    ("args", "reply", "undo"),
    [
        (("BRPOP", "q", 0), [b"q", b"i"], ("RPUSH", b"q", b"i")),
        (("BLMPOP", 0, 1, "q", "LEFT"), [b"q", [b"1", b"2"]], ("LPUSH", b"q", b"2", b"1")),
        (("BLMPOP", 0, 2, "a", "q", b"right"), [b"q", [b"2", b"1"]], ("RPUSH", b"q", b"1", b"2")),
        (("BZPOPMAX", "z", 0), [b"z", b"m", b"1"], ("ZADD", b"z", b"1", b"m")),
        (("BZMPOP", 0, 1, "z", "MIN"), [b"z", [[b"m", 1.5]]], ("ZADD", b"z", 1.5, b"m")),
        (("BLMOVE", "a", "b", "LEFT", b"right", 0), b"i", ("EVAL", 2, "b", "a", b"i", "RIGHT", "LEFT")),
        (("BRPOPLPUSH", "a", "b", 0), b"i", ("EVAL", 2, "b", "a", b"i", "LEFT", "RIGHT")),
        (("BLPOP", "q", 0), None, None),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "s", ">"), [[b"s", []]], None),
    ],
)
def test_undo(args: tuple[Any, ...], reply: Any, undo: tuple[Any, ...] | None) -> None:
    """What a blocking command took goes back to the end it came from, in its order."""
    found = undo_of(Command(args), reply)
    assert (found if found is None or found[0] != "EVAL" else (found[0], *found[2:])) == undo


class _Answers:
    """A connection whose reply is here already."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    async def read_response(self, **_: object) -> Any:
        """Return it."""
        return self._reply


@pytest.mark.parametrize(("sent", "tries"), [(False, 3), (True, 1)])
async def test_an_undo_outlives_the_shared_connection(
    sent: bool,
    tries: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An item is put back although the shared connection was lost; unless it may have been already.

    An UNBLOCK that may come later must not meet the next user of the connection.
    """
    asked: list[object] = []

    async def lost(*_: object) -> None:
        raise ConnectionLost("cut", sent=sent)

    async def ask(command: object) -> None:
        asked.append(command)

        if len(asked) < 3:
            await lost()

    connection: Any = _Answers([b"queue", b"item"])
    assert await cancel_blocking(connection, Command(("BLPOP", "queue", 0)), 1, ask, lost()) is not sent
    assert asked == [("LPUSH", b"queue", b"item")] * tries
    assert ("may not have been put back" in caplog.text) == sent


async def test_a_blocking_read_is_repeated(redis_server: RedisServer) -> None:
    """XREAD with BLOCK only reads, so a lost connection does not show."""
    redis_server.command("FLUSHALL")

    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url)) as pool,
    ):
        await pool.redis.xadd("s", {"f": "v"})
        proxy.drop_reply(match="XREAD")
        assert await pool.redis.xread({"s": 0}, block=1000)
