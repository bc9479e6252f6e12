"""What one user leaves in a session never reaches the next; and all else that is MySQL's own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, literal_column, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.servers import StartServer
from tools.servers import MariaDBServer
from ws_pool import MysqlPool
from ws_pool._sql.session import Session
from ws_pool.errors import AcquireTimeout, QueryError, UnavailableError, UsageError

DRIVERS = ("aiomysql", "asyncmy")
TABLE = Table("word", MetaData(), Column("id", Integer, primary_key=True), Column("word", String(20)))


@pytest.fixture(params=DRIVERS)
async def pool(request: pytest.FixtureRequest, mysql_url: str) -> AsyncIterator[MysqlPool]:
    """A pool of one connection, which every user therefore gets."""
    url = mysql_url.replace("mysql://", f"mysql+{request.param}://", 1)

    async with MysqlPool(url, max_size=1, sql_mode="TRADITIONAL", init_command="SET @word = 'hello'") as pool:
        await pool.create_all(TABLE.metadata)
        yield pool


async def resets(pool: MysqlPool) -> int:
    """Count the resets that the server has seen."""
    row = await pool.find("SHOW GLOBAL STATUS LIKE 'Com_reset_connection'") or ("", 0)
    return int(row[1])


class TestReset:
    """The session that the next user finds."""

    LEFTOVERS = (
        "SET @mine = 1",
        "SELECT @mine := 5",
        "SET time_zone = '+05:00'",
        "SET SESSION sql_mode = ''",
        "SET NAMES latin1",
        "SET autocommit = 0",
        "CREATE TEMPORARY TABLE mine (a INT)",
        "SELECT GET_LOCK('mine', 1)",
        "LOCK TABLES word READ",
        "USE information_schema",
        "BEGIN",
        "PREPARE mine FROM 'SELECT 1'",
    )
    STATE = """
        SELECT @mine, @@time_zone, @@sql_mode, @@character_set_client, @@autocommit, IS_FREE_LOCK('mine'),
        DATABASE(), @@in_transaction, @word
    """

    SLY = (  # what passes for a plain statement at first sight
        "SELECT @mine := 5",
        "SELECT GET_LOCK('mine', 1)",
        "SELECT get_lock/**/('mine', 1)",
        "BEGIN NOT ATOMIC SET @mine = 5; END",
        "SELECT 1 /*M!, @mine := 5 */",
        "SELECT 1 /*!, @mine := 5 */",
        "SELECT f$abs(7)",
        "SELECT éabs(7)",
        "SELECT `abs`(7)",
        "SELECT {db}.abs(7)",
    )
    SEVERAL = (
        "START TRANSACTION; SET @mine = 5; COMMIT",
        "ROLLBACK; SET time_zone = '+05:00'",
        "SELECT 1; SET @mine = 5",
    )

    @pytest.mark.parametrize("how", ["execute", "iterate", "insert_many"])
    async def test_what_looks_plain_leaves_nothing_either(self, pool: MysqlPool, how: str):
        """Functions of every spelling, code in comments, blocks: whatever runs them, the session is reset."""
        before = await pool.select(self.STATE)
        database = (await pool.find("SELECT DATABASE() AS d")).d

        for name in ("f$abs", "éabs", "`abs`"):
            await pool.execute(
                f"CREATE FUNCTION {name} (a INT) RETURNS INT BEGIN SET @mine = a; RETURN a; END"
            )

        for sly in self.SLY:
            sql = sly.format(db=database)

            async with pool.get_client() as client:
                if how == "execute":
                    await client.execute(sql)
                elif how == "iterate" and not sql.startswith("BEGIN"):
                    assert len([row async for row in client.iterate(sql)]) == 1
                elif how == "insert_many" and "1 /*" not in sql and not sql.startswith("BEGIN"):
                    value: Any = literal_column(f"({sql})")
                    await client.insert_many(insert(TABLE).values(word=value), [{}])

            assert await pool.select(self.STATE) == before, sql

    async def test_a_text_is_one_statement(self, pool: MysqlPool):
        """The server refuses a second statement in a text, before and after a reset."""
        before = await pool.select(self.STATE)

        for several in self.SEVERAL:
            with pytest.raises(QueryError, match="1064"):
                await pool.execute(several)

            assert await pool.select(self.STATE) == before
            await pool.execute("SET @mine = 1")

    async def test_only_an_init_command_may_hold_several(self, mysql_url: str):
        """It does so at the connect and at each reset."""
        async with MysqlPool(mysql_url, max_size=1, init_command="SET @a = 1; SET @b = 2") as pool:
            for _ in range(2):
                opened = pool.statistics().opened
                assert await pool.find("SELECT @a, @b") == (1, 2)
                await pool.execute("SET @a = 5")

                with pytest.raises(QueryError, match="1064"):
                    await pool.execute("SET @a = 5; SET @b = 5")

                assert pool.statistics().opened == opened

    @pytest.mark.parametrize("leftover", LEFTOVERS)
    async def test_nothing_is_left_for_the_next_user(self, pool: MysqlPool, leftover: str):
        """Variables, settings, temporary tables, locks, the default schema and transactions are gone."""
        before = await pool.select(self.STATE)

        async with pool.get_client() as client:
            identity = (await client.find("SELECT CONNECTION_ID() AS n")).n
            await client.execute(leftover)

        async with pool.get_client() as client:
            assert await client.select(self.STATE) == before

            with pytest.raises(QueryError):
                await client.select("SELECT * FROM mine")

            assert (await client.find("SELECT CONNECTION_ID() AS n")).n == identity

    async def test_without_the_reset_it_would_leak(self, pool: MysqlPool, monkeypatch: pytest.MonkeyPatch):
        """The broken twin, which takes every session for clean, leaks the variable."""
        monkeypatch.setattr(pool._pool, "_is_clean", lambda conn: conn.alive)
        await pool.execute("SET @mine = 1")
        assert (await pool.find("SELECT @mine AS n")).n == 1

    async def test_a_clean_session_is_not_reset(self, pool: MysqlPool):
        """Plain statements cost no reset; what uses the raw connection does."""
        await pool.select("SELECT 1")
        lease = await pool._pool.acquire()
        connection = lease.connection
        dirty: list[bool] = []

        for use in (
            lambda c: c.select(select(TABLE)),
            lambda c: c.insert(insert(TABLE).values(word="x")),
            lambda c: c.insert(TABLE, word="it's @not a variable"),
            lambda c: c.find("SELECT COUNT(*) AS n, UPPER('@x') AS u FROM word -- @comment"),
        ):
            connection.dirty = False
            await use(_client_over(pool, connection))
            dirty.append(connection.dirty)

        assert dirty == [False] * 4
        _ = _client_over(pool, connection).raw
        assert connection.dirty
        pool._pool.release(lease)

    async def test_reset_always_resets_even_a_clean_session(self, mysql_url: str):
        """With reset="always" nothing is taken for clean."""
        async with MysqlPool(mysql_url, max_size=1, reset="always") as pool:
            await pool.select("SELECT 1")
            connector = pool._pool.connector
            lease = await pool._pool.acquire()
            assert not connector.is_clean(lease.connection)
            pool._pool.release(lease)
            assert await pool.select("SELECT 1") == [(1,)]

    async def test_an_autocommit_of_false_is_kept(self, mysql_url: str):
        """Sessions without autocommit lose what was not committed, for each user anew."""
        async with MysqlPool(mysql_url, max_size=1, autocommit=False) as pool:
            await pool.create_all(TABLE.metadata)
            await pool.insert(TABLE, word="lost")

            async with pool.get_client() as client, client.begin():
                await client.insert(TABLE, word="kept")

            assert [row.word for row in await pool.select(select(TABLE))] == ["kept"]


def _client_over(pool: MysqlPool, connection: Any) -> Any:
    client = pool.get_client(alone=True)
    lease: Any = SimpleNamespace(connection=connection)
    client._session = Session(pool._context, pool._pool, lease, read_only=False)
    client._compiler = pool.compiler
    return client


class TestReplicas:
    """Reading from copies."""

    async def test_read_only_clients_go_to_healthy_replicas(self, mysql_url: str, start_server: StartServer):
        """Readers take turns among replicas that are up, and fall back to the primary when none is."""
        servers = [start_server(MariaDBServer, config={"server_id": str(n)}) for n in (71, 72)]
        who = "SELECT @@server_id AS n"

        async with MysqlPool(mysql_url, name="shop", replicas=[server.url for server in servers]) as pool:
            primary = (await pool.find(who)).n

            async def ask() -> int:
                async with pool.get_client(read_only=True) as client:
                    return int((await client.find(who)).n)

            assert {await ask() for _ in range(6)} == {71, 72}

            async with pool.get_client(read_only=True) as client:
                with pytest.raises(UsageError, match="only reads, and UPDATE"):
                    await client.update("UPDATE word SET word = 'x'")

            health = await pool.health()
            assert health.ok
            assert list(health.parts) == ["shop/replica0", "shop/replica1"]
            servers[0].kill()
            answers = []

            for _ in range(8):
                try:
                    answers.append(await ask())
                except UnavailableError:
                    continue  # it was running on the one that was killed

            assert answers[-3:] == [72, 72, 72]
            servers[1].kill()

            for _ in range(8):
                try:
                    answers.append(await ask())
                except UnavailableError:
                    continue

            assert answers[-3:] == [primary] * 3
            assert (await pool.find(who)).n == primary
            assert len(pool.replica_statistics()) == 2
            pool.expire()
            assert (await pool.find(who)).n == primary

    async def test_a_replica_that_is_down_keeps_nothing_from_starting(self, mysql_url: str):
        """A pool whose replica is missing starts, and reads from the primary."""
        pool = MysqlPool(mysql_url, replicas=[{"url": "mysql://root@127.0.0.1:1/test"}])

        async with pool, pool.get_client(read_only=True) as client:
            assert await client.select("SELECT 1") == [(1,)]


class Base(DeclarativeBase):
    """The ORM's base."""


class Word(Base):
    """A mapped class over the same table."""

    __tablename__ = "word"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column(String(20))


class TestEngine:
    """SQLAlchemy's own engine over the pool's connections."""

    async def test_orm_sessions_use_the_pool_and_its_limit(self, pool: MysqlPool):
        """A session commits and rolls back, holds a lease of the pool, and releases it."""
        engine = pool.engine()
        sessions = async_sessionmaker(engine, expire_on_commit=False)

        async with sessions() as session:
            session.add(Word(word="one"))
            await session.commit()
            session.add(Word(word="two"))
            await session.flush()
            await session.rollback()
            assert [word.word for word in (await session.scalars(select(Word))).all()] == ["one"]
            assert pool.statistics().leased == 1

            with pytest.raises(AcquireTimeout):
                await pool._pool.acquire(timeout=0.05)

        assert [row.word for row in await pool.select(select(TABLE))] == ["one"]
        assert (await pool.find("SELECT @@autocommit AS a")).a == 1

        async with engine.connect() as connection:
            await connection.execute(text("SET @mine = 3"))
            await connection.invalidate()

        assert (await pool.find("SELECT @mine AS a")).a is None
        assert pool.statistics().leased == 0


class TestCredentials:
    """Users and passwords."""

    async def test_credentials_may_be_callables(self, mysql_url: str):
        """A password that is a callable is asked for with each new connection, also if it is a coroutine."""
        counter = itertools.count()

        async def password() -> str:
            next(counter)
            return ""

        url = mysql_url.replace("root@", "", 1)

        async with MysqlPool(url, user=lambda: "root", password=password, min_size=2, max_size=2) as pool:
            await asyncio.gather(*(pool.select("SELECT SLEEP(0.05)") for _ in range(2)))
            assert next(counter) == 2
            assert "(callable)" in repr(pool)

    async def test_a_wrong_password_is_told_without_showing_it(self, mysql_url: str):
        """The error names the server and the reason, and never the password."""
        pool = MysqlPool(mysql_url.replace("root@", "nobody:hunter2@", 1))

        with pytest.raises(UnavailableError, match="Access denied") as caught:
            await pool.start()

        assert "hunter2" not in str(caught.value) + repr(pool)


class TestResults:
    """Results that are out of the ordinary."""

    async def test_procedures_may_give_several_results(self, pool: MysqlPool):
        """The first result with rows is given; the rest is read, so that the connection stays sound."""
        await pool.execute(
            "CREATE PROCEDURE two() BEGIN SET @a = 1; SELECT 1 AS a; SELECT 2 AS b, 3 AS c; END"
        )
        assert await pool.select("CALL two()") == [(1,)]
        assert await pool.select("SELECT 4") == [(4,)]
        await pool.execute("CREATE PROCEDURE none() BEGIN SET @a = 1; END")
        assert await pool.select("CALL none()") == []

    async def test_values_of_all_sizes_come_through(self, pool: MysqlPool):
        """Values at every width of the protocol's length field, and packets above 16 MB."""
        for size in (0, 250, 251, 65_535, 65_536, 300_000, 16_777_215, 17_000_000):
            if size > 1_000_000 and (await pool.find("SELECT @@max_allowed_packet AS n")).n <= size + 100:
                continue  # test_mysql_servers.py has a server that takes them

            row = await pool.find(f"SELECT REPEAT('x', {size}) AS a, NULL AS b, 'end' AS c")
            assert (len(row.a), row.b, row.c) == (size, None, "end")

        assert (await pool.find("SELECT :text AS a", text="y" * 200_000)).a == "y" * 200_000

    async def test_many_columns_and_rows_come_through(self, pool: MysqlPool):
        """Hundreds of columns, and rows that span many chunks."""
        columns = ", ".join(f"{n} AS c{n}" for n in range(400))
        assert list(await pool.find(f"SELECT {columns}")) == list(range(400))
        rows = await pool.select("SELECT seq, REPEAT('é', 50) AS word FROM seq_1_to_20000")
        assert len(rows) == 20_000
        assert rows[-1] == (20_000, "é" * 50)

    async def test_the_driver_reads_what_our_reader_reads(self, pool: MysqlPool):
        """Every column type returns the same as the driver's own cursor."""
        query = (
            "SELECT 1, -1, 2.5e0, CAST(1.10 AS DECIMAL(5,2)), 'é', CAST('é' AS BINARY), NULL, b'101', "
            "CAST('2024-02-29' AS DATE), CAST('2024-02-29 01:02:03.456' AS DATETIME(3)), "
            "CAST('-12:30:01' AS TIME), YEAR('2024-01-01'), JSON_OBJECT('a', 1), CAST(5 AS UNSIGNED), "
            "18446744073709551615, '', x'00ff', ST_AsText(POINT(1, 2))"
        )

        async with pool.get_client() as client:
            ours = await client.find(query)
            cursor = await client.raw.cursor()
            await cursor.execute(query)
            theirs = await cursor.fetchone()
            await cursor.close()

        assert repr(tuple(ours)) == repr(tuple(theirs))
