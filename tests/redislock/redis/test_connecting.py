"""Connections that are accepted and then never answered, and scripts that the server forgot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import MutexLock
from ws_redislock._coordination import wakeups
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._redis import connection
from ws_redislock._redis.connection import CommandSender
from ws_redislock._redis.script_client import ScriptClient
from ws_redislock._redis.scripts import load

pytestmark = pytest.mark.outage


@contextlib.asynccontextmanager
async def unanswered(server: RedisServer) -> AsyncIterator[tuple[FaultProxy, Redis]]:
    """Yield a proxy, and a client that waits for an answer as long as it takes."""
    async with (
        FaultProxy(*server.address) as proxy,
        Redis.from_url(
            proxy.url(server.url), protocol=3, socket_timeout=None, socket_connect_timeout=None
        ) as client,
    ):
        yield proxy, client


class TestConnecting:
    """A server, or what stands before it, that accepts and says nothing."""

    async def test_the_next_attempt_connects_anew(
        self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """A connection that is not answered is given up; the next one serves."""
        monkeypatch.setattr(connection, "CONNECTING", 0.3)

        async with unanswered(any_redis) as (proxy, client):
            ignored = proxy.drop_reply(1, match="HELLO", then="silence")
            lock = MutexLock(client, "k", 60)

            async with asyncio.timeout(10):
                assert await lock.acquire(30)

            assert ignored.is_set()
            assert await lock.release()

    async def test_slow_ones_are_given_more_time(
        self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """Each attempt that was too short is followed by a longer one; success begins anew."""
        monkeypatch.setattr(connection, "CONNECTING", 0.3)

        async with unanswered(any_redis) as (proxy, client):
            scripts = coordinator_for(client).scripts
            wire = scripts._sender._shared
            assert wire is not None
            wire._timeout_now = 0.3

            for budget in (0.6, 1.2):
                proxy.drop_reply(1, match="HELLO", then="silence")

                with pytest.raises(TimeoutError):
                    await wire.call(("PING",), 5.0)

                assert wire._timeout_now == budget

            assert await wire.call(("PING",), 5.0) == b"PONG"
            assert wire._timeout_now == 0.3

    async def test_the_subscription_begins_anew(
        self, any_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ):
        """A subscription that is not answered is given up; the next one works."""
        monkeypatch.setattr(wakeups, "CONNECTING", 0.2)

        async with unanswered(any_redis) as (proxy, client):
            first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60, heartbeat=60)
            assert await first.acquire()
            ignored = proxy.drop_reply(1, match="HELLO", then="silence")
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first)

            async with asyncio.timeout(10):  # without a wake-up it would look after 20 s
                while not await client.pubsub_channels("wsl:hub:*"):
                    await asyncio.sleep(0.01)

                assert await first.release()
                assert await waiting

            assert ignored.is_set()
            assert await second.release()


class ForgetfulRedis(Redis):
    """A client whose server takes its time to say that it does not know a script."""

    async def execute_command(self, *args: object, **options: object) -> object:
        """Refuse EVALSHA, late."""
        if args[0] == "EVALSHA":
            await asyncio.sleep(0.2)
            raise exceptions.NoScriptError("NOSCRIPT")

        await asyncio.Event().wait()
        return None


async def test_a_forgotten_script_does_not_double_the_time():
    """The second half of an attempt has only what the first has left: a deadline is never passed by it."""
    spent: list[float] = []

    class Remembering(CommandSender):
        """Writes down how long each command may take."""

        def send(self, command: tuple[str | bytes | int, ...], within: float) -> Awaitable[Any]:
            spent.append(within)
            return super().send(command, within)

    async with ForgetfulRedis() as client:
        scripts = ScriptClient(client)
        scripts._sender = Remembering(client, scripts.timers)

        with pytest.raises(TimeoutError):
            await scripts.once(load("renew"), (b"k",), (), 0.5)

    assert spent[0] == 0.5
    assert spent[1] <= 0.3


class StumblingRedis(Redis):
    """A client whose connection is closed by another task while it sends, as a cluster's may be."""

    def __init__(self, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self.errors = [error]

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # as the driver
        """Fail once as the driver does, in its own code."""
        if self.errors:
            exec("raise error", {"__name__": "redis.asyncio.connection", "error": self.errors.pop()})

        return await super().execute_command(*args, **options)


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'writelines'"),
        TypeError("'NoneType' object is not callable"),
    ],
)
async def test_a_connection_closed_in_use(any_redis: RedisServer, error: Exception):
    """What the driver makes of a connection that it has closed itself is a lost connection like any other."""
    async with (
        StumblingRedis(error, host=any_redis.host, port=any_redis.port) as client,
        MutexLock(client, "k", 60) as lock,
    ):
        assert await lock.acquire()
        assert client.errors == []


async def test_an_error_of_the_clients_own(any_redis: RedisServer):
    """A TypeError in the user's own client is a mistake in it, and not taken for a lost connection."""

    class Mistaken(Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:  # as the driver
            raise TypeError("a mistake")

    async with Mistaken(host=any_redis.host, port=any_redis.port) as client:
        with pytest.raises(TypeError, match="a mistake"):
            await MutexLock(client, "k", 60).exists()
