"""The SQL client: its verbs, its ways to give parameters, its rows, its errors, on each driver."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.expression import ColumnElement

from ws_pool import MysqlPool, Row, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool._sql.rows import row_class
from ws_pool.errors import (
    ClosedError,
    ConnectionBusy,
    IntegrityViolation,
    NotReadyError,
    QueryError,
    UnavailableError,
    UnsupportedStatement,
    UsageError,
)

METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False, unique=True),
    Column("price", Integer, default=5),
    Index("by_price", "price"),
)
SALE = Table("sale", METADATA, Column("id", Integer, primary_key=True), Column("item", ForeignKey(ITEM.c.id)))
BACKENDS = ("aiomysql", "asyncmy", "sqlite")


def make(backend: str, mysql_url: str, directory: Path, **options: Any) -> SqlPool:
    """Make a pool of a driver on a database of the test's own."""
    if backend == "sqlite":
        return SqlitePool(f"sqlite:///{directory / 'client.db'}", **options)

    return MysqlPool(mysql_url.replace("mysql://", f"mysql+{backend}://", 1), **options)


@pytest.fixture(params=BACKENDS)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with three items."""
    async with make(request.param, mysql_url, tmp_path) as pool:
        await pool.create_all(METADATA)
        await pool.insert_many(ITEM, [{"name": f"n{n}", "price": n} for n in (1, 2, 3)])
        yield pool


class TestVerbs:
    """What each method returns."""

    async def test_select_gives_all_rows_and_find_the_first(self, pool: SqlPool):
        """A query returns rows; find returns one row, or None when there is none."""
        rows = await pool.select(select(ITEM).order_by(ITEM.c.id))
        assert [row.name for row in rows] == ["n1", "n2", "n3"]
        last = await pool.find(select(ITEM).order_by(ITEM.c.id.desc()))
        assert last is not None
        assert last.price == 3
        assert await pool.find(select(ITEM).where(ITEM.c.id == -1)) is None
        assert await pool.select(select(ITEM).where(ITEM.c.id == -1)) == []

    async def test_rows_can_be_dicts_or_tuples(self, pool: SqlPool, mysql_url: str, tmp_path: Path):
        """Dicts and plain tuples are given on request, for one call or for the pool."""
        assert await pool.select(select(ITEM.c.name).order_by(ITEM.c.id).limit(1), row_type=dict) == [
            {"name": "n1"}
        ]
        plain = await pool.find(select(ITEM.c.id, ITEM.c.name).where(ITEM.c.id == 1), row_type=tuple)
        assert type(plain) is tuple
        assert plain == (1, "n1")
        kind = "sqlite" if isinstance(pool, SqlitePool) else "aiomysql"

        async with make(kind, mysql_url, tmp_path, cursorclass="DictCursor") as other:
            found: object = await other.find(select(ITEM.c.price).where(ITEM.c.name == "n2"))
            assert found == {"price": 2}

    async def test_insert_gives_the_id_and_changes_give_the_rows_matched(self, pool: SqlPool):
        """Insert returns the id; update counts rows that matched, changed or not; delete those deleted."""
        assert await pool.insert(ITEM, name="new") == 4
        assert await pool.insert(insert(ITEM).values(name="newer")) == 5
        assert await pool.insert("INSERT INTO item (name) VALUES (:name)", name="newest") == 6
        assert await pool.update(update(ITEM).where(ITEM.c.price == 2).values(price=2)) == 1
        assert await pool.update(update(ITEM).where(ITEM.c.id < 3), price=9) == 2
        assert await pool.delete(delete(ITEM).where(ITEM.c.name.like("new%"))) == 3
        assert await pool.delete(delete(ITEM).where(ITEM.c.id == 99)) == 0

    async def test_count_wraps_any_query(self, pool: SqlPool):
        """Tables, queries with order and limit, unions and strings can be counted."""
        assert await pool.count(ITEM) == 3
        assert await pool.count(select(ITEM).order_by(ITEM.c.name)) == 3
        assert await pool.count(select(ITEM).order_by(ITEM.c.name).limit(2)) == 2
        assert await pool.count(select(ITEM.c.id).union_all(select(ITEM.c.id))) == 6
        assert await pool.count("SELECT * FROM item WHERE price > :p;", p=1) == 2
        assert await pool.count(pool.prepare(select(ITEM).where(ITEM.c.price > bindparam("p"))), p=2) == 1

        with pytest.raises(UsageError, match="takes a query or a table"):
            await pool.count(delete(ITEM))

    async def test_execute_gives_all_there_is(self, pool: SqlPool):
        """Rows, counts and the last id come in one result."""
        result = await pool.execute(select(ITEM))
        assert (len(result.rows), result.rowcount, result.last_id) == (3, 3, 0)
        result = await pool.execute(insert(ITEM).values(name="x"))
        assert (result.rows, result.rowcount, result.last_id) == ([], 1, 4)
        result = await pool.execute(
            update(ITEM).where(ITEM.c.id == bindparam("n")), [{"n": 1, "price": 0}, {"n": 7, "price": 0}]
        )
        assert result.rowcount == 1

    async def test_insert_many_inserts_all_or_nothing(self, pool: SqlPool):
        """Many rows go in few statements, with defaults, in one transaction."""
        assert await pool.insert_many(ITEM, ({"name": f"many{n} 100% 'é'"} for n in range(2500))) == 2500
        assert await pool.count(select(ITEM).where(ITEM.c.price == 5)) == 2500
        assert await pool.insert_many(ITEM, []) == 0

        with pytest.raises(IntegrityViolation):
            await pool.insert_many(ITEM, [{"name": "fresh"}, {"name": "n1"}], batch=1)

        assert await pool.count(select(ITEM).where(ITEM.c.name == "fresh")) == 0

        with pytest.raises(UsageError, match=r"row 1 has other keys than the first: 'price'"):
            await pool.insert_many(ITEM, [{"name": "a"}, {"name": "b", "price": 1}])

        with pytest.raises(UnsupportedStatement, match="takes a table or an INSERT"):
            await pool.insert_many(update(ITEM), [{"name": "a"}])

        await pool.insert_many(pool.prepare(insert(ITEM)), [{"name": "pa"}, {"name": "pb"}])
        assert await pool.count(select(ITEM).where(ITEM.c.name.in_(["pa", "pb"]))) == 2

    async def test_large_rows_are_split_below_the_packet_size(self, pool: SqlPool):
        """Rows that are large together go in several statements."""
        rows = [{"id": 100 + n, "name": f"{n}-" + "x" * 40} for n in range(30)]
        assert await pool.insert_many(ITEM, rows, batch=7) == 30
        big = "é" * 400_000

        async with pool.get_client() as client:
            await client.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, doc LONGTEXT)")
            table = Table("big", MetaData(), Column("id", Integer, primary_key=True), Column("doc", String))
            assert await client.insert_many(table, [{"id": n, "doc": big} for n in range(4)]) == 4
            assert (await client.find("SELECT SUM(LENGTH(doc)) AS n FROM big")).n in {
                4 * 800_000,
                4 * 400_000,
            }
            assert [row.doc for row in await client.select(select(table))] == [big] * 4

    async def test_iterate_gives_rows_in_blocks(self, pool: SqlPool):
        """A long result can be read row by row; the connection is good afterwards."""
        await pool.insert_many(ITEM, [{"name": f"it{n}"} for n in range(1000)])

        async with pool.get_client() as client:
            seen = [row.id async for row in client.iterate(select(ITEM).order_by(ITEM.c.id), size=64)]
            assert seen == sorted(seen)
            assert len(seen) == 1003
            assert [row async for row in client.iterate(select(ITEM.c.id).where(ITEM.c.id == -1))] == []
            found = [
                row
                async for row in client.iterate("SELECT name FROM item WHERE id = :id", id=1, row_type=dict)
            ]
            assert found == [{"name": "n1"}]
            assert await client.count(ITEM) == 1003

    async def test_an_iteration_left_early_harms_nobody(self, pool: SqlPool):
        """While an iteration is open the connection is busy; left early, it harms no later client."""
        await pool.insert_many(ITEM, [{"name": f"it{n}"} for n in range(1000)])

        async with pool.get_client() as client, aclosing(client.iterate(select(ITEM), size=10)) as rows:
            async for _ in rows:
                with pytest.raises(ConnectionBusy):
                    await client.select(select(ITEM))

                break

        assert await pool.count(ITEM) == 1003

    async def test_tables_are_created_once_and_dropped(self, pool: SqlPool):
        """create_all does nothing for what exists; drop_all drops in the right order."""
        async with pool.get_client() as client:
            await client.create_all(METADATA)
            await client.drop_all(METADATA)
            await client.execute(CreateTable(ITEM))
            assert await client.count(ITEM) == 0

        await pool.drop_all(METADATA)

        with pytest.raises(QueryError):
            await pool.count(ITEM)


class TestParameters:
    """The ways to give values."""

    async def test_values_are_given_by_name_or_position(self, pool: SqlPool):
        """Keywords, one mapping, both, and for strings the driver's own style."""
        query = select(ITEM.c.name).where(ITEM.c.id == bindparam("id"))
        assert (await pool.select(query, id=2))[0].name == "n2"
        assert (await pool.select(query, {"id": 3}))[0].name == "n3"
        assert (
            await pool.find("SELECT name FROM item WHERE id = :id AND price = :p", {"id": 1}, p=1)
        ).name == "n1"
        assert (await pool.find("SELECT name FROM item WHERE id = %(id)s", id=1)).name == "n1"
        mark = "?" if isinstance(pool, SqlitePool) else "%s"
        assert (await pool.find(f"SELECT name FROM item WHERE id = {mark}", 2)).name == "n2"
        assert (
            await pool.find(f"SELECT name FROM item WHERE id = {mark} AND price = {mark}", [2, 2])
        ).name == "n2"
        assert (await pool.find("SELECT '100%' AS a")).a == "100%"

    async def test_wrong_parameters_are_errors_before_anything_is_sent(self, pool: SqlPool):
        """A missing value, positions for a Core statement, names beside positions, no statement at all."""
        query = select(ITEM).where(ITEM.c.id == bindparam("id"))

        for wrong in (
            pool.select(query),
            pool.select(query, 5),
            pool.select("SELECT 1", 5, a=6),
            pool.select(42),  # type: ignore[call-overload]
        ):
            with pytest.raises(UsageError):
                await wrong

    async def test_values_never_become_sql(self, pool: SqlPool):
        """Hostile strings come back as they went in."""
        for name in ("x'; DROP TABLE item; --", "\\", "\\'", '"', "%s", "%%", ":id", "\0", "\n\r\x1a", "é🎈"):
            async with pool.get_client() as client:
                transaction = client.begin()

                async with transaction:
                    await client.insert(ITEM, name=name)
                    assert await client.count(select(ITEM).where(ITEM.c.name == name)) == 1
                    assert (await client.find("SELECT name FROM item WHERE name = :n", n=name)).name == name
                    await transaction.rollback()

    async def test_prepared_statements_take_new_values_each_time(self, pool: SqlPool):
        """A handle made before the first connection serves selects, inserts and updates."""
        by_id = pool.prepare(select(ITEM.c.name).where(ITEM.c.id == bindparam("id")))
        add = pool.prepare(insert(ITEM))
        change = pool.prepare(update(ITEM).where(ITEM.c.name == bindparam("who")))
        plain = pool.prepare("SELECT price FROM item WHERE name = :name")
        listed = pool.prepare(select(ITEM.c.id).where(ITEM.c.id.in_(bindparam("ids", expanding=True))))
        assert "SELECT" in repr(by_id)
        assert pool.prepare(by_id) is by_id
        assert [(await pool.select(by_id, id=n))[0].name for n in (1, 2, 3)] == ["n1", "n2", "n3"]
        assert await pool.insert(add, name="a") == 4
        assert await pool.insert(add, name="b", price=77) == 5
        assert await pool.insert(add, name="c") == 6
        assert await pool.update(change, who="a", price=8) == 1
        assert (await pool.find(plain, name="a")).price == 8
        assert (await pool.find(plain, name="b")).price == 77
        assert (await pool.find(plain, name="c")).price == 5
        assert len(await pool.select(listed, ids=[1, 2, 9])) == 2
        assert len(await pool.select(listed, ids=[1])) == 1
        assert (
            await pool.delete(
                pool.prepare(delete(ITEM).where(ITEM.c.id == bindparam("id"))), [{"id": 4}, {"id": 5}]
            )
            == 2
        )
        assert "SELECT" in repr(by_id)

    async def test_unsupported_constructs_raise_and_write_nothing(self, pool: SqlPool):
        """What this client cannot run is an error that says so; no NULL is ever written silently."""

        class Odd(ColumnElement[int]):
            inherit_cache = True
            __visit_name__ = "odd"

        for wrong in (
            select(Odd()),
            insert(ITEM).values(nope=1),
        ):
            with pytest.raises(UnsupportedStatement):
                await pool.execute(wrong)

        with pytest.raises(UnsupportedStatement):
            await pool.execute(select(ITEM).where(ITEM.c.id.in_([1])), [{"a": 1}, {"a": 2}])

        with pytest.raises((UnsupportedStatement, QueryError)):
            await pool.insert(ITEM, name=object())

        assert await pool.count(ITEM) == 3

    async def test_a_table_that_changes_is_followed(self, pool: SqlPool):
        """After an ALTER TABLE the same statement returns the new columns under their names."""
        query = pool.prepare("SELECT * FROM item WHERE id = :id")

        async with pool.get_client() as client:
            for _ in range(12):
                assert (await client.find(query, id=1))._asdict() == {"id": 1, "name": "n1", "price": 1}

        await pool.execute("ALTER TABLE item ADD COLUMN extra INTEGER DEFAULT 5")

        for _ in range(2):
            assert (await pool.find(query, id=1)).extra == 5
            assert [row.extra for row in await pool.select(query, id=2)] == [5]

    async def test_statements_are_compiled_once(self, pool: SqlPool):
        """Equal statements share a plan, and the cache is bounded."""
        compiler = pool.compiler
        kept = len(compiler)

        for n in range(50):
            await pool.select(select(ITEM).where(ITEM.c.id == n, ITEM.c.name.in_([str(n)] * (n % 5 + 1))))

        assert len(compiler) == kept + 1
        compiler._size = 10

        for n in range(30):
            await pool.select(f"SELECT {n}")

        await pool.select("SELECT 1")
        assert len(compiler) < 60


class TestErrors:
    """Errors by their kind."""

    async def test_errors_tell_their_kind_and_hide_values(self, pool: SqlPool):
        """A broken rule, a bad statement: each its own error, with the number and without the values."""
        with pytest.raises(IntegrityViolation) as caught:
            await pool.insert(ITEM, name="n1")

        assert caught.value.errno
        assert caught.value.__cause__ is not None

        with pytest.raises(QueryError) as bad:
            await pool.select("SELECT * FROM nowhere WHERE a = :secret", secret="hunter2")

        assert "hunter2" not in repr(bad.value.context)
        assert bad.value.errno

        async with pool.get_client() as client:
            with pytest.raises(QueryError):
                _ = [row async for row in client.iterate("SELECT nonsense FROM item")]

            assert await client.count(ITEM) == 3

    async def test_a_client_is_dead_after_its_block(self, pool: SqlPool):
        """A client used outside of its block raises an error instead of using another's connection."""
        async with pool.get_client() as client:
            with pytest.raises(UsageError, match="begun before"):
                async with pool.get_client(alone=True) as other:
                    await other.__aenter__()

        for use in (client.select("SELECT 1"), client.insert(ITEM, name="x")):
            with pytest.raises(UsageError, match="outside of its block"):
                await use

        with pytest.raises(UsageError, match="outside of its block"):
            _ = client.raw

        with pytest.raises(UsageError):
            await pool.get_client().select("SELECT 1")

    async def test_a_statement_cut_short_costs_the_connection_only(self, pool: SqlPool):
        """After a cancelled statement the client says so, and the next one gets a fresh connection."""
        slow = "SELECT SLEEP(5)" if isinstance(pool, MysqlPool) else _ENDLESS

        async with pool.get_client() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.select(slow)

            with pytest.raises(UnavailableError, match="cut short"):
                await client.select("SELECT 1")

        assert await pool.count(ITEM) == 3

    async def test_two_tasks_on_one_client_are_refused_or_take_turns(self, pool: SqlPool):
        """Without share() simultaneous use is an error, with it the tasks wait for each other."""
        async with pool.get_client() as client:
            results: list[Any] = await asyncio.gather(
                client.select("SELECT 1 AS a"), client.select("SELECT 2 AS a"), return_exceptions=True
            )
            first, second = results
            assert isinstance(second, ConnectionBusy)
            assert "two tasks use one connection" in str(second)
            assert [tuple(row) for row in first] == [(1,)]
            shared = client.share()
            assert shared is client.share()
            answers = await asyncio.gather(*(shared.find("SELECT :n AS a", n=n) for n in range(20)))
            assert [row.a for row in answers] == list(range(20))
            await asyncio.gather(*(shared.insert_many(ITEM, [{"name": f"s{n}"}]) for n in range(1)))

    async def test_before_the_start_and_after_the_close(self, mysql_url: str, tmp_path: Path):
        """A pool that is not open says so."""
        for backend in BACKENDS:
            pool = make(backend, mysql_url, tmp_path)

            with pytest.raises(NotReadyError, match="not started"):
                await pool.select("SELECT 1")

            with pytest.raises(NotReadyError):
                _ = pool.compiler

            async with pool:
                await pool.select("SELECT 1")

            with pytest.raises(ClosedError):
                await pool.select("SELECT 1")

            await pool.close()


_ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n"


class TestWatching:
    """What is logged."""

    async def test_slow_queries_and_echo_show_statements_without_values(
        self, mysql_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        """A slow statement is logged with its time, every one with echo; values never are."""
        for backend in BACKENDS:
            caplog.clear()

            async with make(backend, mysql_url, tmp_path, slow_query=0.0, echo=True) as pool:
                with caplog.at_level(logging.INFO, logger="ws_pool.sql"):
                    await pool.find("SELECT :word AS a", word="hunter2")

            assert "slow query" in caplog.text
            assert "ms: SELECT" in caplog.text
            assert "hunter2" not in caplog.text


class TestRows:
    """Rows by themselves."""

    def test_a_class_is_made_whole_whenever_the_collector_runs(self):
        """The getters of a class outlive what they were taken from."""
        thresholds = gc.get_threshold()
        gc.set_threshold(1)

        try:
            for n in range(50):
                row = row_class((f"first{n}", f"second{n}"))((1, 2))
                assert (getattr(row, f"first{n}"), getattr(row, f"second{n}")) == (1, 2)
        finally:
            gc.set_threshold(*thresholds)

    async def test_rows_are_read_by_attribute_key_and_index(self, pool: SqlPool):
        """A row is a tuple with names; it can be unpacked, compared, copied and pickled."""
        row = await pool.find(select(ITEM).where(ITEM.c.id == 1))
        assert isinstance(row, Row)
        assert (row.id, row["name"], row[2], row[-1], row[0:2]) == (1, "n1", 1, 1, (1, "n1"))
        plain: Any = (1, "n1", 1)
        assert row == plain
        assert row._asdict() == {"id": 1, "name": "n1", "price": 1}
        assert row.keys() == ("id", "name", "price")
        assert (row.get("price"), row.get("nope", 7)) == (1, 7)
        identifier, name, _ = row
        assert (identifier, name) == (1, "n1")
        assert pickle.loads(pickle.dumps(row)) == copy.deepcopy(row) == row
        assert pickle.loads(pickle.dumps(row)).name == "n1"
        assert repr(row) == "Row(id=1, name='n1', price=1)"
        assert hash(row) == hash((1, "n1", 1))

        with pytest.raises(AttributeError, match="no column 'nope'; it has id, name, price"):
            _ = row.nope

        with pytest.raises(KeyError):
            _ = row["nope"]

        with pytest.raises(AttributeError):
            row.name = "x"  # type: ignore[attr-defined]

    async def test_strange_names_are_read_by_key_or_index(self, pool: SqlPool):
        """Names of methods, private names and names that occur twice."""
        row = await pool.find(
            text("SELECT 1 AS count, 2 AS _x, 3 AS `a b`, 4 AS twice, 5 AS twice, 6 AS `keys`")
        )
        assert (row.count, row["count"], row["_x"], row["a b"], row[3], row[4], row.keys) == (
            1,
            1,
            2,
            3,
            4,
            5,
            6,
        )

        with pytest.raises(UsageError, match="several columns 'twice'"):
            _ = row["twice"]

        assert await pool.find(select(func.count().label("index")).select_from(ITEM)) == (3,)
