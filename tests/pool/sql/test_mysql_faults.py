"""What networks and servers do to connections, and what the pool makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select

from tests.pool.sql.backends import make_mysql
from tests.servers import StartServer
from tools.servers import MariaDBServer
from ws_core.testing import FaultProxy
from ws_pool import atomic
from ws_pool._sql.mysql.connection import MysqlConnection
from ws_pool.errors import AcquireTimeout, CommitUnknown, UnavailableError, WsError

pytestmark = pytest.mark.outage

DRIVERS = ("aiomysql", "asyncmy")
TABLE = Table("fault", MetaData(), Column("id", Integer, primary_key=True), Column("word", String(20)))


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """Put a proxy between the test and its server."""
    host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")

    async with FaultProxy(host, int(port), protocol="mysql", seed=3) as proxy:
        yield proxy, proxy.url(url)


async def within(seconds: float, attempt: Callable[[], Awaitable[object]]) -> float:
    """Try until it works, and say how long that took."""
    start = time.monotonic()

    while True:
        try:
            await attempt()
        except WsError:
            if time.monotonic() - start > seconds:
                raise

            await asyncio.sleep(0.02)  # the interval at which a caller looks
        else:
            return time.monotonic() - start


@pytest.mark.parametrize("driver", DRIVERS)
class TestServer:
    """The server itself ends, stops, returns."""

    async def test_a_killed_server_is_told_of_at_once_and_found_again_within_two_seconds(
        self, driver: str, start_server: StartServer
    ):
        """After SIGKILL acquires fail fast with a clear error; after the restart they work within 2 s."""
        server = start_server(MariaDBServer)

        async with make_mysql(server.url, driver, min_size=2, max_size=4) as pool:
            await pool.select("SELECT 1")
            server.kill()

            with pytest.raises(UnavailableError, match=r"lost|cannot connect"):
                for _ in range(20):
                    await pool.select("SELECT 1")

            start = time.monotonic()

            with pytest.raises(UnavailableError, match=r"'default' cannot connect to mysql://root@127.0.0.1"):
                await pool.select("SELECT 1")

            assert time.monotonic() - start < 3.0
            assert not (await pool.health()).ok
            assert pool.statistics().down
            await asyncio.to_thread(server.restart)
            assert await within(2.0, lambda: pool.select("SELECT 1")) < 2.0
            assert pool.statistics().down == ""

    async def test_the_pool_reconnects_without_a_call(self, driver: str, start_server: StartServer):
        """Nobody has to call anything: min_size connections are there again after the server's return."""
        server = start_server(MariaDBServer)

        async with make_mysql(server.url, driver, min_size=2, max_size=4) as pool:
            server.kill()
            await asyncio.to_thread(server.restart)
            start = time.monotonic()

            while pool.statistics().idle < 2 or pool.statistics().opened < 3:
                assert time.monotonic() - start < 3.0
                await asyncio.sleep(0.02)

            assert await pool.select("SELECT 1") == [(1,)]

    async def test_a_paused_server_is_waited_for_no_longer_than_allowed(
        self, driver: str, start_server: StartServer
    ):
        """While the server is stopped (SIGSTOP) acquires fail in time; afterwards all is well."""
        server = start_server(MariaDBServer)

        async with make_mysql(
            server.url, driver, max_size=2, ping_after=0, ping_timeout=0.3, connect_timeout=1
        ) as pool:
            await pool.select("SELECT 1")
            server.pause()

            try:
                start = time.monotonic()

                with pytest.raises((UnavailableError, AcquireTimeout)):
                    async with asyncio.timeout(20):
                        await pool.select("SELECT 1")

                assert time.monotonic() - start < 5
            finally:
                server.resume()

            assert await within(2.0, lambda: pool.select("SELECT 1")) < 2.0


@pytest.mark.parametrize("driver", DRIVERS)
class TestNetwork:
    """The way to the server."""

    async def test_a_black_hole_ends_in_an_error_and_then_in_service(self, driver: str, mysql_url: str):
        """When all bytes vanish, acquires fail in time; within 2 s of the end of it they work."""
        async with (
            proxied(mysql_url) as (proxy, url),
            make_mysql(url, driver, ping_after=0, ping_timeout=0.3, connect_timeout=1, max_size=2) as pool,
        ):
            await pool.select("SELECT 1")
            proxy.black_hole()
            start = time.monotonic()

            with pytest.raises(UnavailableError, match="no answer within"):
                await pool.select("SELECT 1")

            assert time.monotonic() - start < 5
            proxy.heal()
            assert await within(2.0, lambda: pool.select("SELECT 1")) < 2.0

    async def test_cut_and_half_closed_connections_are_replaced_unseen(self, driver: str, mysql_url: str):
        """Idle connections that were reset, or whose server end was closed, are not given to anybody."""
        async with (
            proxied(mysql_url) as (proxy, url),
            make_mysql(url, driver, min_size=3, max_size=3, ping_after=0) as pool,
        ):
            for fault in (proxy.cut, proxy.half_close):
                assert await pool.select("SELECT 1") == [(1,)]
                fault()
                await asyncio.sleep(0.05)
                answers = await asyncio.gather(*(pool.find("SELECT :n AS n", n=n) for n in range(10)))
                assert [row.n for row in answers] == list(range(10))

    async def test_idle_connections_that_were_reset_are_replaced_unseen(self, driver: str, mysql_url: str):
        """A reset that came while a connection was idle is seen without a ping."""
        async with (
            proxied(mysql_url) as (proxy, url),
            make_mysql(url, driver, min_size=1, max_size=1, ping_after=60) as pool,
        ):
            async with pool.get_client() as client:
                connection = client.connection

            proxy.cut()

            async with asyncio.timeout(10):
                while cast("MysqlConnection", connection).connected:
                    await asyncio.sleep(0.01)  # until its end has arrived

            assert await pool.select("SELECT 1") == [(1,)]

    async def test_a_connection_cut_in_mid_statement_is_an_error_of_that_statement_only(
        self, driver: str, mysql_url: str
    ):
        """A statement that was running fails with the lost connection; the others go on."""
        async with proxied(mysql_url) as (proxy, url), make_mysql(url, driver, max_size=1) as pool:
            await pool.select("SELECT 1")
            sent = proxy.reached(1, match="QUERY")
            running = asyncio.create_task(pool.select("SELECT SLEEP(5)"))
            await sent.wait()
            proxy.cut()

            with pytest.raises(UnavailableError, match="lost"):
                await running

            assert await pool.select("SELECT 2") == [(2,)]

    async def test_a_truncated_reply_is_never_a_result(self, driver: str, mysql_url: str):
        """Half a reply is a lost connection."""
        async with proxied(mysql_url) as (proxy, url), make_mysql(url, driver, max_size=1) as pool:
            await pool.select("SELECT 1")
            proxy.truncate_reply(1, match="QUERY")

            with pytest.raises(UnavailableError, match="lost"):
                await pool.select("SELECT REPEAT('x', 1000) AS a, 1 AS b")

            assert await pool.select("SELECT 2") == [(2,)]

    async def test_a_lost_reply_to_commit_is_told_apart(self, driver: str, mysql_url: str):
        """When the answer to COMMIT is lost, the error says that the outcome is unknown; here it happened."""
        async with proxied(mysql_url) as (proxy, url), make_mysql(url, driver, max_size=1) as pool:
            await pool.create_all(TABLE.metadata)
            runs = 0

            @atomic(pool, retry_deadlocks=5)
            async def work() -> None:
                nonlocal runs
                runs += 1
                await pool.insert(TABLE, word="maybe")
                proxy.drop_reply(1, match="QUERY")

            with pytest.raises(CommitUnknown, match="during COMMIT"):
                await work()

            assert runs == 1
            assert len(await pool.select(select(TABLE))) == 1

    async def test_a_slow_connect_holds_up_nobody(self, driver: str, mysql_url: str):
        """A caller that waits while a connect hangs takes a connection that comes back at once."""
        async with (
            proxied(mysql_url) as (proxy, url),
            make_mysql(url, driver, max_size=3, connect_timeout=5) as pool,
        ):

            async def look_in() -> float:
                async with pool.get_client():
                    return time.monotonic()

            async with pool.get_client() as client:
                await client.select("SELECT 1")
                proxy.hold()
                waiting = asyncio.create_task(look_in())
                await asyncio.sleep(0.2)
                assert not waiting.done()

            start = time.monotonic()
            assert await waiting - start < 3.0
            proxy.heal()

    async def test_cancelled_statements_never_give_their_reply_to_another(self, driver: str, mysql_url: str):
        """Of many tasks of which most are cancelled over a slow network, none reads another's reply."""
        async with proxied(mysql_url) as (proxy, url), make_mysql(url, driver, max_size=4) as pool:
            proxy.delay(0.001, jitter=0.003)
            finished = 0

            async def ask(token: int, begun: asyncio.Event) -> None:
                nonlocal finished

                async with pool.get_client() as client:
                    begun.set()
                    row = await client.find("SELECT :token AS token", token=token)
                    assert row.token == token
                    finished += 1

            async def user(number: int) -> None:
                for turn in range(15):
                    token = number * 1000 + turn
                    begun = asyncio.Event()
                    asking = asyncio.create_task(ask(token, begun))

                    if token % 3 == 0:  # this one goes on to its end, whatever becomes of the others
                        await asking
                        continue

                    if token % 3 == 1:  # when the statement is on its way, and no reply can have come yet
                        await begun.wait()
                    else:  # at some turn of the loop, also while a connection is waited for
                        for _ in range(token % 7):
                            await asyncio.sleep(0)

                    asking.cancel()
                    await asyncio.wait({asking})
                    assert asking.cancelled() or asking.exception() is None

            await asyncio.gather(*(user(number) for number in range(12)))
            assert finished >= 12 * 5
            assert pool.statistics().opened > 4  # exchanges were cut short
            proxy.heal()
            await asyncio.gather(*(ask(number, asyncio.Event()) for number in range(100)))
            statistics = pool.statistics()
            assert statistics.leased == 0
            assert statistics.waiting == 0
            assert statistics.size <= 4
