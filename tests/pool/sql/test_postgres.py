"""PostgreSQL: its transactions, ids, errors, types and sessions over one pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import ipaddress
import uuid
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import (
    CITEXT,
    HSTORE,
    INET,
    INT4MULTIRANGE,
    INT4RANGE,
    INTERVAL,
    JSONB,
    TSTZRANGE,
    UUID,
    Range,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.pool.sql._postgres import ITEM, over
from tests.servers import StartServer
from tools.servers import PostgresServer
from ws_pool import PostgresPool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import (
    ConnectionBusy,
    IntegrityViolation,
    QueryError,
    QueryTimeout,
    TransactionConflict,
    UnavailableError,
    UnsupportedStatement,
)


async def active(pool: SqlPool, pattern: str) -> int:
    """Count the statements like a pattern that the server runs now, but for this one."""
    found = await pool.find(
        "SELECT count(*) AS n FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE :pattern AND pid <> pg_backend_pid()",
        pattern=pattern,
    )
    return int(found.n)


class TestTransactions:
    """Transactions that cannot lie."""

    async def test_commit_of_a_failed_transaction_is_an_error(self, pool: PostgresPool) -> None:
        """The server answers such a COMMIT with ROLLBACK; the block raises, and nothing was kept."""
        with pytest.raises(QueryError, match="COMMIT was a ROLLBACK") as caught:
            async with pool.atomic() as client:
                await client.insert(ITEM, name="kept?")

                with pytest.raises(IntegrityViolation):
                    await client.insert(ITEM, name="n1")

        assert caught.value.context["sqlstate"] == "25P02"
        assert await pool.count(select(ITEM).where(ITEM.c.name == "kept?")) == 0

    async def test_an_inner_block_saves_the_outer_one(self, pool: PostgresPool) -> None:
        """An error that ends an inner block leaves the outer one whole."""
        async with pool.atomic() as client:
            await client.insert(ITEM, name="kept")

            with suppress(IntegrityViolation):
                async with pool.atomic():
                    await client.insert(ITEM, name="n1")

        assert await pool.count(select(ITEM).where(ITEM.c.name == "kept")) == 1

    @pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
    async def test_isolation_asked_for_is_isolation_had(self, pool: PostgresPool, level: str) -> None:
        """The server shows the isolation inside of the block, and its default afterwards."""
        async with pool.get_client() as client:
            async with client.begin(isolation=level):
                assert (await client.find("SHOW transaction_isolation", row_type=tuple))[0] == level.lower()

            async with client.begin():
                assert await client.find("SHOW transaction_isolation", row_type=tuple) == ("read committed",)

    async def test_read_only(self, pool: PostgresPool) -> None:
        """The server refuses changes in a block that only reads."""
        with pytest.raises(QueryError, match="25006"):
            async with pool.atomic(read_only=True) as client:
                await client.execute("SELECT setval('item_id_seq', 100)")

    async def test_serializable_transfers_keep_the_sum(self, pool: PostgresPool) -> None:
        """50 concurrent transfers at SERIALIZABLE, with retries, lose and make nothing."""

        @pool.atomic(isolation="SERIALIZABLE", retry_deadlocks=100)
        async def transfer(source: int, target: int) -> None:
            async with pool.get_client() as client:
                have = (await client.select(select(ITEM.c.stock).where(ITEM.c.id == source)))[0].stock
                had = (await client.select(select(ITEM.c.stock).where(ITEM.c.id == target)))[0].stock
                await client.update(ITEM.update().where(ITEM.c.id == source).values(stock=have - 1))
                await client.update(ITEM.update().where(ITEM.c.id == target).values(stock=had + 1))

        await asyncio.gather(*(transfer(n % 3 + 1, (n + 1) % 3 + 1) for n in range(50)))

        assert (await pool.find(select(func.sum(ITEM.c.stock)), row_type=tuple))[0] == 300

    async def test_transfers_without_isolation_do_not(self, pool: PostgresPool) -> None:
        """The broken twin, at READ COMMITTED, loses updates."""
        ready = asyncio.Barrier(2)

        async def take() -> None:
            async with pool.atomic() as client:
                have = (await client.select(select(ITEM.c.stock).where(ITEM.c.id == 1)))[0].stock
                await ready.wait()
                await client.update(ITEM.update().where(ITEM.c.id == 1).values(stock=have - 1))

        await asyncio.gather(take(), take())
        assert (await pool.select(select(ITEM.c.stock).where(ITEM.c.id == 1)))[0].stock == 99

    async def test_a_deadlock_is_a_conflict(self, pool: PostgresPool) -> None:
        """One of two that wait for each other is rolled back with TransactionConflict."""
        ready = asyncio.Barrier(2)

        async def both(first: int, second: int) -> None:
            async with pool.atomic() as client:
                await client.execute(ITEM.update().where(ITEM.c.id == first).values(stock=1))
                await ready.wait()
                await client.execute(ITEM.update().where(ITEM.c.id == second).values(stock=1))

        outcomes = await asyncio.gather(both(1, 2), both(2, 1), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome] == [TransactionConflict]


class TestIds:
    """Ids come by RETURNING."""

    async def test_insert(self, pool: PostgresPool) -> None:
        """A table's id comes by itself; in text the statement returns it, or insert() refuses."""
        assert await pool.insert(ITEM, name="a") == 4
        assert await pool.insert("INSERT INTO item (name) VALUES (:n) RETURNING id", n="b") == 5
        assert await pool.insert("INSERT INTO item (name) VALUES ($1) RETURNING id", "c") == 6
        assert await pool.insert("INSERT INTO item (name) VALUES (:n)", n="d") == 0

    async def test_conflicts(self, pool: PostgresPool) -> None:
        """An INSERT that inserted nothing has no id, and counts no row."""
        statement = upsert(ITEM).values(name="n1").on_conflict_do_nothing()
        result = await pool.execute(statement)

        assert (result.rowcount, result.last_id) == (0, 0)
        assert await pool.insert(statement) == 0
        assert await pool.insert_many(statement, [{"name": "n1"}, {"name": "new"}]) == 1

    async def test_many_with_returning(self, pool: PostgresPool) -> None:
        """All ids come, in the order of the rows."""
        rows = [{"name": f"m{n}"} for n in range(20)]
        result = await pool.execute(insert(ITEM).returning(ITEM.c.id, ITEM.c.name), rows)

        assert [row.name for row in result.rows] == [row["name"] for row in rows]
        assert [row.id for row in result.rows] == sorted(row.id for row in result.rows)


class TestErrors:
    """Errors carry the server's SQLSTATE."""

    @pytest.mark.parametrize(
        ("sql", "kind", "state"),
        [
            ("SELECT 1/0", QueryError, "22012"),
            ("SELECT * FROM nowhere", QueryError, "42P01"),
            ("INSERT INTO item (name) VALUES ('n1')", IntegrityViolation, "23505"),
            ("INSERT INTO item (name) VALUES (NULL)", IntegrityViolation, "23502"),
            ("SELECT pg_terminate_backend(pg_backend_pid())", UnavailableError, "08003"),
        ],
    )
    async def test_sqlstate(
        self, pool: PostgresPool, driver: str, sql: str, kind: type[Exception], state: str
    ) -> None:
        """The class fits, the state is in the context, and the next user is served."""
        if driver == "psycopg" and state == "08003":
            state = "57P01"  # the server's last word, where asyncpg sees the connection go

        with pytest.raises(kind) as caught:
            await pool.execute(sql)

        assert caught.value.context["sqlstate"] == state  # type: ignore[attr-defined]  # each is a WsError
        assert await pool.count(ITEM) == 3

    async def test_a_value_of_the_wrong_type(self, pool: PostgresPool, driver: str) -> None:
        """What the driver cannot send is a QueryError without the value, and costs no connection."""
        found = (
            r"argument \$1 \(expected str, got object\)$"
            if driver == "asyncpg"
            else "cannot adapt type 'object'"
        )

        with pytest.raises(QueryError, match=found) as caught:
            await pool.execute("SELECT CAST($1 AS text)", object())

        assert "object at" not in str(caught.value)

        assert pool.statistics().opened == 1

    async def test_several_statements(self, pool: PostgresPool) -> None:
        """Two statements in one are refused by the server."""
        with pytest.raises(QueryError, match="42601"):
            await pool.execute("SELECT 1; SELECT 2")

    async def test_two_tasks_on_one_client(self, pool: PostgresPool) -> None:
        """The second is refused, and the first is answered."""
        async with pool.get_client() as client:
            first = asyncio.create_task(client.execute("SELECT pg_sleep(0.2)"))
            await asyncio.sleep(0.05)

            with pytest.raises(ConnectionBusy):
                await client.execute("SELECT 1")

            await first


class TestTypes:
    """Values are those of SQLAlchemy over asyncpg."""

    TYPES = Table(
        "types",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("doc", JSON),
        Column("docb", JSONB),
        Column("tags", ARRAY(String)),
        Column("key", UUID),
        Column("price", Numeric(12, 4)),
        Column("address", INET),
        Column("age", INTERVAL),
        Column("kind", Enum("a", "b", name="kind_of_type")),
        Column("kinds", ARRAY(Enum("a", "b", name="kind_of_type"))),
        Column("span", INT4RANGE),
        Column("while", TSTZRANGE),
        Column("spans", INT4MULTIRANGE),
        Column("pairs", HSTORE),
        Column("folded", CITEXT),
        Column("raw", LargeBinary),
        Column("at", DateTime(timezone=True)),
        Column("grid", ARRAY(Integer, dimensions=2)),
    )
    VALUES: dict[str, Any] = {  # noqa: RUF012 - read only
        "doc": {"a": [1, None, "ä"]},
        "docb": [{"b": 1.5}],
        "tags": ["x", None, "y"],
        "key": uuid.UUID(int=7),
        "price": decimal.Decimal("1.2500"),
        "address": ipaddress.ip_address("10.0.0.1"),
        "age": dt.timedelta(days=1, seconds=5),
        "kind": "b",
        "kinds": ["a", None],
        "span": Range(1, 5),
        "while": Range(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None),
        "spans": [Range(1, 3), Range(5, 9)],
        "pairs": {"k": "v", "n": None},
        "folded": "Abc",
        "raw": b"\x00\xff'\\x",
        "at": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "grid": [[1, 2], [3, 4]],
    }

    async def test_round_trip(self, pool: PostgresPool, driver_url: str) -> None:
        """What goes in comes out, with the types that SQLAlchemy's engine returns; so do NULLs."""
        await pool.execute("CREATE EXTENSION hstore")
        await pool.execute("CREATE EXTENSION citext")
        await pool.create_all(self.TYPES.metadata)
        await pool.insert(self.TYPES, **self.VALUES)
        await pool.insert(self.TYPES, id=2)
        await pool.insert_many(self.TYPES, [{"id": n, **self.VALUES} for n in range(1000, 1300)])
        ours = [tuple(row) for row in await pool.select(select(self.TYPES).order_by(self.TYPES.c.id))]
        engine = create_async_engine(driver_url, poolclass=NullPool)

        async with engine.connect() as connection:
            result = await connection.execute(select(self.TYPES).order_by(self.TYPES.c.id))
            theirs = [tuple(row) for row in result]

        await engine.dispose()
        assert repr(ours) == repr(theirs)
        assert ours[0][1:] == tuple(self.VALUES.values())
        assert ours[1][1:] == (None,) * len(self.VALUES)
        assert {row[1:] == ours[0][1:] for row in ours[2:]} == {True}

    async def test_a_column_that_changes_its_type(self, pool: PostgresPool) -> None:
        """A statement kept prepared is prepared anew after an ALTER TABLE, and has the new columns."""
        assert (await pool.find("SELECT * FROM item WHERE id = 1")).keys() == ("id", "name", "stock")
        await pool.execute("ALTER TABLE item ADD COLUMN more text DEFAULT 'x'")
        assert (await pool.find("SELECT * FROM item WHERE id = 1")).more == "x"


class TestSessions:
    """What one user leaves behind, the next does not find."""

    @pytest.mark.parametrize(
        ("leave", "look", "clean"),
        [
            ("SET statement_timeout = 12345", "SHOW statement_timeout", "0"),
            ("SET search_path = pg_catalog", "SHOW search_path", '"$user", public'),
            ("SELECT set_config('a.b', 'left', false)", "SELECT current_setting('a.b', true)", ""),
            ("CREATE TEMP TABLE mine (n int)", "SELECT to_regclass('pg_temp.mine')::text", None),
            (
                "SELECT pg_advisory_lock(7)",
                "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'",
                "0",
            ),
            ("LISTEN news", "SELECT count(*)::text FROM pg_listening_channels()", "0"),
            ("BEGIN", "SELECT pg_current_xact_id_if_assigned()::text", None),
        ],
    )
    async def test_reset(self, driver_url: str, leave: str, look: str, clean: str | None) -> None:
        """Settings, temporary tables, locks, subscriptions and transactions end with their client's block."""
        async with PostgresPool(driver_url, max_size=1) as pool:
            async with pool.get_client() as client:
                await client.execute(leave)
                await client.execute("SELECT pg_current_xact_id()")  # makes an open transaction visible

            assert await pool.find(look, row_type=tuple) in {(clean,), (clean or None,)}
            assert pool.statistics().opened == 1

    async def test_clean_sessions_are_not_reset(self, driver_url: str) -> None:
        """Plain statements cost no reset; a setting of the options outlives one."""
        async with PostgresPool(driver_url, max_size=1, server_settings={"statement_timeout": "5s"}) as pool:
            async with pool.get_client() as client:
                await client.find("SELECT 1")
                assert client._session.connection.clean  # type: ignore[attr-defined]  # PostgreSQL's
                await client.execute("SET statement_timeout = 1")

            assert await pool.find("SHOW statement_timeout", row_type=tuple) == ("5s",)


class TestIteration:
    """Rows as they come, by a cursor on the server."""

    async def test_left_early(self, pool: PostgresPool) -> None:
        """After a break the client is free, in no transaction, and what follows is kept."""
        async with pool.get_client() as client:
            async for _ in client.iterate("SELECT generate_series(1, 100000)", size=10):
                break

            assert not client.in_transaction
            await client.insert(ITEM, name="after")

        assert await pool.count(ITEM) == 4

    async def test_left_early_inside_a_transaction(self, pool: PostgresPool) -> None:
        """The transaction goes on."""
        async with pool.atomic() as client:
            async for _ in client.iterate("SELECT generate_series(1, 100000)", size=10):
                break

            await client.insert(ITEM, name="after")

        assert await pool.count(ITEM) == 4

    async def test_an_error_in_mid_stream(self, pool: PostgresPool) -> None:
        """It is raised, the client is usable, and no transaction is left."""
        async with pool.get_client() as client:
            with pytest.raises(QueryError, match="22012"):
                async for _ in client.iterate("SELECT 1 / (50 - n) FROM generate_series(1, 100) n", size=10):
                    pass

            assert not client.in_transaction
            await client.insert(ITEM, name="after")

        assert await pool.count(ITEM) == 4

    async def test_a_statement_in_mid_stream(self, pool: PostgresPool) -> None:
        """It is refused, as on every database."""
        async with pool.get_client() as client:
            rows = client.iterate("SELECT generate_series(1, 100)", size=10)
            await anext(rows)

            with pytest.raises(ConnectionBusy):
                await client.insert(ITEM, name="x")

            await rows.aclose()
            await client.insert(ITEM, name="x")


class TestCancellation:
    """A statement whose caller has gone ends on the server."""

    async def test_twenty_of_twenty(self, pool: PostgresPool, driver_url: str) -> None:
        """Cancelled statements are stopped on the server, never another's; their connections are kept."""
        async with PostgresPool(driver_url, max_size=21) as users:
            other = asyncio.create_task(users.find("SELECT pg_sleep(2), 'other' AS mine"))
            tasks = [asyncio.create_task(users.execute("SELECT pg_sleep(60)")) for _ in range(20)]

            while await active(pool, "SELECT pg_sleep(60)%") < 20:
                await asyncio.sleep(0.01)

            for task in tasks:
                task.cancel()

            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert (await other).mine == "other"

            while await active(pool, "SELECT pg_sleep(60)%"):
                await asyncio.sleep(0.01)

            while users.statistics().leased or users.statistics().idle < 21:
                await asyncio.sleep(0.01)

            assert users.statistics().closed == 0

    async def test_query_timeout(self, driver_url: str) -> None:
        """A statement over the pool's limit raises, and is stopped on the server."""
        async with PostgresPool(driver_url, query_timeout=1.5, max_size=2) as pool:
            with pytest.raises(QueryTimeout):
                await pool.execute("SELECT pg_sleep(30)")

            while await active(pool, "SELECT pg_sleep(30)%"):
                await asyncio.sleep(0.01)

    async def test_the_servers_own_timeout(self, driver_url: str) -> None:
        """`statement_timeout` raises the same error."""
        async with PostgresPool(driver_url, server_settings={"statement_timeout": "100ms"}) as pool:
            with pytest.raises(QueryTimeout, match="57014"):
                await pool.execute("SELECT pg_sleep(30)")

    async def test_inside_a_transaction(self, pool: PostgresPool) -> None:
        """A cancelled block leaves nothing, and its connection serves the next."""

        async def change() -> None:
            async with pool.atomic() as client:
                await client.insert(ITEM, name="half")
                await client.execute("SELECT pg_sleep(60)")

        task = asyncio.create_task(change())

        while not await active(pool, "SELECT pg_sleep(60)%"):
            await asyncio.sleep(0.01)

        task.cancel()
        await asyncio.wait({task})
        assert await pool.count(ITEM) == 3


class TestFaults:
    """Servers that end, stand still, or refuse."""

    async def test_killed_and_restarted(self, start_server: StartServer, driver: str) -> None:
        """After SIGKILL and restart of the server the pool serves again, with no call to make."""
        server = await asyncio.to_thread(start_server, PostgresServer)

        async with PostgresPool(over(driver, server.url), max_size=3) as pool:
            assert await pool.find("SELECT 1 AS one")
            await asyncio.to_thread(server.kill)

            with pytest.raises(UnavailableError):
                await pool.find("SELECT 1 AS one")

            await asyncio.to_thread(server.start)

            async with asyncio.timeout(30):
                while True:
                    with suppress(UnavailableError):
                        await pool.find("SELECT 1 AS one")
                        break

                    await asyncio.sleep(0.05)

    async def test_one_that_stands_still(self, start_server: StartServer, driver: str) -> None:
        """A statement on a paused server ends at its timeout, and the pool serves when it goes on."""
        server = await asyncio.to_thread(start_server, PostgresServer)

        async with PostgresPool(over(driver, server.url), max_size=2, query_timeout=0.5) as pool:
            await pool.find("SELECT 1 AS one")
            await asyncio.to_thread(server.pause)

            with pytest.raises(QueryTimeout):
                await pool.find("SELECT 1 AS one")

            await asyncio.to_thread(server.resume)

            async with asyncio.timeout(30):
                while True:
                    with suppress(UnavailableError, QueryTimeout):
                        assert (await pool.find("SELECT 1 AS one")).one == 1
                        break

    async def test_idle_in_transaction(self, driver_url: str) -> None:
        """The server ends a session that idles in a transaction; the block reports it, the next works."""
        settings = {"idle_in_transaction_session_timeout": "100ms"}

        async with PostgresPool(driver_url, max_size=1, server_settings=settings) as pool:
            with pytest.raises(UnavailableError):
                async with pool.atomic() as client:
                    await client.find("SELECT 1")
                    await asyncio.sleep(0.5)
                    await client.find("SELECT 1")

            assert (await pool.find("SELECT 1 AS one")).one == 1

    async def test_a_wrong_database(self, postgres_server: PostgresServer, driver: str) -> None:
        """The server's refusal is in the error of the start."""
        pool = PostgresPool(over(driver, postgres_server.database_url("nowhere")))

        with pytest.raises(UnavailableError, match='database "nowhere" does not exist'):
            await pool.start()


async def test_an_id_that_is_not_returned(pool: PostgresPool) -> None:
    """insert() of a table refuses a RETURNING without the id, before it runs; execute() takes it."""
    with pytest.raises(UnsupportedStatement):
        await pool.insert(insert(ITEM).returning(ITEM.c.stock), name="x")

    assert await pool.count(ITEM) == 3
    assert (await pool.execute(insert(ITEM).values(name="x").returning(ITEM.c.stock))).rows[0].stock == 5
