"""Queries that give thousands of rows are read in another way from their second run on."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, bindparam, func, select, text
from sqlalchemy.types import Boolean

from tests.pool.sql.backends import make_mysql
from ws_core.testing import FaultProxy, run_virtual
from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.gc_pause import gc_paused
from ws_pool.errors import QueryError, QueryTimeout, UnavailableError

DRIVERS = ("aiomysql", "asyncmy")
COUNT = 3_000
TABLE = Table(
    "many",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(300)),
    Column("odd", Boolean),
    Column("at", DateTime),
)
ALL = select(TABLE).order_by(TABLE.c.id)
SOME = select(TABLE.c.id, TABLE.c.odd).where(TABLE.c.id <= bindparam("most")).order_by(TABLE.c.id)
SLOW = select(TABLE.c.id, func.sleep(TABLE.c.id > bindparam("most"))).order_by(TABLE.c.id)
OVERFLOW = text("SELECT id, name, 9223372036854775807 + (id > :most) FROM many ORDER BY id")
OUT_OF_RANGE = 1690


async def filled(pool: MysqlPool | SqlitePool) -> None:
    """Fill the table."""
    await pool.create_all(TABLE.metadata)
    await pool.insert_many(
        TABLE, [{"id": n, "name": f"{n}" * (n % 50), "odd": bool(n % 2)} for n in range(1, COUNT + 1)]
    )


@pytest.fixture(params=(*DRIVERS, "sqlite"))
async def pool(
    request: pytest.FixtureRequest, mysql_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MysqlPool | SqlitePool]:
    """A pool of one connection, with a full table."""
    if request.param == "sqlite":
        file = tmp_path_factory.mktemp("large") / "large.db"
        made: MysqlPool | SqlitePool = SqlitePool(f"sqlite:///{file}", max_size=1)
    else:
        made = make_mysql(mysql_url, request.param, max_size=1)

    async with made as pool:
        await filled(pool)
        yield pool


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Leave no test with the collector switched off."""
    yield
    assert gc.isenabled()


class TestResults:
    """What comes out is the same."""

    @pytest.mark.parametrize("row_type", [None, dict, tuple])
    async def test_each_run_gives_the_same(self, pool: MysqlPool | SqlitePool, row_type: type | None) -> None:
        """Rows of every kind are equal, whether the statement is known to give many or not."""
        runs = [await pool.select(ALL, row_type=row_type) for _ in range(3)]
        assert runs[0] == runs[1] == runs[2]
        assert len(runs[0]) == COUNT
        assert [type(row) for row in runs[1]] == [type(row) for row in runs[0]]
        last = runs[2][-1]
        assert (last["odd"] if row_type is dict else last[2]) is False  # not 0: types still convert

    async def test_long_and_short_results_of_one_statement(self, pool: MysqlPool | SqlitePool) -> None:
        """Results that change from long to short and back are whole."""
        prepared = pool.prepare(SOME)

        for most in (COUNT, 0, COUNT, 2, 1, COUNT, COUNT, 999, 1000, 1001, 1999, 2000, 0):
            assert [row.id for row in await pool.select(prepared, most=most)] == list(range(1, most + 1))
            assert [row.id for row in await pool.select(SOME, most=most)] == list(range(1, most + 1))

    async def test_beside_other_statements_of_a_transaction(self, pool: MysqlPool | SqlitePool) -> None:
        """It sees what its own transaction has done."""
        async with pool.get_client() as client, client.begin():
            for _ in range(3):
                assert len(await client.select(ALL)) == COUNT
                assert await client.count(TABLE) == COUNT

            await client.delete(TABLE.delete().where(TABLE.c.id == 1))
            assert len(await client.select(ALL)) == COUNT - 1

    async def test_a_shared_client_keeps_others_waiting(self, pool: MysqlPool | SqlitePool) -> None:
        """Tasks that share a client never read each other's rows."""
        async with pool.get_client() as client:
            await client.select(ALL)
            shared = client.share()
            several = await asyncio.gather(*(shared.select(ALL) for _ in range(5)))
            assert [len(rows) for rows in several] == [COUNT] * 5


@pytest.mark.parametrize("driver", DRIVERS)
class TestFaults:
    """What can happen while the rows come."""

    async def test_the_server_refuses_in_the_middle(self, driver: str, mysql_url: str) -> None:
        """An error behind thousands of rows is raised, and the connection stays of use."""
        async with make_mysql(mysql_url, driver, max_size=1) as pool:
            await filled(pool)
            assert len(await pool.select(OVERFLOW, most=COUNT)) == COUNT

            for _ in range(3):
                with pytest.raises(QueryError) as caught:
                    await pool.select(OVERFLOW, most=2_500)

                assert caught.value.context["errno"] == OUT_OF_RANGE
                assert len(await pool.select(OVERFLOW, most=COUNT)) == COUNT

            assert pool.statistics().opened == 1  # an error does not cost the connection

    async def test_it_takes_too_long(self, driver: str, mysql_url: str) -> None:
        """The time limit holds for all of the rows."""
        async with make_mysql(mysql_url, driver, max_size=1, query_timeout=0.5) as pool:
            await filled(pool)
            assert len(await pool.select(SLOW, most=COUNT)) == COUNT

            with pytest.raises(QueryTimeout):
                await pool.select(SLOW, most=2_990)

            assert len(await pool.select(SLOW, most=COUNT)) == COUNT

    async def test_an_iteration_waits_too_long(self, driver: str, mysql_url: str) -> None:
        """The time limit holds for each wait for the server, and not for what is done with the rows."""
        async with make_mysql(mysql_url, driver, max_size=1, query_timeout=0.5) as pool:
            await filled(pool)

            async with pool.get_client() as client, aclosing(client.iterate(ALL, size=10)) as rows:
                await anext(rows)
                await asyncio.sleep(0.6)  # the program's own time
                await anext(rows)

            async with pool.get_client() as client:
                with pytest.raises(QueryTimeout):
                    _ = [row async for row in client.iterate(SLOW, most=2_990)]

            assert len(await pool.select(ALL)) == COUNT

    async def test_whoever_is_cancelled_leaves_nothing(self, driver: str, mysql_url: str) -> None:
        """Cancelled at each turn of the loop, it leaves a whole pool and a running collector."""
        async with make_mysql(mysql_url, driver, max_size=1) as pool:
            await filled(pool)
            await pool.select(ALL)

            for turns in itertools.count():
                task = asyncio.create_task(pool.select(ALL))

                for _ in range(turns):
                    await asyncio.sleep(0)

                task.cancel()

                try:
                    rows = await task
                except asyncio.CancelledError:
                    assert gc.isenabled()
                    assert await pool.find("SELECT 41 + 1 AS sum") == (42,)
                    await pool.select(ALL)
                else:
                    assert len(rows) == COUNT
                    break

            assert turns >= 2  # at least while it was sent, and while its rows came
            assert pool.statistics().leased == 0

    async def test_the_connection_is_lost(self, driver: str, mysql_url: str) -> None:
        """A connection that is lost between rows is an error, and replaced."""
        host, _, port = mysql_url.rpartition("@")[2].partition("/")[0].partition(":")

        async with (
            FaultProxy(host, int(port), protocol="mysql", seed=3) as proxy,
            make_mysql(proxy.url(mysql_url), driver, max_size=1) as pool,
        ):
            await filled(pool)
            assert len(await pool.select(SLOW, most=COUNT)) == COUNT
            asked = proxy.reached()
            running = asyncio.create_task(pool.select(SLOW, most=COUNT - 2))  # two seconds at its end
            await asked.wait()
            await asyncio.sleep(0.2)  # the first rows are here by now; were they not, it would fail the same
            proxy.cut()

            with pytest.raises(UnavailableError):
                await running

            assert len(await pool.select(ALL)) == COUNT

    async def test_an_open_transaction_is_seen_after_it(self, driver: str, mysql_url: str) -> None:
        """Without autocommit a query opens a transaction, which the next user must not find."""
        async with make_mysql(mysql_url, driver, max_size=1, autocommit=False) as pool:
            await filled(pool)

            for _ in range(3):  # without autocommit, a query begins a transaction
                async with pool.get_client() as client:
                    assert len(await client.select(ALL)) == COUNT
                    assert client.connection.in_transaction

            async with pool.get_client() as client:
                assert not client.connection.in_transaction
                assert [row async for row in client.iterate(ALL)]
                assert client.connection.in_transaction


class TestCollector:
    """When the garbage collector is off, and that it never stays so."""

    async def test_it_is_off_for_the_length_of_a_block(self) -> None:
        """Off inside, on outside."""
        with gc_paused():
            assert not gc.isenabled()

        assert gc.isenabled()

    async def test_an_error_switches_it_on(self) -> None:
        """Whatever ends the block."""
        with pytest.raises(ZeroDivisionError), gc_paused():
            1 / 0  # noqa: B018 - the error is what is wanted

    async def test_blocks_that_overlap_do_not_keep_it_off(self) -> None:
        """A service that always reads something still collects its garbage."""
        first, second = gc_paused(), gc_paused()

        with first:
            second.__enter__()

        assert gc.isenabled()
        second.__exit__(None, None, None)
        assert gc.isenabled()

    async def test_whoever_works_without_it_keeps_working_without_it(self) -> None:
        """A program that has switched it off finds it off."""
        gc.disable()

        try:
            with gc_paused():
                pass

            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_a_slow_server_does_not_keep_it_off(self) -> None:
        """It is on again after a quarter of a second, result or not."""

        async def wait() -> tuple[bool, bool]:
            with gc_paused():
                await asyncio.sleep(0.2)
                early = gc.isenabled()
                await asyncio.sleep(0.1)
                return early, gc.isenabled()

        assert run_virtual(wait()) == (False, True)
