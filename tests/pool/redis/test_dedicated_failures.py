"""Dedicated connections that are lost, refused or given up at a bad moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis import exceptions as driver

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool._redis.connection.credentials import CredentialSource, Login
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.queue import Limits
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.connection import ConnectionState, connection_options, state_of
from ws_pool._redis.dedicated.pool import Connector, DedicatedConnections
from ws_pool._redis.node import static_resolver
from ws_pool.errors import ClosedError, UnavailableError, UsageError
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage

OPTIONS = connection_options(encoding="utf-8", errors="strict", decode_responses=False, protocol=None)


def connector_of(endpoint: Endpoint) -> Connector:
    """Make what opens connections to a server."""
    return Connector(static_resolver(endpoint), OPTIONS, timeout=30)


def connections_of(pool: RedisPool) -> DedicatedConnections:
    """Return the dedicated connections of a pool's one server."""
    assert pool._backend is not None
    assert pool._backend.node is not None
    return pool._backend.node.dedicated


class Rotating:
    """The credentials of the default user, which have a new number each time."""

    def __call__(self) -> tuple[str, str]:
        """Return them."""
        return "default", "secret"


class TestConnector:
    """How connections are opened and unblocked."""

    async def test_unblocking_what_cannot_be_reached(self, start_server: StartServer) -> None:
        """Over a unix socket, without an id, or at a server that has gone, nothing is confirmed."""
        server = start_server(ValkeyServer, unix_socket=True)
        connector = connector_of(Endpoint(path=str(server.unix_path)))
        assert str(connector) == "the server"
        local = await connector.open()
        assert not await connector.unblock(local, timeout=30)
        connector.terminate(local)
        connector = connector_of(Endpoint(server.host, server.port))
        remote = await connector.open()
        assert str(connector) == f"{server.host}:{server.port}"
        assert not await connector.unblock(remote, timeout=30)  # nothing blocks
        client_id, state_of(remote).client_id = state_of(remote).client_id, 0
        assert not await connector.unblock(remote, timeout=30)
        state_of(remote).client_id = client_id
        await asyncio.to_thread(server.kill)
        assert not await connector.unblock(remote, timeout=30)
        connector.terminate(remote)

    async def test_the_wrong_role(self, redis_server: RedisServer) -> None:
        """A server that is something else is refused, and the connection closed."""
        connector = connector_of(Endpoint(redis_server.host, redis_server.port, role="slave"))

        with pytest.raises(driver.RedisError, match="is a master, not a slave"):
            await connector.open()

    async def test_a_reply_that_was_left(self, redis_server: RedisServer) -> None:
        """A connection that answers something else than what it was sent is not used again."""
        connector = connector_of(Endpoint(redis_server.host, redis_server.port))
        connection = await connector.open()
        await connection.send_command("ECHO", "left", check_health=False)

        with pytest.raises(driver.InvalidResponse, match="an earlier command"):
            await connector.ping(connection)

        connector.terminate(connection)


class TestAcquiring:
    """The order in which connections are acquired, and when none is."""

    async def test_after_the_end(self, redis_url: str) -> None:
        """The connections of a closed pool refuse."""
        async with RedisPool(url=redis_url) as pool:
            connections = connections_of(pool)

        with pytest.raises(ClosedError):
            await connections.get_connection()

        assert not connections.release_later(object())  # type: ignore[arg-type]  # one that nobody has

    async def test_opened_while_the_master_changed(self, redis_server: RedisServer) -> None:
        """A connection to a server that is not the master any more is replaced before it is used."""
        async with RedisPool(url=redis_server.url) as pool:
            await pool.redis.blpop("empty", timeout=0.01)
            connections_of(pool).follow_master("127.0.0.1", 1)
            await pool.redis.blpop("empty", timeout=0.01)
            assert pool.statistics().leased[0].opened == 2

    async def test_a_holder_that_waits_for_itself(self, redis_url: str) -> None:
        """A client whose pipeline watches keys says so, instead of waiting for ever."""
        async with RedisPool(url=redis_url) as pool, pool.get_client(alone=True) as alone:
            async with alone.pipeline() as pipe:
                await pipe.watch("k")

                with pytest.raises(UsageError, match="a pipeline with WATCH"):
                    await alone.get("k")

            await alone.ping()


class TestLoggingInAgain:
    """Connections that are lost or given up just when they log in with other credentials."""

    @pytest.fixture
    def server(self, start_server: StartServer) -> RedisServer:
        """Start a server with a password."""
        return start_server(RedisServer, config={"requirepass": "secret"})

    @staticmethod
    def pool(proxy: FaultProxy) -> RedisPool:
        """Make a pool behind a proxy."""
        return RedisPool(
            f"redis://{proxy.host}:{proxy.port}",
            credentials=Rotating(),
            decode_responses=True,
            command_timeout=300,
        )

    async def test_an_idle_connection_that_is_lost(self, server: RedisServer) -> None:
        """It is replaced, and its user notices nothing."""
        async with FaultProxy(*server.address) as proxy, self.pool(proxy) as pool:
            await pool.redis.blpop("empty", timeout=0.01)
            await pool.reauthenticate()
            await pool.redis.rpush("q", "x")
            lost = proxy.drop_reply(match="AUTH")
            assert list(await pool.redis.execute_command("BLPOP", "q", 30)) == ["q", "x"]
            assert lost.is_set()

    async def test_a_caller_that_is_cancelled(self, server: RedisServer) -> None:
        """The connection is given up, for its reply may still come; nothing stays in use."""
        async with FaultProxy(*server.address) as proxy, self.pool(proxy) as pool:
            await pool.redis.blpop("empty", timeout=0.01)
            await pool.reauthenticate()
            asked = proxy.reached(match="AUTH")
            proxy.hold(to="client")
            taking = asyncio.ensure_future(pool.redis.execute_command("BLPOP", "q", 30))
            await asyncio.wait_for(asked.wait(), 60)
            taking.cancel()
            await asyncio.wait([taking])
            proxy.release()
            assert pool.statistics().leased[0].leased == 0
            await pool.redis.rpush("q", "x")
            assert list(await pool.redis.execute_command("BLPOP", "q", 30)) == ["q", "x"]

    async def test_a_session_that_is_cancelled(self, server: RedisServer) -> None:
        """A session whose AUTH was cancelled is over, and says so to the next who uses it."""
        async with (
            FaultProxy(*server.address) as proxy,
            self.pool(proxy) as pool,
            pool.get_client(alone=True) as alone,
        ):
            await alone.ping()
            source = state_of(alone.connection_pool._connection).credentials  # type: ignore[attr-defined]
            assert source is not None
            source.latest = source.received(("default", "secret"))
            asked = proxy.reached(match="AUTH")
            proxy.hold(to="client")
            asking = asyncio.ensure_future(alone.get("k"))
            await asyncio.wait_for(asked.wait(), 60)
            asking.cancel()
            await asyncio.wait([asking])
            proxy.release()

            with pytest.raises(UnavailableError, match="its session with it"):
                await alone.get("k")

    async def test_a_shared_connection_that_is_lost(self, server: RedisServer) -> None:
        """The next one logs in by itself: that is not a refusal."""
        async with FaultProxy(*server.address) as proxy, self.pool(proxy) as pool:
            lost = proxy.drop_reply(match="AUTH")
            await pool.reauthenticate()
            assert lost.is_set()
            assert await pool.redis.ping()
            assert pool.statistics().shared[0].connects == 2

    async def test_without_the_right_to_unblock(self, start_server: StartServer) -> None:
        """A blocked command that nobody may unblock ends on its connection, with its item."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-client|unblock")

        async with RedisPool(url=server.url, credentials=lambda: ("u", "p"), decode_responses=True) as pool:
            taking = asyncio.ensure_future(pool.redis.execute_command("BLPOP", "q", 0))

            async with asyncio.timeout(60):
                while server.info("clients")["blocked_clients"] != "1":
                    await asyncio.sleep(0.01)

            await pool.reauthenticate()
            assert server.info("clients")["blocked_clients"] == "1"
            await pool.redis.rpush("q", "x")
            assert list(await taking) == ["q", "x"]

    async def test_a_command_that_has_not_arrived_yet(self) -> None:
        """It is unblocked again and again until the server knows it, or its own reply has come."""
        source = CredentialSource(lambda: "p")
        source.latest = source.received("p")
        requests: list[Sequence[Any]] = []

        class State(ConnectionState):
            credentials, client_id, blocking = source, 7, True

        async def later(words: Sequence[Any]) -> int:
            requests.append(words)
            return int(len(requests) == 3)

        state = State()
        await DedicatedConnections._unblock_for_login(state, later)
        assert requests == [("CLIENT", "UNBLOCK", 7, "ERROR")] * 3
        assert state.moving

        async def ended(_: Sequence[Any]) -> int:
            state.blocking = False
            return 0

        await DedicatedConnections._unblock_for_login(state, ended)
        assert not state.moving


class TestSharedConnection:
    """A shared connection at its start and its end."""

    @staticmethod
    def shared(endpoint: Endpoint, **limits: Any) -> ReconnectingConnection:
        """Make one."""
        encoder = CommandEncoder(lambda value: str(value).encode(), fast=True)
        return ReconnectingConnection("test", static_resolver(endpoint), encoder, Limits(**limits))

    async def test_what_is_not_open(self, redis_server: RedisServer) -> None:
        """There is nothing to close or to log in, and both come with the first connect."""
        shared = self.shared(Endpoint(redis_server.host, redis_server.port))
        shared.drop("test")
        assert not shared.drop_unless_at("127.0.0.1", 1)
        await shared.log_in(Login("u", "p", 1))
        assert not shared.connected
        await shared.start()
        assert not shared.drop_unless_at(redis_server.host, redis_server.port)
        assert shared.drop_unless_at("127.0.0.1", 1)
        await shared.close()

    async def test_a_server_that_dies_while_it_is_closed(self, start_server: StartServer) -> None:
        """Closing ends with the connection, not after its timeout, and what was in flight fails."""
        server = start_server(RedisServer)
        shared = self.shared(Endpoint(server.host, server.port), command_timeout=300)
        await shared.start()
        server.pause()
        reply = asyncio.get_running_loop().create_future()
        shared.submit(reply, b"PING\r\n")
        closing = asyncio.ensure_future(shared.close(timeout=300))
        await asyncio.sleep(0.05)
        assert not closing.done()
        await asyncio.to_thread(server.kill)
        await asyncio.wait_for(closing, 60)

        with pytest.raises(Exception, match=r"closed|reset"):
            await reply

    async def test_closed_while_it_starts(self, redis_server: RedisServer) -> None:
        """A connection whose pool was closed during its handshake is closed, and nobody uses it."""
        async with FaultProxy(redis_server.host, redis_server.port) as proxy:
            shared = self.shared(Endpoint(*proxy.address), connect_timeout=300)
            asked = proxy.reached(match="PING")
            proxy.hold(to="client")
            starting = asyncio.ensure_future(shared.start())
            await asyncio.sleep(0)
            await shared.close()
            proxy.release()

            with pytest.raises(UnavailableError, match="closed"):
                await asyncio.wait_for(starting, 60)

            assert asked.is_set()
            assert not shared.connected

    async def test_room_that_comes_too_late(self, start_server: StartServer) -> None:
        """What has waited for room for too long fails; afterwards there is room again."""
        server = start_server(RedisServer)
        limits = {"max_pending": 1, "queue_timeout": 0.2, "command_timeout": 300, "max_queue": 2}
        shared = self.shared(Endpoint(server.host, server.port), **limits)
        await shared.start()
        server.pause()
        loop = asyncio.get_running_loop()
        first, second, cancelled, last = (loop.create_future() for _ in range(4))
        shared.submit(first, b"PING\r\n")
        shared.submit(second, b"PING\r\n")
        shared.submit(cancelled, b"PING\r\n")
        cancelled.cancel()
        shared.check()  # the queue is full of what was cancelled, which is removed

        with pytest.raises(TimeoutError, match=r"waited 0\.2 s"):
            await second

        server.resume()
        assert await first == b"PONG"
        shared.submit(last, b"PING\r\n")
        assert await last == b"PONG"
        await shared.close()
