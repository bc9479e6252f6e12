"""Edges of the Redis pool that neither faults nor comparisons reach."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as driver
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from tests.faults import FaultProxy
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool._core.background import cancel_and_wait
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, resolve_credentials
from ws_pool._redis.connection.queue import Limits
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool.errors import AcquireTimeout, ClosedError, MaybeExecuted, NotReadyError, UnavailableError
from ws_pool.redis import RedisPool

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
"""A certificate for localhost that signs itself, with its key."""


class TestClient:
    """Special options of redis-py, and its rarer methods."""

    async def test_special_options(self, redis_url: str) -> None:
        """NEVER_DECODE and EMPTY_RESPONSE do what redis-py's clients do, alone and in pipelines."""
        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            redis = pool.redis
            await redis.set("k", b"\xff")
            assert await redis.execute_command("GET", "k", **{NEVER_DECODE: []}) == b"\xff"
            assert await redis.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"}) == "empty"
            assert await redis.execute_command("ECHO", "x", **{EMPTY_RESPONSE: "empty"}) == "x"

            with pytest.raises(driver.ResponseError):
                await redis.execute_command("NOSUCH", **{NEVER_DECODE: []})

            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("GET", "k", **{NEVER_DECODE: []})
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                assert await pipe.execute() == [b"\xff", "empty"]

            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                pipe.echo("x")
                assert await pipe.execute() == ["empty", "x"]

            async with redis.pipeline(transaction=True) as pipe:
                pipe.echo("x")
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                assert await pipe.execute() == ["x", "empty"]

    async def test_special_options_of_blocking_commands(self, redis_url: str) -> None:
        """They count on a connection of one's own as well, alone or lent for the command."""
        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            pool.get_client(alone=True) as alone,
        ):
            for redis in (pool.redis, alone):
                await redis.rpush("list", b"\xff", b"\xfe")
                pop = ("BLPOP", "list", 1)
                assert list(await redis.execute_command(*pop, **{NEVER_DECODE: []})) == [b"list", b"\xff"]

                with pytest.raises(UnicodeDecodeError):
                    await redis.execute_command(*pop)

                await redis.set("text", "t")
                pop = ("BLPOP", "text", 1)
                assert await redis.execute_command(*pop, **{EMPTY_RESPONSE: "empty"}) == "empty"
                await redis.delete("text")

                with pytest.raises(driver.ResponseError):
                    await redis.execute_command("BLPOP", "list", -1)

    async def test_empty_and_async_pipelines(self, redis_url: str) -> None:
        """An empty pipeline asks nobody; callbacks may be async there too, and may fail."""

        async def shout(response: bytes, **_: object) -> str:
            return response.decode().upper()

        def fail(response: bytes, **_: object) -> None:
            raise driver.ResponseError("a callback's own")

        async with RedisPool(url=redis_url) as pool:
            redis = pool.redis

            async with redis.pipeline() as pipe:
                assert await pipe.execute() == []

            redis.set_response_callback("ECHO", shout)

            for transaction in (True, False):
                async with redis.pipeline(transaction=transaction) as pipe:
                    pipe.echo("x")
                    assert await pipe.execute() == ["X"]

            redis.response_callbacks.update({"ECHO": fail})

            async with redis.pipeline(transaction=False) as pipe:
                pipe.echo("x")
                (error,) = await pipe.execute(raise_on_error=False)
                assert isinstance(error, driver.ResponseError)

    async def test_the_single_connection_client(self, redis_url: str) -> None:
        """``client()`` takes a connection at its first use and gives it back."""
        async with RedisPool(url=redis_url) as pool:
            async with pool.redis.client() as single:
                first = await single.client_id()
                assert await single.client_id() == first
                assert pool.statistics().leased[0].leased == 1

            assert pool.statistics().leased[0].leased == 0
            await pool.redis.aclose()
            assert await pool.redis.ping()
            assert "SharedRedis of redis pool 'default'" in repr(pool.redis)
            assert "DedicatedConnections" in repr(pool.redis.connection_pool)

    async def test_lent_connections_are_replaced_on_request(self, redis_url: str) -> None:
        """Redis-py's ``disconnect`` of the connection pool replaces the connections that are lent."""
        async with RedisPool(url=redis_url) as pool:
            await pool.redis.blpop("empty", timeout=0.001)
            before = pool.statistics().leased[0].opened
            await pool.redis.connection_pool.disconnect()
            await pool.redis.connection_pool.aclose()
            await pool.redis.blpop("empty", timeout=0.001)
            assert pool.statistics().leased[0].opened == before + 1

    async def test_what_a_user_leaves_behind_is_noticed(self, redis_url: str) -> None:
        """A connection with an unread reply is never lent again."""
        async with RedisPool(url=redis_url, maxsize=1) as pool:
            connections = pool.redis.connection_pool
            connection = await connections.get_connection()
            await connection.send_command("ECHO", "left behind")
            await connections.release(connection)
            await connections.release(connection)

            async with pool.get_client(alone=True) as alone:
                assert await alone.echo("mine") == b"mine"

    async def test_watch_on_a_lost_connection(self, redis_server: RedisServer) -> None:
        """A transaction with WATCH whose connection is lost may have been executed."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            pool.redis.pipeline() as pipe,
        ):
            await pipe.watch("k")
            pipe.multi()
            pipe.set("k", 1)
            proxy.drop_reply(match="EXEC")

            with pytest.raises((driver.WatchError, MaybeExecuted)):
                await pipe.execute()

    async def test_a_long_pipeline_on_a_lost_connection(self, redis_server: RedisServer) -> None:
        """A pipeline on a connection of its own is told of in the same way."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            pool.redis.pipeline(transaction=False) as pipe,
        ):
            for _ in range(2_001):
                pipe.incr("n")

            proxy.drop_reply(100, match="INCRBY")

            with pytest.raises(MaybeExecuted, match="INCRBY"):
                await pipe.execute()

    async def test_a_leased_command_that_takes_too_long(self, start_server: StartServer) -> None:
        """A command on a lent connection has its timeout too; its connection is closed."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, command_timeout=0.2) as pool,
            pool.get_client(alone=True) as alone,
        ):
            await alone.ping()
            server.pause()

            with pytest.raises(MaybeExecuted, match=r"PING.*no reply within 0\.2 s"):
                await alone.ping()

            server.resume()

    async def test_a_command_that_cannot_be_sent(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command whose connection is always lost before it was sent says that it was not sent."""
        async with RedisPool(url=redis_url) as pool:
            lane = pool.redis._lane
            assert lane is not None
            kill = lane.link.__class__._flush
            monkeypatch.setattr(lane.link.__class__, "_flush", lambda link: link.kill("cut before the write"))

            with pytest.raises(UnavailableError, match=r"could not send|cannot reach") as caught:
                await pool.redis.incr("n")

            assert not isinstance(caught.value, MaybeExecuted)
            monkeypatch.setattr(lane.link.__class__, "_flush", kill)


class TestTls:
    """TLS, for the shared connection and for those that are lent."""

    async def test_encrypted(self, redis_server: RedisServer) -> None:
        """Shared and lent connections and the cache work through TLS; the certificate is checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection(redis_server.host, redis_server.port)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)

                target.close()

            await asyncio.gather(
                copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True
            )

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]

        async with server:
            url = f"rediss://localhost:{port}/0?ssl_ca_certs={CERTIFICATE}"

            async with RedisPool(url=url, cache=10) as pool:
                await pool.redis.set("k", "v")
                assert await pool.redis.get("k") == await pool.redis.get("k") == b"v"
                assert await pool.redis.blpop("empty", timeout=0.001) is None
                assert pool.url == f"rediss://localhost:{port}/0"

            with pytest.raises(UnavailableError, match="certificate"):
                await RedisPool(url=f"rediss://localhost:{port}").start()


class TestLane:
    """The shared connection's life."""

    @staticmethod
    def lane(resolve: Any, **limits: Any) -> ReconnectingConnection:
        """Make a lane."""
        options: dict[str, Any] = {"outage_timeout": 0.05, "backoff": (0.001, 0.002), **limits}
        return ReconnectingConnection(
            "test", resolve, CommandEncoder(lambda value: str(value).encode(), fast=True), Limits(**options)
        )

    async def test_a_failing_resolver_is_asked_again(self, redis_server: RedisServer) -> None:
        """Whatever a resolver raises, the lane goes on trying."""
        calls = 0

        async def resolve() -> Endpoint:
            nonlocal calls
            calls += 1

            if calls < 3:
                raise KeyError("not yet")

            return Endpoint(redis_server.host, redis_server.port)

        lane = self.lane(resolve, outage_timeout=10.0)
        lane.start_soon()
        slot = asyncio.get_running_loop().create_future()
        lane.submit(slot, b"PING\r\n")
        assert await slot == b"PONG"
        assert "127.0.0.1" in repr(lane)
        assert lane.connected
        await lane.close()
        await lane.close()

    async def test_a_server_that_hangs_up_at_once_is_not_hammered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Links that are lost before they served anybody are followed by growing pauses."""
        pauses: list[float] = []
        greeted = 0

        async def greet_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal greeted
            await reader.readline()
            greeted += 1
            writer.write(b"+PONG\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(greet_and_hang_up, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", port, protocol=2)

        lane = self.lane(resolve, backoff=(0.0001, 10.0))
        pause = lane._pause

        def note(failures: int) -> float:
            pauses.append(pause(failures))
            return 0.0

        monkeypatch.setattr(lane, "_pause", note)
        lane.start_soon()

        async with asyncio.timeout(10):
            while greeted < 9:  # noqa: ASYNC110 - until it has happened elsewhere
                await asyncio.sleep(0)

        await lane.close()
        server.close()
        assert len(pauses) >= 7
        assert all(later > 0.99 * earlier for earlier, later in itertools.pairwise(pauses))
        assert pauses[6] > 10 * pauses[0]

    async def test_a_link_that_has_served_is_replaced_without_a_pause(
        self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lost connection to a server that is there costs no pause."""

        async def resolve() -> Endpoint:
            return Endpoint(redis_server.host, redis_server.port)

        lane = self.lane(resolve, outage_timeout=10.0)
        monkeypatch.setattr(lane, "_pause", lambda _: 1e9)
        await lane.start()

        for _ in range(3):
            slot = asyncio.get_running_loop().create_future()
            lane.submit(slot, b"PING\r\n")
            assert await slot == b"PONG"
            lane.drop_link("test")

        await lane.close()

    async def test_an_outage_at_the_start(self) -> None:
        """Commands wait for the first connection until the outage is too long; later ones fail at once."""

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", 1)

        lane = self.lane(resolve)
        lane.start_soon()
        loop = asyncio.get_running_loop()
        slot, gone = loop.create_future(), loop.create_future()
        lane.submit(slot, b"PING\r\n")
        lane.submit(gone, b"PING\r\n")
        gone.cancel()

        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
            await slot

        with pytest.raises(UnavailableError):
            lane.submit(loop.create_future(), b"PING\r\n")

        assert lane.statistics().down
        await lane.close()

        with pytest.raises(ClosedError):
            lane.check()

    async def test_a_close_fails_who_waits(self) -> None:
        """Closing during an outage fails the commands that wait."""

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", 1)

        lane = self.lane(resolve, outage_timeout=10.0)
        lane.start_soon()
        slot = asyncio.get_running_loop().create_future()
        lane.submit(slot, b"PING\r\n")
        await lane.close()

        with pytest.raises(ClosedError):
            await slot

    async def test_the_wrong_role(self, start_server: StartServer) -> None:
        """A server whose role is not the one asked for is refused."""
        server = start_server(RedisServer)
        replica = start_server(RedisServer)
        replica.command("REPLICAOF", server.host, server.port)

        async def resolve() -> Endpoint:
            return Endpoint(replica.host, replica.port, role="master")

        with pytest.raises(UnavailableError, match="is a slave, not a master"):
            await self.lane(resolve).start()

    async def test_a_resp2_login(self, start_server: StartServer) -> None:
        """With protocol 2 the login is by AUTH, with and without a user."""
        server = start_server(RedisServer, config={"requirepass": "secret"})

        for options in ({"password": "secret"}, {"username": "default", "password": "secret"}):
            url = f"redis://{server.host}:{server.port}"

            async with RedisPool(url=url, protocol=2, **options) as pool:
                assert await pool.redis.ping()
                assert await pool.redis.blpop("empty", timeout=0.001) is None

    async def test_credentials_of_all_kinds(self) -> None:
        """Credentials may be given, or asked for: a password, or user and password."""

        async def later() -> str:
            return "p"

        for credentials, expected in (
            (None, ("u", "q")),
            (lambda: "p", ("u", "p")),
            (later, ("u", "p")),
            (lambda: ("v", "p"), ("v", "p")),
        ):
            endpoint = Endpoint(username="u", password="q", credentials=credentials)
            assert await resolve_credentials(endpoint) == expected


async def test_health_never_raises(start_server: StartServer) -> None:
    """Health tells what is wrong, whatever it is."""
    pool = RedisPool(url="redis://127.0.0.1:1")
    assert "not started" in (await pool.health()).detail

    with pytest.raises(NotReadyError):
        async with pool.get_client(alone=True):
            pass

    server = start_server(RedisServer)

    async with RedisPool(url=server.url) as started:
        server.pause()
        assert (await started.health(timeout=0.05)).detail == "no answer within 0.05 s"
        server.resume()


async def test_a_task_that_misses_its_cancellation_is_cancelled_again() -> None:
    """A task that swallows a cancellation ends at the next; its error is taken note of."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed

        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

                if swallowed == 2:
                    raise RuntimeError("ended badly") from None

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert (swallowed, task.done()) == (2, True)


async def test_errors_of_lent_connections_are_redis_pys_too(start_server: StartServer) -> None:
    """No connection free in time, and no server, are redis-py's ConnectionError as well."""
    server = start_server(RedisServer)

    async with RedisPool(url=server.url, maxsize=1, acquire_timeout=0.05, outage_timeout=0.05) as pool:
        async with pool.get_client(alone=True):
            with pytest.raises(driver.ConnectionError) as caught:
                await pool.redis.blpop("q", timeout=1)

            assert isinstance(caught.value, AcquireTimeout)

        await asyncio.to_thread(server.kill)

        with pytest.raises(driver.ConnectionError) as other:
            await pool.redis.blpop("q", timeout=1)

        assert isinstance(other.value, UnavailableError)


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
