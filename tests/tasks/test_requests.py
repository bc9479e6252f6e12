"""Requests that are made at once are sent together, and each caller gets its own reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from redis import exceptions
from redis.asyncio import Redis

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.errors import ConfigError
from ws_tasks import _requests
from ws_tasks._requests import Requests
from ws_tasks._scripts import Script
from ws_tasks.taskiq import RedisResults, RedisStreamsBroker

ECHO = Script("echo", "if ARGV[1] == 'bad' then return redis.error_reply('bad') end return ARGV[1]")


class Wrapped:
    """A client that is not redis-py's own class."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client of a server that has no scripts."""
    async with Redis.from_url(redis_url) as made:
        await made.script_flush()
        yield made


async def packets(client: Redis) -> int:
    """Return how often the server has read something."""
    found: Any = await client.info("stats")
    return int(found["total_reads_processed"])


class TestTogether:
    async def test_each_has_its_reply(self, client: Redis) -> None:
        """More than are sent at once: each caller has its own reply, also with a script that is unknown."""
        requests = Requests(client)
        count = 2 * _requests.MOST + 10
        wanted = [str(number).encode() for number in range(count)]
        assert await asyncio.gather(*(requests.run(ECHO, (), text) for text in wanted)) == wanted
        assert await requests.get("nothing") is None

        for text in wanted[:20]:
            assert await requests.run(ECHO, (), text) == text

    async def test_few_trips(self, client: Redis) -> None:
        """A hundred requests that are made at once are read by the server in a few packets."""
        requests = Requests(client)
        await requests.run(ECHO, (), "x")
        before = await packets(client)
        await asyncio.gather(*(requests.run(ECHO, (), number) for number in range(100)))
        assert await packets(client) - before < 20

    async def test_one_by_one_through_other_clients(self, client: Redis) -> None:
        """The twin: clients that route by keys, or send together themselves, get one request at a time."""
        requests = Requests(Wrapped(client))
        assert await requests.run(ECHO, (), "x") == b"x"
        before = await packets(client)
        assert len(await asyncio.gather(*(requests.run(ECHO, (), number) for number in range(100)))) == 100
        assert await packets(client) - before >= 100
        assert await requests.get("nothing") is None

    async def test_an_error_is_its_callers(self, client: Redis) -> None:
        """An error reply reaches the one that made the request, and nobody else."""
        requests = Requests(client)
        found = await asyncio.gather(
            *(requests.run(ECHO, (), text) for text in ("a", "bad", "b")), return_exceptions=True
        )
        assert found[::2] == [b"a", b"b"]
        assert isinstance(found[1], exceptions.ResponseError)

    async def test_a_caller_that_gives_up(self, client: Redis) -> None:
        """A request that is cancelled before it is sent is not; the others are."""
        requests = Requests(client)
        pending = [asyncio.create_task(requests.run(ECHO, (), number)) for number in range(3)]
        await asyncio.sleep(0)
        pending[1].cancel()
        await asyncio.wait(pending)
        assert pending[1].cancelled()
        assert [pending[0].result(), pending[2].result()] == [b"0", b"2"]
        assert await requests.run(ECHO, (), "later") == b"later"


class TestFailures:
    async def test_a_server_that_is_away(self, start_server: StartServer) -> None:
        """Everybody learns that it is, and later requests are sent when it is back."""
        server = start_server(RedisServer)

        async with Redis.from_url(server.url) as client:
            requests = Requests(client)
            assert await requests.run(ECHO, (), "x") == b"x"
            await asyncio.to_thread(server.kill)
            calls = [requests.run(ECHO, (), number) for number in range(5)]
            failures = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, (exceptions.ConnectionError, OSError)) for error in failures)
            await asyncio.to_thread(server.restart)
            assert await requests.run(ECHO, (), "back") == b"back"

    async def test_a_silent_server(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that does not answer holds nobody up for ever, also without a timeout of the client's."""
        monkeypatch.setattr(_requests, "_TIMEOUT", 0.3)

        async with (
            Redis.from_url(redis_url, socket_timeout=None) as client,
            Redis.from_url(redis_url) as other,
        ):
            requests = Requests(client)
            await requests.run(ECHO, (), "x")
            await other.client_pause(2000)

            with pytest.raises(TimeoutError):
                await requests.run(ECHO, (), "y")

            await other.client_unpause()
            monkeypatch.undo()
            assert await requests.run(ECHO, (), "z") == b"z"

    def test_the_end_of_the_loop(self, redis_url: str) -> None:
        """Requests on their way when the loop ends leave nothing behind that would wait in the next one."""
        made: list[Requests] = []

        async def leave() -> None:
            client = Redis.from_url(redis_url)
            made.append(Requests(client))
            waiting = [asyncio.create_task(made[0].run(ECHO, (), number)) for number in range(3)]
            await asyncio.sleep(0)
            sender = made[0]._sender
            assert sender is not None
            sender.cancel()
            await asyncio.wait(waiting, timeout=20)
            assert all(task.cancelled() for task in waiting)
            assert made[0]._sender is None
            assert await made[0].run(ECHO, (), "next") == b"next"
            await client.aclose()

        asyncio.run(leave())


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis:/u:hunter2@h", "'redis:***@h' is wrong: "),
        ("http://u:hunter2@h", "'http://u:***@h' is wrong: "),
        ("redis://u:hunter2@h/jobs", "it is written as redis://host:port/database"),
        ("redis://u:hunter2@h:port/0", "is wrong: Port could not be cast"),
        ("redis://:12#hunter2@h", "it must not have #"),
        ("redis://u:hunter2@h/1?db=2", "it has db twice"),
        ("redis://u:hunter2@h?nope=1", "is wrong: got an unexpected keyword argument 'nope'"),
    ],
)
def test_wrong_urls(url: str, part: str) -> None:
    """They are refused when the broker is made, and not shown with their password."""
    for make in (RedisStreamsBroker, RedisResults):
        with pytest.raises(ConfigError) as refused:
            make(url)

        assert part in str(refused.value)
        assert "hunter2" not in str(refused.value)
