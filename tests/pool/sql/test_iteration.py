"""`iterate`: what happens to the connection when a loop is left, or when the statement fails late."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from tests.pool.sql.backends import BACKENDS, MYSQL, make_pool
from ws_pool._sql import iteration
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import ConnectionBusy, QueryError, TransactionConflict, UnavailableError, UsageError

ITEM = Table(
    "item", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(20), nullable=False)
)
MANY = 3_000


@pytest.fixture(params=BACKENDS)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with more rows than one block."""
    async with make_pool(request.param, mysql_url, tmp_path) as pool:
        await pool.create_all(ITEM.metadata)
        await pool.insert_many(ITEM, [{"id": n, "name": f"n{n}"} for n in range(1, MANY + 1)])
        yield pool


class TestLeaving:
    """``break`` out of a loop."""

    async def test_the_transaction_lives(self, pool: SqlPool) -> None:
        """A statement after a ``break`` runs on the same connection, and all of the transaction is kept."""
        async with pool.atomic() as client:
            await client.insert(ITEM, name="first")

            async for row in client.iterate(select(ITEM).order_by(ITEM.c.id), size=10):
                assert row.id == 1
                break

            assert await client.insert(ITEM, name="second") == MANY + 2

        assert await pool.count(ITEM) == MANY + 2

    @pytest.mark.parametrize("size", [0, -1, "5", 1.5, None])
    async def test_blocks_have_rows(self, pool: SqlPool, size: Any) -> None:
        """A size without rows is refused at once: with some drivers no rows would come."""
        async with pool.get_client() as client:
            with pytest.raises(UsageError, match="size is a number of rows from 1"):
                client.iterate(select(ITEM), size=size)

            assert len([row async for row in client.iterate(select(ITEM), size=1_000)]) == MANY

    async def test_an_iteration_after_an_iteration(self, pool: SqlPool) -> None:
        """Loops that are left one after the other, with statements in between, see their own rows."""
        async with pool.get_client() as client:
            for start in (1, 500, 1000):
                query = select(ITEM.c.id).where(ITEM.c.id >= start).order_by(ITEM.c.id)

                async for row in client.iterate(query, size=7):
                    if row.id == start + 9:
                        break

                assert await client.find(select(ITEM.c.name).where(ITEM.c.id == start)) == (f"n{start}",)

            assert [row.id async for row in client.iterate(query, size=7)] == list(range(1000, MANY + 1))

    async def test_after_the_block(self, pool: SqlPool) -> None:
        """Nothing more is read over a connection that is not the client's any more."""
        for block in (1, 10):
            async with pool.get_client() as client:
                rows = client.iterate(select(ITEM.c.id).order_by(ITEM.c.id), size=block)
                assert await anext(rows) == (1,)

            with pytest.raises(UsageError, match="outside of its block"):
                for _ in range(block):
                    await anext(rows)

            assert await pool.count(ITEM) == MANY

    async def test_an_error_in_the_loop(self, pool: SqlPool) -> None:
        """An exception that leaves the loop leaves a savepoint too, and the transaction around it lives."""
        async with pool.atomic() as client:
            await client.insert(ITEM, name="kept")

            with pytest.raises(ZeroDivisionError):
                async with client.begin():
                    await client.insert(ITEM, name="undone")

                    async for _ in client.iterate(select(ITEM), size=10):
                        raise ZeroDivisionError

            gc.collect()
            await client.insert(ITEM, name="after")

        assert await pool.count(ITEM) == MANY + 2

    async def test_the_loop_goes_on(self, pool: SqlPool) -> None:
        """Inside the loop the connection is busy: no row may be lost without an error."""
        async with pool.get_client() as client:
            seen = 0

            async for _ in client.iterate(select(ITEM), size=10):
                seen += 1

                if seen == 15:
                    with pytest.raises(ConnectionBusy, match="an iteration"):
                        await client.find("SELECT 1 AS one")

            assert seen == MANY

    async def test_a_loop_that_is_still_referred_to(self, pool: SqlPool) -> None:
        """Its owner may go on: the connection stays busy until `aclose`."""
        async with pool.get_client() as client:
            async with aclosing(client.iterate(select(ITEM), size=10)) as rows:
                async for _ in rows:
                    break

                with pytest.raises(ConnectionBusy, match="an iteration"):
                    await client.find("SELECT 1 AS one")

            assert await client.find("SELECT 1 AS one") == (1,)

    async def test_other_users_of_the_connection(self, pool: SqlPool) -> None:
        """A block that ends after a ``break`` leaves nothing to the next user of the pool."""
        for number in range(5):
            async with pool.get_client() as client:
                async for _ in client.iterate(select(ITEM), size=10):
                    break

            assert await pool.find("SELECT :n AS n", n=number) == (number,)

        assert pool.statistics().leased == 0

    async def test_a_shared_client(self, pool: SqlPool) -> None:
        """The other tasks' turn comes when the loop is left."""
        async with pool.get_client() as client:
            client.share()

            async for _ in client.iterate(select(ITEM), size=10):
                break

            async with asyncio.timeout(5):
                await asyncio.gather(*(client.find("SELECT 1 AS one") for _ in range(3)))

    async def test_without_the_close_the_transaction_dies(
        self, mysql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broken twin leaves the closing to the event loop, which comes too late."""
        monkeypatch.delattr(iteration.RowIterator, "__del__")

        async with make_pool("aiomysql", mysql_url, tmp_path) as pool:
            await pool.create_all(ITEM.metadata)
            await pool.insert_many(ITEM, [{"name": "x"}] * 100)

            with pytest.raises(ConnectionBusy, match="an iteration"):
                async with pool.atomic() as client:
                    async for _ in client.iterate(select(ITEM), size=10):
                        break

                    await client.insert(ITEM, name="lost")

            assert await pool.count(ITEM) == 100

    async def test_rows_of_an_insert(self, pool: SqlPool) -> None:
        """An INSERT that returns rows can be iterated, on SQLite's writing connection too."""
        async with pool.get_client() as client:
            adding = insert(ITEM).values(name="new").returning(ITEM.c.id)
            assert [row.id async for row in client.iterate(adding)] == [MANY + 1]

        assert await pool.count(ITEM) == MANY + 1


@pytest.mark.parametrize("backend", MYSQL)
class TestLateErrors:
    """A statement that fails after its first rows."""

    async def test_an_error_after_the_rows_of_a_call(
        self, backend: str, mysql_url: str, tmp_path: Path
    ) -> None:
        """It is raised by the CALL itself, by every verb, and the connection goes on."""
        async with make_pool(backend, mysql_url, tmp_path, max_size=1) as pool:
            await pool.execute(
                "CREATE PROCEDURE p() BEGIN SELECT 1 AS one; "
                "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'late'; END"
            )

            async with pool.get_client() as client:
                raw = client.raw

                with pytest.raises(QueryError, match="late"):
                    _ = [row async for row in client.iterate("CALL p()")]

                assert await client.find("SELECT 2 AS two") == (2,)

                with pytest.raises(QueryError, match="late"):
                    await client.execute("CALL p()")

                assert await client.find("SELECT 3 AS three") == (3,)
                assert client.raw is raw

    async def test_several_results_of_a_call(self, backend: str, mysql_url: str, tmp_path: Path) -> None:
        """The first one is iterated, the others are read; nothing of them reaches the next statement."""
        async with make_pool(backend, mysql_url, tmp_path) as pool:
            await pool.execute("CREATE PROCEDURE p() BEGIN SELECT 1 AS one; SELECT 2 AS two, 3 AS three; END")

            async with pool.get_client() as client:
                assert [tuple(row) async for row in client.iterate("CALL p()")] == [(1,)]
                assert await client.find("SELECT 4 AS four") == (4,)

    async def test_a_conflict_in_the_rest_of_a_loop_that_was_left(
        self, backend: str, mysql_url: str, tmp_path: Path
    ) -> None:
        """The next statement raises it: the server has rolled the transaction back."""
        async with make_pool(backend, mysql_url, tmp_path) as pool:
            await pool.create_all(ITEM.metadata)
            await pool.insert_many(ITEM, [{"id": n, "name": f"n{n}"} for n in range(1, 200)])
            await pool.execute(
                "CREATE PROCEDURE p() BEGIN SELECT * FROM item; "
                "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'deadlock'; END"
            )

            async with pool.get_client() as client:
                with pytest.raises(TransactionConflict, match="deadlock"):
                    async with client.begin():
                        async for _ in client.iterate("CALL p()", size=10):
                            break

                        await client.insert(ITEM, name="lost")

            assert await pool.count(ITEM) == 199

    async def test_a_packet_that_the_server_refuses(
        self, backend: str, mysql_url: str, tmp_path: Path
    ) -> None:
        """After error 1153 the server closes the connection: the next user of the pool gets another one."""
        async with make_pool(backend, mysql_url, tmp_path, max_size=1) as pool:
            limit = (await pool.find("SELECT @@max_allowed_packet AS n")).n

            for _ in range(3):
                with pytest.raises((QueryError, UnavailableError)):
                    await pool.execute("SELECT LENGTH(:x) AS n", x="x" * (limit + 1000))

                assert await pool.find("SELECT 1 AS one") == (1,)
