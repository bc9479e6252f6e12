"""RETURNING: every row of many sets of parameters, and the id of what was inserted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Insert, Integer, MetaData, String, Table, delete, func, insert, text, update
from sqlalchemy.dialects import mysql, sqlite

from tests.pool.sql.backends import BACKENDS, make_pool
from ws_pool import SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import IntegrityViolation, QueryError, UnsupportedStatement

ITEM = Table(
    "item",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(20), nullable=False, unique=True),
    Column("price", Integer, server_default=text("7")),
)
NAMES = [{"name": f"n{n}"} for n in range(50)]


@pytest.fixture(params=BACKENDS)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with an empty table."""
    async with make_pool(request.param, mysql_url, tmp_path) as pool:
        await pool.create_all(ITEM.metadata)
        yield pool


class TestMany:
    """``execute(statement, [many])``."""

    async def test_all_rows_in_the_order_of_the_parameters(self, pool: SqlPool) -> None:
        """Each set of parameters has its row."""
        adding = insert(ITEM).returning(ITEM.c.id, ITEM.c.name, ITEM.c.price)
        result = await pool.execute(adding, NAMES)
        assert [tuple(row) for row in result.rows] == [(n + 1, f"n{n}", 7) for n in range(50)]
        assert result.rowcount == 50
        assert (await pool.execute(adding, [{"name": "a"}, {"name": "b"}], row_type=dict)).rows == [
            {"id": 51, "name": "a", "price": 7},
            {"id": 52, "name": "b", "price": 7},
        ]

    async def test_text(self, pool: SqlPool) -> None:
        """A string with RETURNING returns its rows too."""
        result = await pool.execute("INSERT INTO item (name) VALUES (:name) RETURNING id", NAMES[:3])
        assert result.rows == [(1,), (2,), (3,)]

    async def test_all_or_none(self, pool: SqlPool) -> None:
        """A row that is refused undoes those before it."""
        with pytest.raises(IntegrityViolation):
            await pool.execute(insert(ITEM).returning(ITEM.c.id), [*NAMES[:3], NAMES[0]])

        assert await pool.count(ITEM) == 0

    async def test_rows_that_are_deleted(self, pool: SqlPool) -> None:
        """A DELETE returns what it deleted, once per set of parameters."""
        await pool.insert_many(ITEM, NAMES)
        removing = delete(ITEM).where(ITEM.c.name == text(":which")).returning(ITEM.c.name)
        result = await pool.execute(removing, [{"which": "n3"}, {"which": "none"}, {"which": "n5"}])
        assert result.rows == [("n3",), ("n5",)]
        assert result.rowcount == 2

    async def test_what_a_server_does_not_know(self, pool: SqlPool) -> None:
        """MariaDB has no UPDATE ... RETURNING: nothing is sent, or the rows come."""
        await pool.insert_many(ITEM, NAMES)
        changing = update(ITEM).where(ITEM.c.name == text(":which")).values(price=1).returning(ITEM.c.id)

        try:
            result = await pool.execute(changing, [{"which": "n0"}, {"which": "n1"}])
        except QueryError:
            assert await pool.count("SELECT * FROM item WHERE price = 1") == 0
        else:
            assert result.rows == [(1,), (2,)]


async def test_columns_beside_the_defaults(pool: SqlPool) -> None:
    """``return_defaults(supplemental_cols=…)`` returns rows, as SQLAlchemy's engine does."""
    adding = insert(ITEM).return_defaults(supplemental_cols=[ITEM.c.name])
    result = await pool.execute(adding, {"name": "a"})
    assert [row.name for row in result.rows] == ["a"]
    assert result.last_id == 1


async def test_defaults_alone(pool: SqlPool) -> None:
    """``return_defaults()`` returns no rows: SQLAlchemy keeps them for its ORM."""
    assert (await pool.execute(insert(ITEM).return_defaults(), {"name": "b"})).rows == []


async def test_a_function_alone(pool: SqlPool) -> None:
    """It is a query, with or without a handle."""
    assert await pool.find(func.coalesce(None, 5)) == (5,)
    assert await pool.find(pool.prepare(func.coalesce(None, 5))) == (5,)


class TestIds:
    """The id of an INSERT."""

    async def test_one_set_of_parameters_in_a_list(self, pool: SqlPool) -> None:
        """It is one execution, and has its id."""
        assert (await pool.execute(insert(ITEM), [{"name": "a"}])).last_id == 1
        assert (await pool.execute(insert(ITEM), {"name": "b"})).last_id == 2

    async def test_an_id_among_the_rows(self, pool: SqlPool) -> None:
        """`insert` with RETURNING, or with return_defaults, returns the new row's id."""
        assert await pool.insert(insert(ITEM).returning(ITEM.c.name, ITEM.c.id), name="a") == 1
        assert await pool.insert(insert(ITEM).return_defaults(), name="b") == 2
        assert await pool.insert(insert(ITEM).return_defaults(ITEM.c.price), name="c") == 3
        assert (await pool.execute(insert(ITEM).returning(ITEM.c.id), {"name": "d"})).last_id == 4
        assert await pool.insert(insert(ITEM).returning(ITEM.c.id), id=70, name="e") == 70

    async def test_the_id_of_a_row_that_is_updated_instead(self, pool: SqlPool) -> None:
        """It is that row's, as text and as a statement, and not one of some INSERT before."""
        for name in "abc":
            await pool.insert(ITEM, name=name)

        if isinstance(pool, SqlitePool):
            upsert: Insert = sqlite.insert(ITEM).on_conflict_do_update(
                index_elements=["name"], set_={"price": 9}
            )
            sql = "INSERT INTO item (name) VALUES (:name) ON CONFLICT (name) DO UPDATE SET price = 8; -- so"
        else:
            upsert = mysql.insert(ITEM).on_duplicate_key_update(price=9)
            sql = "INSERT INTO item (name) VALUES (:name) ON DUPLICATE KEY UPDATE price = 8"

        async with pool.get_client() as client:
            assert await client.insert(upsert, name="a") == 1
            assert (await client.execute(upsert, name="b")).last_id == 2
            assert await client.insert(sql, name="a") == 1
            new = await client.insert(sql, name="d")
            assert (await client.find("SELECT id FROM item WHERE name = 'd'")).id == new
            found = await client.select("SELECT price FROM item ORDER BY name")
            assert [row.price for row in found] == [8, 9, 7, 7]

    async def test_the_id_of_a_row_that_stays_as_it_was(self, pool: SqlPool) -> None:
        """MySQL sends none, which is 0, unless it is asked for it; SQLite changes the row all the same."""
        await pool.insert(ITEM, name="a")

        if isinstance(pool, SqlitePool):
            upsert: Insert = sqlite.insert(ITEM).on_conflict_do_update(
                index_elements=["name"], set_={"price": ITEM.c.price}
            )
            assert await pool.insert(upsert, name="a") == 1
            return

        assert await pool.insert(mysql.insert(ITEM).on_duplicate_key_update(price=7), name="a") == 0
        asked = mysql.insert(ITEM).on_duplicate_key_update(id=func.last_insert_id(ITEM.c.id), price=7)
        assert await pool.insert(asked, name="a") == 1

    async def test_an_id_that_the_caller_chose(self, pool: SqlPool) -> None:
        """It is that one, whatever sign it has; 0 is MySQL's word for the next one."""
        await pool.insert(ITEM, name="first")
        handle = pool.prepare(insert(ITEM))

        for number in (500, -5, 70):
            assert await pool.insert(ITEM, id=number, name=f"a{number}") == number
            assert (await pool.execute(handle, id=number + 1, name=f"b{number}")).last_id == number + 1

        zero = await pool.insert(ITEM, id=0, name="zero")
        assert [row.id for row in await pool.select(ITEM.select().where(ITEM.c.name == "zero"))] == [zero]

    async def test_an_id_that_cannot_be_known(self, pool: SqlPool) -> None:
        """It is the right one, or nothing is inserted."""
        for adding in (
            insert(ITEM).returning(ITEM.c.name),
            "INSERT INTO item (name) VALUES (:name) RETURNING name",
        ):
            before = await pool.count(ITEM)

            try:
                assert await pool.insert(adding, name=f"n{before}") == before + 1
            except UnsupportedStatement as error:
                assert "RETURNING" in str(error)  # noqa: PT017 - either is right
                assert await pool.count(ITEM) == before


async def test_tables_without_numbers_of_rows(tmp_path: Path) -> None:
    """A table of SQLite that numbers no rows has no ids, also not that of another table's row."""
    async with SqlitePool(path=str(tmp_path / "item.db")) as pool:
        await pool.create_all(ITEM.metadata)
        await pool.execute("CREATE TABLE word (w TEXT PRIMARY KEY, n INT) WITHOUT ROWID")

        async with pool.get_client() as client:
            assert await client.insert(ITEM, name="a") == 1
            number = Table("number", MetaData(), Column("n", Integer, primary_key=True))
            await client.execute('CREATE TABLE "number" (n INTEGER PRIMARY KEY) WITHOUT ROWID')
            assert await client.insert(number, n=7) == 7
            assert await client.insert("REPLACE INTO main . [number] VALUES (8)") == 0
            assert await client.insert("INSERT OR IGNORE INTO /* x */ word VALUES ('y', 1)") == 0
            assert await client.insert("INSERT INTO item (name) VALUES ('b')") == 2
            sql = "INSERT INTO word VALUES ('x', 1) ON CONFLICT DO UPDATE SET n = n + 1"
            assert [await client.insert(sql), await client.insert(sql)] == [0, 0]
            assert await client.find("SELECT n FROM word WHERE w = 'x'") == (2,)

            with pytest.raises(QueryError, match="no such column"):
                await client.insert("INSERT INTO word VALUES ('x', 1) ON CONFLICT DO UPDATE SET no = 1")
