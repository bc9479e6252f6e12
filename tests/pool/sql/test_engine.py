"""What SQL clients, engines and options do in rare cases."""

from __future__ import annotations

import asyncio
import enum
import importlib.util
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    bindparam,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.engine import PooledDriverConnection
from ws_pool.errors import (
    ConfigError,
    ConnectionBusy,
    MissingExtraError,
    QueryError,
    QueryTimeout,
    UsageError,
)

METADATA = MetaData()
GIVEN = Table("given", METADATA, Column("n", Integer))
NUMBERED = Table(
    "numbered",
    METADATA,
    Column("id", Integer, primary_key=True, default=select(func.coalesce(func.max(GIVEN.c.n), 0) + 1)),
    Column("n", Integer),
)


class Colour(enum.IntEnum):
    """A number with a name."""

    RED = 3


class TestSqlite:
    """A file, or a database in memory."""

    async def test_two_statements_in_one_text(self):
        """Only one statement runs at a time, and neither of two is run."""
        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.create_all(METADATA)

            with pytest.raises((QueryError, UsageError), match="one statement at a time"):
                await pool.execute("INSERT INTO given VALUES (1); INSERT INTO given VALUES (2)")

            assert await pool.count(GIVEN) == 0

    async def test_rows_that_an_insert_returns(self):
        """A key that the server computes first is found by `select` and by `iterate`."""
        async with SqlitePool("sqlite:///:memory:") as pool, pool.get_client() as client:
            await client.create_all(METADATA)
            assert await client.select(insert(NUMBERED).values(n=1).returning(NUMBERED.c.id)) == [(1,)]
            await client.insert(GIVEN, n=6)
            adding = insert(NUMBERED).values(n=2).returning(NUMBERED.c.id)
            assert [row.id async for row in client.iterate(adding)] == [7]

    async def test_a_prepared_insert_serves_two_pools(self):
        """A handle is compiled for the pool that runs it."""
        adding = SqlitePool("sqlite:///:memory:").prepare(insert(GIVEN))

        for _ in range(2):
            async with SqlitePool("sqlite:///:memory:") as pool:
                await pool.create_all(METADATA)
                await pool.insert(adding, n=1)
                await pool.insert(adding, n=2)
                assert await pool.select(select(GIVEN)) == [(1,), (2,)]

    async def test_many_rows_are_all_or_none(self, tmp_path: Path):
        """A row that is refused takes those before it back."""
        async with SqlitePool(path=str(tmp_path / "many.db")) as pool:
            await pool.create_all(METADATA)

            with pytest.raises(QueryError, match="UNIQUE"):
                await pool.execute(insert(NUMBERED), [{"id": 1, "n": 1}, {"id": 1, "n": 2}])

            assert await pool.count(NUMBERED) == 0


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
class TestMysql:
    """Both drivers."""

    async def test_a_number_with_a_name(self, driver: str, mysql_url: str):
        """A member of an IntEnum goes as its number."""
        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1)) as pool:
            assert await pool.select("SELECT :n + 1", n=Colour.RED) == [(4,)]

    async def test_all_uses_of_a_busy_connection(self, driver: str, mysql_url: str):
        """While rows come neither a prepared statement nor another iteration is begun."""
        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1)) as pool:
            prepared = pool.prepare(select(literal(1).label("one")).where(bindparam("n", 1) == 1))
            many = "SELECT 1 UNION SELECT 2 UNION SELECT 3"

            async with pool.get_client() as client:
                assert await client.select(prepared, n=1) == [(1,)]

                async with aclosing(client.iterate(many, size=1)) as rows:
                    async for _ in rows:
                        with pytest.raises(ConnectionBusy):
                            await client.select(prepared, n=1)

                        with pytest.raises(ConnectionBusy):
                            await anext(client.iterate(many))


class TestLimits:
    """``query_timeout``."""

    async def test_a_time_limit_of_somebody_else(self):
        """Only the pool's own limit is raised as `QueryTimeout`."""

        async def late() -> None:
            raise TimeoutError("the driver's own")

        pool = SqlitePool("sqlite:///:memory:", query_timeout=60)

        with pytest.raises(TimeoutError, match="the driver's own") as caught:
            await pool._context.limited(late(), "SELECT 1")

        assert not isinstance(caught.value, QueryTimeout)


class TestEngine:
    """`engine()`, and the connections that it takes."""

    def test_without_greenlet(self, monkeypatch: pytest.MonkeyPatch):
        """SQLAlchemy's asyncio needs greenlet; the error says how to install it."""
        pool, find = SqlitePool("sqlite:///:memory:"), importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "greenlet" else find(name)
        )

        with pytest.raises(MissingExtraError, match=r"sqlalchemy\[asyncio\]"):
            pool.engine()

    async def test_a_connection_is_given_back_once(self):
        """Closing a pooled connection twice releases it once."""
        given: list[bool] = []
        pooled = PooledDriverConnection(object(), given.append)
        pooled.close()
        await pooled.ensure_closed()
        assert given == [True]


class TestOptions:
    """Options are checked before anything is opened."""

    def test_a_certificate_that_is_not_there(self, tmp_path: Path):
        """The error names the option."""
        files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}

        with pytest.raises(ConfigError, match=r"ssl: the certificates cannot be loaded"):
            MysqlPool("mysql://root@localhost/test", ssl=files)


class TestSessions:
    """SQLAlchemy's sessions over ``engine()``."""

    @pytest.mark.parametrize("url", ["sqlite:///{}/cancelled.db", "sqlite:///:memory:"])
    async def test_a_cancelled_session_harms_none_after_it(self, url: str, tmp_path: Path):
        """One in four is cancelled, at another moment each time; the others never fail."""
        async with SqlitePool(url.format(tmp_path)) as pool:
            await pool.create_all(METADATA)
            await pool.insert_many(GIVEN, [{"n": n} for n in range(1000)])
            engine = pool.engine()

            async def use() -> None:
                async with AsyncSession(engine) as session:
                    assert len((await session.execute(select(GIVEN))).all()) == 1000
                    rows = await session.stream(select(GIVEN))

                    async for _ in rows:
                        break

                    await session.execute(update(GIVEN).where(GIVEN.c.n == 1).values(n=1))
                    await session.commit()

            for number in range(120):
                task = asyncio.create_task(use())

                if number % 4 == 0:
                    await asyncio.sleep(0.0005 * (number % 11))
                    task.cancel()
                    await asyncio.wait({task})
                else:
                    await task

            assert await pool.count(GIVEN) == 1000
            assert pool.writer_statistics().leased == 0

    async def test_a_cancelled_session_with_a_long_query(self, tmp_path: Path):
        """What it has left running is interrupted: the next session does not wait for it."""
        long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

        async with SqlitePool(f"sqlite:///{tmp_path / 'long.db'}") as pool:
            engine = pool.engine()

            async def use() -> None:
                async with AsyncSession(engine) as session:
                    await session.execute(text(long))

            task = asyncio.create_task(use())
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait({task})

            async with asyncio.timeout(5), AsyncSession(engine) as session:
                assert (await session.execute(text("SELECT 1"))).scalar() == 1

    @pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
    async def test_bytes(self, driver: str, mysql_url: str):
        """An engine writes bytes, whatever version of PyMySQL is below it."""
        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1)) as pool:
            await pool.execute("CREATE TABLE held (b BLOB)")
            value = bytes(range(256))

            async with pool.engine().begin() as connection:
                await connection.execute(text("INSERT INTO held VALUES (:b)"), {"b": value})
                await connection.execute(text("INSERT INTO held VALUES (:b)"), [{"b": b"'"}, {"b": b""}])

            assert [row.b for row in await pool.select("SELECT b FROM held")] == [value, b"'", b""]
