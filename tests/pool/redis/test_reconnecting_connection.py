"""A shared connection from its start over outages to its close."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from redis.credentials import UsernamePasswordCredentialProvider

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.backoff import delay
from ws_pool._redis.connection.credentials import CredentialSource
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, resolve_credentials
from ws_pool._redis.connection.queue import Limits
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool.errors import ClosedError, UnavailableError
from ws_pool.redis import RedisPool


class TestReconnectingConnection:
    """Connects, outages and the close of a shared connection."""

    @staticmethod
    def shared(resolve: Any, **limits: Any) -> ReconnectingConnection:
        """Make a shared connection."""
        options: dict[str, Any] = {"outage_timeout": 0.05, "backoff": (0.001, 0.002), **limits}
        return ReconnectingConnection(
            "test", resolve, CommandEncoder(lambda value: str(value).encode(), fast=True), Limits(**options)
        )

    async def test_a_failing_resolver_is_asked_again(self, redis_server: RedisServer) -> None:
        """Whatever a resolver raises, it keeps trying to connect."""
        calls = 0

        async def resolve() -> Endpoint:
            nonlocal calls
            calls += 1

            if calls < 3:
                raise KeyError("not yet")

            return Endpoint(redis_server.host, redis_server.port)

        shared = self.shared(resolve, outage_timeout=10.0)
        shared.start_soon()
        slot = asyncio.get_running_loop().create_future()
        shared.submit(slot, b"PING\r\n")
        assert await slot == b"PONG"
        assert "127.0.0.1" in repr(shared)
        assert shared.connected
        await shared.close()
        await shared.close()

    async def test_a_server_that_hangs_up_at_once_is_not_hammered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Connections that are lost before they served a command are followed by growing pauses."""
        pauses: list[float] = []
        accepted = 0

        async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            await reader.readline()
            accepted += 1
            writer.write(b"+PONG\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer_and_close, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", port, protocol=2)

        shared = self.shared(resolve, backoff=(0.0001, 10.0))

        def note(failures: int, first: float, most: float) -> float:
            pauses.append(delay(failures, first, most))
            return 0.0

        monkeypatch.setattr("ws_pool._redis.connection.reconnecting.backoff.delay", note)
        shared.start_soon()

        async with asyncio.timeout(10):
            while accepted < 9:
                await asyncio.sleep(0)

        await shared.close()
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

        shared = self.shared(resolve, outage_timeout=10.0)
        monkeypatch.setattr("ws_pool._redis.connection.reconnecting.backoff.delay", lambda *_: 1e9)
        await shared.start()

        for _ in range(3):
            slot = asyncio.get_running_loop().create_future()
            shared.submit(slot, b"PING\r\n")
            assert await slot == b"PONG"
            shared.drop("test")

        await shared.close()

    async def test_an_outage_at_the_start(self) -> None:
        """Commands wait for the first connection until the outage is too long; later ones fail at once."""

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", 1)

        shared = self.shared(resolve)
        shared.start_soon()
        loop = asyncio.get_running_loop()
        slot, gone = loop.create_future(), loop.create_future()
        shared.submit(slot, b"PING\r\n")
        shared.submit(gone, b"PING\r\n")
        gone.cancel()

        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
            await slot

        with pytest.raises(UnavailableError):
            shared.submit(loop.create_future(), b"PING\r\n")

        assert shared.statistics().down
        await shared.close()

        with pytest.raises(ClosedError):
            shared.check()

    async def test_a_close_fails_who_waits(self) -> None:
        """Closing during an outage fails the commands that wait."""

        async def resolve() -> Endpoint:
            return Endpoint("127.0.0.1", 1)

        shared = self.shared(resolve, outage_timeout=10.0)
        shared.start_soon()
        slot = asyncio.get_running_loop().create_future()
        shared.submit(slot, b"PING\r\n")
        await shared.close()

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
            await self.shared(resolve).start()

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

        provider = UsernamePasswordCredentialProvider
        given: list[tuple[Any, tuple[str, ...]]] = [
            (lambda: "p", ("u", "p")),
            (later, ("u", "p")),
            (lambda: ("v", "p"), ("v", "p")),
            (provider("v", "p"), ("v", "p")),
            (provider(password="p"), ("u", "p")),
        ]

        for credentials, expected in given:
            endpoint = Endpoint(credentials=CredentialSource(credentials, "u"))
            login = await resolve_credentials(endpoint)
            assert login.words == expected
            assert "p" not in repr(login).removeprefix("<Login of ")

        assert (await resolve_credentials(Endpoint(username="u", password="q"))).words == ("u", "q")
        assert (await resolve_credentials(Endpoint(password="q"))).words == ("q",)
        assert (await resolve_credentials(Endpoint())).words == ()
