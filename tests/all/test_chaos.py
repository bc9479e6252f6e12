"""A sale in which workers, servers and connections are killed: nothing is oversold, lost or stuck."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socketserver
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.all._support import wintersweet
from tests.servers import StartServer
from tools.servers import MariaDBServer, PostgresServer, RedisServer, Server
from wintersweet.demo.backends import Backends, _EmbeddedRedis
from wintersweet.demo.chaos import Timeline
from wintersweet.demo.faults import _run, check_commands
from wintersweet.demo.load import Reply, Unanswered
from ws_core.errors import ConfigError, UnavailableError, WsError
from ws_pool.redis import RedisPool

T = TypeVar("T")
ALWAYS = {"worker killed", "worker terminated", "rolling restart", "redis killed", "redis connections cut"}
JOBS = {"job worker killed", "job worker terminated"}
DATABASE = ["database killed", "database connections cut"]


@contextlib.contextmanager
def killing(server: Server) -> Iterator[str]:
    """Yield a shell command that kills a server of this process, and ends when it serves again."""

    class Kill(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            server.kill()
            server.start()
            self.request.sendall(b"!")

    with socketserver.TCPServer(("127.0.0.1", 0), Kill) as asked:
        thread = threading.Thread(target=asked.serve_forever)
        thread.start()

        try:
            host, port = asked.server_address[:2]
            code = f"import socket; assert socket.create_connection(({host!r}, {port})).recv(1)"
            yield shlex.join([sys.executable, "-c", code])
        finally:
            asked.shutdown()
            thread.join()


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again until there is an answer."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(WsError, OSError):
                return await ask()

            await asyncio.sleep(0.02)


def assert_right(summary: dict[str, Any], kinds: set[str]) -> None:
    """Check that all kinds came, and that the shop stood them."""
    wrong = {key: summary[key] for key in ("oversold", "errors", "lost", "stuck") if summary[key]}

    assert wrong == {}, summary
    assert {fault["kind"] for fault in summary["faults"]} == kinds
    assert 0 < summary["acknowledged"] <= summary["sold"] <= summary["stock"]
    assert summary["workers_replaced"] == 2  # a rolling restart is no loss
    assert summary["slowest_s"] < summary["deadline_s"]
    assert summary["recovery_s"] == max(fault["recovery_s"] for fault in summary["faults"])
    assert summary["recovery_s"] < 30  # 3 on a quiet machine


@pytest.mark.deployment
@pytest.mark.timeout(600)
class TestChaos:
    """
    Each kind of fault once, over the real command line.

    With two workers: with one, requests wait as long as the machine takes to start another.
    """

    def test_embedded(self) -> None:
        """SQLite and the embedded Valkey: each fault is shown, and what cannot be done is named."""
        outcome = wintersweet("demo", "--chaos", "5", "--workers", "2", "--stock", "40", "--exit")
        summary = outcome.json()

        assert outcome.status == 0, outcome.err
        assert_right(summary, ALWAYS)
        assert summary["not_tried"] == DATABASE
        assert all(kind in outcome.said for kind in ALWAYS)

    @pytest.mark.once
    @pytest.mark.parametrize(("database", "engine"), [(MariaDBServer, "taskiq"), (PostgresServer, "local")])
    def test_servers(
        self,
        start_server: StartServer,
        database: type[MariaDBServer | PostgresServer],
        engine: str,
    ) -> None:
        """Redis and a database server, killed and restarted by commands, and workers of jobs."""
        redis = start_server(RedisServer, config={"appendonly": "yes"})
        sql = start_server(database)

        with killing(redis) as restart_redis, killing(sql) as restart_database:
            outcome = wintersweet(
                *("demo", "--chaos", "8", "--workers", "2", "--stock", "40", "--exit", "--quiet"),
                *("--engine", engine),
                *("--restart-redis", restart_redis, "--restart-database", restart_database),
                env={"WS_DATABASES__default__url": sql.url, "WS_REDIS_CONFIG__default__url": redis.url},
            )

        assert outcome.status == 0, outcome.err
        summary = outcome.json()
        assert_right(summary, ALWAYS.union(DATABASE, JOBS if engine == "taskiq" else ()))
        assert summary["not_tried"] == []
        assert ("jobs" in summary) == (engine == "taskiq")

        if engine == "taskiq":
            jobs = summary["jobs"]
            assert (jobs["done"], jobs["lost"], jobs["dead"]) == (summary["sold"], 0, 0), jobs
            assert jobs["workers_replaced"] == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [("echo no such unit; exit 5", "ended with code 5: no such unit"), ("sleep 60", "did not end")],
)
async def test_a_command_that_fails(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not come back ends the demo with what the command has said."""
    monkeypatch.setattr("wintersweet.demo.faults._RESTART_TIMEOUT", 2.0)

    with pytest.raises(UnavailableError, match=said):
        await _run(command)


async def test_a_killed_valkey_comes_back(tmp_path: Path) -> None:
    """It has its data, under the same URL; those of a former sale are gone."""
    for _ in range(2):
        async with _EmbeddedRedis(tmp_path, durable=True) as server, RedisPool(url=server.url) as pool:
            assert await pool.redis.incr("sales") == 1
            await server.kill_and_start()
            assert await eventually(lambda: pool.redis.incr("sales")) == 2

    assert not (tmp_path / "valkey.sock").is_symlink()


class TestTimeline:
    """What is noted of each request."""

    async def test_requests(self) -> None:
        """An answer counts, also that something is sold out; a failure does not, nor one too slow."""
        replies = iter([200, 409, 503, 0])
        timeline = Timeline()

        async def post(path: str, body: object, key: str) -> Reply:
            status = next(replies, None)

            if status is None:
                raise Unanswered("too slow") from TimeoutError()

            if not status:
                raise Unanswered("reset")

            return Reply(status, {})

        watched = timeline.watch(post)
        begin = time.monotonic()
        assert timeline.next_answer(begin, begin) is None
        assert timeline.slowest == 0.0
        await watched("/api/buy", {}, "key")
        first = timeline.next_answer(begin, begin)
        await watched("/api/buy", {}, "key")
        later = time.monotonic()
        await watched("/api/buy", {}, "key")

        for _ in range(2):
            with pytest.raises(Unanswered):
                await watched("/api/buy", {}, "key")

        assert first is not None
        assert begin <= first <= later
        assert timeline.next_answer(begin, first) == first
        assert timeline.next_answer(later, later) is None
        assert timeline.stuck == 1
        assert timeline.slowest > 0

    async def test_a_payment_shows_no_life_of_redis(self) -> None:
        """It is answered by the database alone."""
        timeline = Timeline()

        async def post(path: str, body: object, key: str) -> Reply:
            return Reply(200, {})

        begin = time.monotonic()
        await timeline.watch(post)("/api/pay", {}, "key")

        assert timeline.next_answer(begin, begin) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chaos", "5", "--load", "5"], "leave --load out"),
        (["--restart-redis", "true"], "--chaos SECONDS"),
        (["--job-workers", "3"], "--engine taskiq"),
    ],
)
def test_wrong_options(arguments: list[str], said: str) -> None:
    """What does not go together is refused before a worker is started."""
    outcome = wintersweet("demo", *arguments)

    assert (outcome.status, outcome.out) == (2, "")
    assert said in outcome.said


@pytest.mark.parametrize(
    ("commands", "said"),
    [(("true", None), "restarts its embedded Valkey"), ((None, "true"), "SQLite ends with the workers")],
)
async def test_what_no_command_can_restart(
    tmp_path: Path, commands: tuple[str | None, str | None], said: str
) -> None:
    """A command for what the demo has itself is refused; for a server of somebody else's it is not."""

    async def restart() -> None:
        raise AssertionError("nothing is restarted")

    own = Backends(tmp_path, ("SQLite", "embedded Valkey"), {}, {}, restart)

    with pytest.raises(ConfigError, match=said):
        check_commands(own, *commands)

    check_commands(Backends(tmp_path, ("MySQL", "Redis"), {}, {}, None), *commands)
