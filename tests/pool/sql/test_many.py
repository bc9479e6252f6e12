"""Many sets of parameters: what they are made of, and that all of them are kept, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from tests.pool.sql.backends import BACKENDS, POSTGRES, make_requested
from ws_pool import PostgresPool, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import IntegrityViolation, QueryError, UsageError

ITEM = Table(
    "item", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(20), unique=True)
)


@pytest.fixture(params=[*BACKENDS, *POSTGRES])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with an empty table."""
    async with make_requested(request, tmp_path, max_size=2) as made:
        await made.create_all(ITEM.metadata)
        yield made


class TestShape:
    """Sets of parameters are mappings."""

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([(1, "a")], "row 0 is a tuple"),
            ([{"name": "a"}, ("b",)], "row 1 is a tuple"),
            ([{"name": "a"}, None], "row 1 is a NoneType"),
            (["a"], "row 0 is a str"),
            ({"name": "a"}, "an iterable of mappings, not a dict"),
            ("name", "an iterable of mappings, not a str"),
            (None, "an iterable of mappings, not a NoneType"),
        ],
    )
    async def test_what_is_none_is_refused(self, pool: SqlPool, rows: Any, message: str) -> None:
        """The error names the first that is not a mapping, and nothing is inserted."""
        with pytest.raises(UsageError, match=message):
            await pool.insert_many(ITEM, rows)

        assert await pool.count(ITEM) == 0

    async def test_so_is_one_among_those_of_execute(self, pool: SqlPool) -> None:
        """As for `insert_many`."""
        with pytest.raises(UsageError, match="row 1 is a tuple"):
            await pool.execute(insert(ITEM), [{"name": "a"}, ("b",)])

        assert await pool.count(ITEM) == 0

    async def test_each_has_the_keys_of_the_first(self, pool: SqlPool) -> None:
        """A key that comes later has no place in the statement, and one that is missing no value."""
        with pytest.raises(UsageError, match=r"sets no 'id'.*needs the keys of the first"):
            await pool.execute(insert(ITEM), [{"name": "a"}, {"name": "b", "id": 7}])

        with pytest.raises(UsageError, match="needs a value for the parameter 'name'"):
            await pool.execute(insert(ITEM), [{"name": "a", "id": 7}, {"id": 8}])

        assert await pool.count(ITEM) == 0

    async def test_rows_of_a_query_are_mappings_after_asdict(self, pool: SqlPool) -> None:
        """A generator will do."""
        await pool.insert_many(ITEM, ({"name": name} for name in "ab"))
        found = await pool.select(select(ITEM.c.name))
        await pool.execute(ITEM.delete())
        assert await pool.insert_many(ITEM, (row._asdict() for row in found)) == 2

    @pytest.mark.parametrize("batch", [0, -1, "1", 1.5, None])
    async def test_a_batch_is_a_number_from_1(self, pool: SqlPool, batch: Any) -> None:
        """Each database refuses another one, whether it needs batches or not."""
        with pytest.raises(UsageError, match="batch is a number of rows from 1"):
            await pool.insert_many(ITEM, [{"name": "a"}], batch=batch)


async def whole(pool: SqlPool, begin: str, fails: str, message: str) -> None:
    """Insert many rows, of which one fails, after a transaction of text that the server has ended."""
    await pool.insert(ITEM, name="there")

    async with pool.get_client() as client:
        await client.execute(begin)

        with pytest.raises(QueryError):
            await client.execute("INSERT INTO item (name) VALUES ('there')")

        with pytest.raises(QueryError, match=message):
            await client.execute(fails)

        with pytest.raises(IntegrityViolation):
            await client.insert_many(ITEM, [{"name": "a"}, {"name": "there"}])

        with pytest.raises(IntegrityViolation):
            await client.execute(insert(ITEM).returning(ITEM.c.id), [{"name": "a"}, {"name": "there"}])

    assert await pool.count(ITEM) == 1


async def test_after_a_failed_commit_they_are_still_all_or_none(driver_url: str) -> None:
    """A COMMIT that was a ROLLBACK leaves no transaction that rows could be a part of."""
    async with PostgresPool(driver_url, max_size=1) as pool:
        await pool.create_all(ITEM.metadata)
        await whole(pool, "BEGIN", "COMMIT", "COMMIT was a ROLLBACK")


async def test_after_an_error_that_rolls_back_they_are_still_all_or_none(tmp_path: Path) -> None:
    """So does an error that ends the transaction."""
    async with SqlitePool(path=str(tmp_path / "item.db")) as pool:
        await pool.create_all(ITEM.metadata)
        await whole(pool, "BEGIN", "INSERT OR ROLLBACK INTO item (name) VALUES ('there')", "UNIQUE")
