"""What would end a block's transaction before the block is refused, or an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from tests.pool.sql.backends import BACKENDS, MYSQL, POSTGRES, make_requested
from ws_pool import MysqlPool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import IntegrityViolation, TransactionConflict, UsageError

METADATA = MetaData()
ITEM = Table("item", METADATA, Column("id", Integer, primary_key=True), Column("v", Integer, unique=True))
OTHER = Table("other", MetaData(), Column("id", Integer, primary_key=True))


@pytest.fixture(params=[*BACKENDS, *POSTGRES])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """Open a pool of each kind, with a table."""
    async with make_requested(request, tmp_path) as pool:
        await pool.create_all(METADATA)
        yield pool


@pytest.fixture(params=MYSQL)
async def mysql(request: pytest.FixtureRequest, mysql_url: str) -> AsyncIterator[MysqlPool]:
    """Open a pool over each driver of MySQL, with a table."""
    async with MysqlPool(mysql_url, driver=request.param, max_size=2) as pool:
        await pool.create_all(METADATA)
        yield pool


class TestControl:
    """Transaction control as text inside of a block."""

    @pytest.mark.parametrize("sql", ["COMMIT", "rollback", "/* x */ BEGIN"])
    async def test_it_is_refused(self, pool: SqlPool, sql: str) -> None:
        """Before it runs; the block goes on, and is undone as a whole."""

        async def work() -> None:
            async with pool.atomic() as client:
                await client.insert(ITEM, v=1)

                with pytest.raises(UsageError, match="would end the transaction of this begin"):
                    await client.execute(sql)

                async with pool.atomic() as inner:
                    with pytest.raises(UsageError, match="would end the transaction"):
                        await inner.execute(sql)

                await client.insert(ITEM, v=2)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()

        assert await pool.count(ITEM) == 0

        async with pool.atomic() as client:
            with pytest.raises(UsageError, match="would end the transaction"):
                await client.execute(sql)

            await client.insert(ITEM, v=3)

        assert await pool.count(ITEM) == 1

    async def test_savepoints_as_text_are_not(self, pool: SqlPool) -> None:
        """They end with the transaction at the latest."""
        async with pool.atomic() as client:
            await client.insert(ITEM, v=1)
            await client.execute("SAVEPOINT here")
            await client.insert(ITEM, v=2)
            await client.execute("ROLLBACK TO SAVEPOINT here")
            await client.execute("ROLLBACK TO here")
            await client.execute("RELEASE SAVEPOINT here")

        assert [row.v for row in await pool.select(ITEM.select())] == [1]

    async def test_around_no_block_it_works(self, pool: SqlPool) -> None:
        """A client that has begun none may write its own."""
        async with pool.get_client() as client:
            for end, left in (("ROLLBACK", 0), ("COMMIT", 1)):
                await client.execute("BEGIN")
                await client.insert(ITEM, v=1)
                await client.execute(end)
                assert await client.count(ITEM) == left

    async def test_many_rows_are_a_part_of_it(self, pool: SqlPool) -> None:
        """What needs several statements begins no transaction of its own in one that was begun as text."""
        async with pool.get_client() as client:
            for end, left in (("ROLLBACK", 0), ("COMMIT", 5)):
                await client.execute("BEGIN")
                await client.insert(ITEM, v=1)
                assert await client.insert_many(ITEM, [{"v": 2}, {"v": 3}]) == 2
                assert (await client.execute(ITEM.insert(), [{"v": 4}, {"v": 5}])).rowcount == 2
                await client.execute(end)
                assert await client.count(ITEM) == left

            assert await client.insert_many(ITEM, [{"v": 6}]) == 1

        assert await pool.count(ITEM) == 6

    async def test_no_block_begins_in_the_middle_of_it(self, pool: SqlPool) -> None:
        """It would commit what was begun as text, or be a part of it, silently."""
        async with pool.get_client() as client:
            await client.execute("BEGIN")
            await client.insert(ITEM, v=1)

            with pytest.raises(UsageError, match="begun as text is open"):
                async with client.begin():
                    pytest.fail("it has begun")

            with pytest.raises(UsageError, match="begun as text is open"):
                async with pool.atomic():
                    pytest.fail("it has begun")

            await client.execute("ROLLBACK")

            async with client.begin():
                await client.insert(ITEM, v=2)

        assert [row.v for row in await pool.select(ITEM.select())] == [2]

    async def test_the_twin_that_is_not_refused_leaves_half_a_block(self, pool: SqlPool) -> None:
        """The broken twin: straight on the connection, the block's end undoes nothing."""

        async def work() -> None:
            async with pool.atomic() as client:
                await client.insert(ITEM, v=1)
                await client.connection.run("COMMIT", None)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()

        assert await pool.count(ITEM) == 1


class TestDefinitions:
    """CREATE, ALTER and DROP, which MySQL commits at once."""

    @pytest.mark.parametrize(
        "sql", ["CREATE TABLE t (a INT)", "ALTER TABLE item ADD b INT", "TRUNCATE item", "DROP TABLE item"]
    )
    async def test_mysql_refuses_them_in_a_block(self, mysql: MysqlPool, sql: str) -> None:
        """The table is as it was, and what ran before is undone with the block."""

        async def work() -> None:
            async with mysql.atomic() as client:
                await client.insert(ITEM, v=1)
                await client.execute(sql)

        with pytest.raises(UsageError, match=f"{sql.partition(' ')[0]} would end the transaction"):
            await work()

        assert await mysql.select("SELECT * FROM item") == []
        assert await mysql.select("SHOW TABLES LIKE 't'") == []
        await mysql.execute(sql)

    async def test_tables_of_a_metadata_too(self, mysql: MysqlPool) -> None:
        """`create_all` and `drop_all` are definitions."""
        async with mysql.atomic() as client:
            with pytest.raises(UsageError, match="CREATE would end"):
                await client.create_all(OTHER.metadata)

            with pytest.raises(UsageError, match="DROP would end"):
                await client.drop_all(METADATA)

        assert await mysql.select("SHOW TABLES LIKE 'other'") == []
        assert await mysql.count(ITEM) == 0

    async def test_temporary_tables_are_taken(self, mysql: MysqlPool) -> None:
        """They end no transaction."""

        async def work() -> None:
            async with mysql.atomic() as client:
                await client.insert(ITEM, v=1)
                await client.execute("CREATE TEMPORARY TABLE mine (a INT)")
                await client.execute("INSERT INTO mine SELECT v FROM item")
                assert await client.select("SELECT a FROM mine") == [(1,)]
                await client.execute("DROP TEMPORARY TABLE mine")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()

        assert await mysql.count(ITEM) == 0

    async def test_the_others_undo_them_with_the_block(self, pool: SqlPool) -> None:
        """For SQLite and PostgreSQL they are a part of the transaction."""
        if isinstance(pool, MysqlPool):
            pytest.skip("MySQL cannot undo them")

        async def work() -> None:
            async with pool.atomic() as client:
                await client.create_all(OTHER.metadata)
                await client.insert(OTHER, id=1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()

        await pool.create_all(OTHER.metadata)
        assert await pool.count(OTHER) == 0


class TestUnforeseen:
    """What cannot be seen in a statement's text."""

    @pytest.mark.parametrize("observed", [False, True], ids=["", "observed"])
    async def test_a_procedure_that_commits(self, mysql_url: str, *, observed: bool) -> None:
        """It is an error at once, nothing more runs in the block, and its end says so again."""
        for driver in MYSQL:
            timeout = 60.0 if observed else None

            async with MysqlPool(mysql_url, driver=driver, max_size=1, query_timeout=timeout) as pool:
                await pool.create_all(METADATA)
                await pool.execute("DELETE FROM item")
                await pool.execute("CREATE OR REPLACE PROCEDURE p() BEGIN COMMIT; END")

                async def work(pool: MysqlPool) -> None:
                    async with pool.atomic() as client:
                        await client.insert(ITEM, v=1)

                        with pytest.raises(UsageError, match="CALL has ended the transaction"):
                            await client.execute("CALL p()")

                        for _ in range(2):
                            with pytest.raises(UsageError, match="CALL has ended the transaction"):
                                await client.insert(ITEM, v=2)

                with pytest.raises(UsageError, match="CALL has ended the transaction"):
                    await work(pool)

                assert [row.v for row in await pool.select(ITEM.select())] == [1]  # as the error says

                async with pool.atomic() as client:
                    await client.insert(ITEM, v=3)

                assert await pool.count(ITEM) == 2

    async def test_a_procedure_that_commits_in_an_iteration(self, mysql: MysqlPool) -> None:
        """Its rows come, and then the error."""
        await mysql.execute("CREATE OR REPLACE PROCEDURE p() BEGIN SELECT 5 AS five; COMMIT; END")
        rows = []

        async def work() -> None:
            async with mysql.atomic() as client:
                await client.insert(ITEM, v=1)

                async for row in client.iterate("CALL p()"):
                    rows.append(row.five)  # noqa: PERF401 - so that they are there when it fails

        with pytest.raises(UsageError, match="CALL has ended the transaction"):
            await work()

        assert rows == [5]

    @pytest.mark.parametrize("pool", ["sqlite", "memory"], indirect=True)
    async def test_an_error_that_rolls_back(self, pool: SqlPool) -> None:
        """A block that goes on after it gets no statement through, and reports it at its end."""
        await pool.insert(ITEM, v=1)

        async def work() -> None:
            async with pool.atomic() as client:
                await client.insert(ITEM, v=2)

                with pytest.raises(IntegrityViolation):
                    await client.execute("INSERT OR ROLLBACK INTO item (v) VALUES (1)")

                with pytest.raises(TransactionConflict, match="run it again"):
                    await client.insert(ITEM, v=3)

        with pytest.raises(TransactionConflict, match="run it again"):
            await work()

        assert [row.v for row in await pool.select(ITEM.select())] == [1]

    async def test_an_error_that_does_not_is_survived(self, mysql: MysqlPool) -> None:
        """A statement that fails alone leaves the block as it was."""
        async with mysql.atomic() as client:
            await client.insert(ITEM, v=1)

            with pytest.raises(IntegrityViolation):
                await client.insert(ITEM, v=1)

            await client.insert(ITEM, v=2)

        assert await mysql.count(ITEM) == 2
