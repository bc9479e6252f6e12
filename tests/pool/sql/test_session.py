"""What must not run does not, whatever the verb; users of a shared client keep out of each other's way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, insert, select, text, update

from ws_core.testing import FaultProxy
from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.client import SqlClient
from ws_pool._sql.pool import SqlPool
from ws_pool._sql.session import Session
from ws_pool.errors import (
    QueryTimeout,
    TransactionConflict,
    UnavailableError,
    UnsupportedStatement,
    UsageError,
)

TABLE = Table(
    "guarded", MetaData(), Column("id", Integer, primary_key=True), Column("word", String(20), unique=True)
)
ONE = insert(TABLE).values(word="one")
ROWS = [{"word": "two"}, {"word": "three"}]


async def drain(client: SqlClient, statement: Any) -> None:  # Any: any statement
    """Read an iteration to its end."""
    async for _ in client.iterate(statement):
        pass


Use = Callable[[SqlClient], Awaitable[object]]
WRITES: dict[str, Use] = {
    "execute": lambda c: c.execute(ONE),
    "execute many": lambda c: c.execute(insert(TABLE), ROWS),
    "string": lambda c: c.execute("INSERT INTO guarded (word) VALUES ('x')"),
    "insert": lambda c: c.insert(TABLE, word="x"),
    "insert_many": lambda c: c.insert_many(TABLE, ROWS),
    "update": lambda c: c.update(update(TABLE).values(word="y")),
    "update many": lambda c: c.update(
        update(TABLE).where(TABLE.c.id == bindparam("n")).values(word=bindparam("w")), [{"n": 1, "w": "z"}]
    ),
    "delete": lambda c: c.delete("DELETE FROM guarded"),
    "select": lambda c: c.select("INSERT INTO guarded (word) VALUES ('x') RETURNING id"),
    "iterate": lambda c: drain(c, "INSERT INTO guarded (word) VALUES ('x') RETURNING id"),
}
READS: dict[str, Use] = {
    "select": lambda c: c.select(select(TABLE)),
    "find": lambda c: c.find("SELECT 1"),
    "count": lambda c: c.count(TABLE),
    "iterate": lambda c: drain(c, select(TABLE)),
}


@pytest.fixture(params=["aiomysql", "asyncmy"])
async def mysql(request: pytest.FixtureRequest, mysql_url: str) -> AsyncIterator[MysqlPool]:
    """A pool of two connections, and a table with one row."""
    url = mysql_url.replace("mysql://", f"mysql+{request.param}://", 1)

    async with MysqlPool(url, max_size=2) as pool:
        await pool.create_all(TABLE.metadata)
        await pool.insert(TABLE, word="zero")
        yield pool


@pytest.fixture(params=["mysql", "sqlite"])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool of either kind, and a table with one row."""
    made: SqlPool = (
        MysqlPool(request.getfixturevalue("mysql_url"), max_size=2)
        if request.param == "mysql"
        else SqlitePool(path=str(tmp_path / "guard.db"))
    )

    async with made:
        await made.create_all(TABLE.metadata)
        await made.insert(TABLE, word="zero")
        yield made


class TestDoomed:
    """A transaction that the server has rolled back."""

    @pytest.mark.parametrize("verb", [*WRITES, *(f"read: {name}" for name in READS)])
    async def test_no_verb_runs_outside_of_it(self, mysql: MysqlPool, verb: str):
        """After a deadlock that was caught every verb is refused, and nothing is written in autocommit."""
        use = READS[verb.removeprefix("read: ")] if verb.startswith("read") else WRITES[verb]

        async with mysql.get_client() as client:
            with pytest.raises(TransactionConflict, match="run it again"):
                async with client.begin():
                    with pytest.raises(TransactionConflict, match="1213"):
                        await client.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")

                    await client.connection.run("ROLLBACK", None)  # as the server does

                    with pytest.raises(TransactionConflict, match="run it again"):
                        await use(client)

            assert await client.select("SELECT word FROM guarded") == [("zero",)]

    async def test_without_the_guard_rows_would_stay(self, mysql: MysqlPool, monkeypatch: pytest.MonkeyPatch):
        """The broken twin writes in autocommit, and its rows stay."""
        monkeypatch.setattr(Session, "guard", lambda _self, _plan, connection: connection)

        async with mysql.get_client() as client:
            with pytest.raises(TransactionConflict):
                async with client.begin():
                    with pytest.raises(TransactionConflict, match="1213"):
                        await client.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")

                    await client.connection.run("ROLLBACK", None)
                    await client.insert_many(TABLE, ROWS)

            assert await client.count(TABLE) == 3


class TestReadOnly:
    """A client that only reads."""

    @pytest.mark.parametrize("verb", WRITES)
    async def test_no_verb_writes(self, pool: SqlPool, verb: str):
        """Every verb that would change something is refused before anything is sent."""
        async with pool.get_client(read_only=True) as client:
            with pytest.raises(UsageError, match="only reads"):
                await WRITES[verb](client)

            for read in READS.values():
                await read(client)

        assert await pool.count(TABLE) == 1

    async def test_nothing_is_smuggled_in_behind_a_query(self, pool: SqlPool):
        """A second statement is refused, also behind a WITH or a comment that begins with a tab."""
        async with pool.get_client(read_only=True) as client:
            for sql in (
                "WITH a AS (SELECT 1) SELECT * FROM a; DROP TABLE guarded",
                "SELECT 1 --\t'\n; DELETE FROM guarded -- '",
            ):
                with pytest.raises(UsageError, match="only reads"):
                    await client.select(sql)

        assert await pool.count(TABLE) == 1


class TestParameters:
    """Parameters that a statement does not have, and values that have no form."""

    async def test_a_name_that_the_statement_does_not_have_is_an_error(self, pool: SqlPool):
        """A misspelt column or parameter is never dropped without a word."""
        query = select(TABLE).where(TABLE.c.id == bindparam("id"))

        async with pool.get_client() as client:
            uses: list[Callable[[], Awaitable[object]]] = [
                lambda: client.insert(TABLE, id=50, nope=5),
                lambda: client.insert(insert(TABLE), {"id": 50, "nope": 5}),
                lambda: client.update(update(TABLE), nope=5, word="x"),
                lambda: client.select(query, id=1, nope=5),
                lambda: client.select(pool.prepare(query), id=1, nope=5),
                lambda: client.select("SELECT :a AS a", a=1, nope=5),
                lambda: client.execute(insert(TABLE), [{"id": 50, "nope": 5}]),
                lambda: client.insert_many(TABLE, [{"id": 50, "nope": 5}, {"id": 51, "nope": 5}]),
            ]

            for use in uses:
                with pytest.raises(UsageError, match="has no parameter or column 'nope'; it has: "):
                    await use()

            for change in (insert(TABLE), update(TABLE).where(TABLE.c.id == bindparam("key"))):
                with pytest.raises(UsageError, match=r"it has: id, (key, )?word$"):
                    await client.execute(change, nope=5)

        assert await pool.select(select(TABLE)) == [(1, "zero")]

    async def test_values_without_a_form_cost_no_connection(self, mysql: MysqlPool):
        """What cannot be written is our error, before anything is sent."""
        prepared = mysql.prepare("SELECT :v AS v")
        await mysql.select("SELECT 1")
        opened = mysql.statistics().opened

        for value in ("\udcff", "\ud83d", float("inf"), float("nan"), object(), [object()]):
            with pytest.raises(UnsupportedStatement, match=r"no form in"):
                await mysql.select(prepared, v=value)

            with pytest.raises(UnsupportedStatement, match=r"no form in"):
                await mysql.select("SELECT %s AS v", value)

        with pytest.raises(UnsupportedStatement, match="do not fit"):
            await mysql.select("SELECT DATE_FORMAT(%s, '%z')", "2024-01-01")

        assert await mysql.find("SELECT %s IN %s AS found", b"a", [b"a", b"b"]) == (1,)
        assert await mysql.find("SELECT 1 AS a") == (1,)
        assert mysql.statistics().opened == opened

    async def test_prepared_gives_what_text_gives(self, mysql: MysqlPool):
        """Neither type nor outcome of a query changes when it is prepared after some runs."""
        for sql, value in (
            ("SELECT :v AS v", Decimal(5)),
            ("SELECT :v AS v", Decimal("5.50")),
            ("SELECT :v AS v", 2**64 - 1),
            ("SELECT :v AS v", 2**70),
            ("SELECT id FROM guarded LIMIT :v", -5),
        ):
            query = mysql.prepare(sql)
            seen = []

            async with mysql.get_client() as client:
                for statement in [sql] * 12 + [query]:
                    try:
                        row = await client.find(statement, v=value)
                        seen.append((type(row[0]), row[0]))
                    except UnsupportedStatement:
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is always the same
                        seen.append((type(error), str(error)))

            assert len(set(seen)) == 1, seen


async def test_a_write_of_sqlite_ends_in_time_too(tmp_path: Path):
    """query_timeout holds for a change outside of a transaction, which runs on the writer."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1e9)"

    async with SqlitePool(path=str(tmp_path / "slow.db"), query_timeout=1.5) as pool:
        await pool.create_all(TABLE.metadata)

        with pytest.raises(QueryTimeout):
            await pool.insert(f"{endless} INSERT INTO guarded (id) SELECT max(x) FROM n")

        assert await pool.insert(TABLE, word="after") == 1


class TestCount:
    """Counting what any query would give."""

    async def test_any_query_can_be_counted(self, pool: SqlPool):
        """Strings with comments at their end, prepared ones, text(), and columns of one name."""
        twice = "SELECT a.id, b.id FROM guarded a JOIN guarded b ON a.id = b.id"

        for statement in (
            "SELECT id FROM guarded -- all of them",
            "SELECT id FROM guarded;",
            text("SELECT id FROM guarded WHERE id > :low"),
            pool.prepare("SELECT id FROM guarded WHERE id > :low"),
            text("SELECT id FROM guarded WHERE id > :low").bindparams(low=0),
        ):
            bound = not isinstance(statement, str) and "low=0" not in repr(statement)
            assert await pool.count(statement, **({"low": 0} if bound else {})) == 1

        assert await pool.count(twice) == 1
        assert await pool.count(text(twice + " WHERE a.id > :low"), low=0) == 1


class TestWatching:
    """The log of statements."""

    async def test_every_verb_is_logged_and_prepared_stays_prepared(
        self, mysql_url: str, caplog: pytest.LogCaptureFixture
    ):
        """With echo each statement is logged once, whatever runs it, and the short way is kept."""
        caplog.set_level(logging.INFO, "ws_pool.sql")

        async with MysqlPool(mysql_url.replace("mysql:", "mysql+asyncmy:", 1), echo=True) as pool:
            await pool.create_all(TABLE.metadata)

            async with pool.get_client() as client:
                for use in (
                    lambda: client.insert_many(TABLE, ROWS),
                    lambda: client.execute(insert(TABLE), [{"word": "secret"}, {"word": "hidden"}]),
                    lambda: drain(client, select(TABLE)),
                ):
                    caplog.clear()
                    await use()
                    told = [r.getMessage() for r in caplog.records if "guarded" in r.getMessage()]
                    assert len(told) == 1
                    assert not any(word in caplog.text for word in ("secret", "two"))

                query = pool.prepare("SELECT word FROM guarded WHERE id = :id")
                await client.select(query, id=1)
                sql = "SHOW SESSION STATUS LIKE 'Com_stmt_execute'"
                assert int((await client.find(sql))[1]) == 1


class TestSharing:
    """Several tasks on one client."""

    async def test_iterations_take_turns_with_statements(self, mysql: MysqlPool):
        """While one task iterates, the statements of others wait, and none is refused."""
        async with mysql.get_client() as client:
            client.share()

            async def read() -> int:
                total = 0

                async for _ in client.iterate("SELECT seq FROM seq_1_to_50", size=5):
                    await asyncio.sleep(0)
                    total += 1

                return total

            results = await asyncio.gather(read(), client.find("SELECT 1"), read(), client.find("SELECT 2"))
            assert list(results) == [50, (1,), 50, (2,)]

    async def test_a_transaction_belongs_to_one_task(self, mysql: MysqlPool):
        """A second task cannot begin inside the first one's; bulk inserts of several wait for each other."""
        async with mysql.get_client() as client:
            client.share()

            async def begin() -> None:
                async with client.begin():
                    pytest.fail("began inside another task's transaction")

            async with client.begin():
                with pytest.raises(UsageError, match="belongs to one task"):
                    await asyncio.create_task(begin())

                async with client.begin(), client.begin():
                    await asyncio.create_task(client.insert(TABLE, word="inside"))

            async def fill(number: int) -> None:
                rows = [{"word": f"{number} {n}"} for n in range(3)]
                await client.insert_many(TABLE, rows if number % 2 else [*rows, rows[0]])

            results = await asyncio.gather(*(fill(n) for n in range(6)), return_exceptions=True)
            assert [result is None for result in results] == [False, True] * 3
            assert await client.count(TABLE) == 2 + 3 * 3


class TestRollback:
    """The end of a transaction whose server is silent."""

    @pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
    async def test_a_cancelled_transaction_does_not_hang_in_its_rollback(self, mysql_url: str, driver: str):
        """A task cancelled between two statements leaves within ping_timeout; the connection is given up."""
        host, _, port = mysql_url.rpartition("@")[2].partition("/")[0].partition(":")

        async with FaultProxy(host, int(port), protocol="mysql") as proxy:
            url = proxy.url(mysql_url).replace("mysql://", f"mysql+{driver}://", 1)

            async with MysqlPool(url, max_size=1, ping_timeout=0.2) as pool:
                begun = asyncio.Event()

                async def work() -> None:
                    async with pool.get_client() as client, client.begin():
                        await client.execute("SELECT 1")
                        begun.set()
                        await asyncio.Event().wait()

                task = asyncio.create_task(work())
                await begun.wait()
                proxy.black_hole()
                task.cancel()

                with pytest.raises(asyncio.CancelledError) as caught:
                    async with asyncio.timeout(20):
                        await task

                assert "no answer to the rollback within 0.2 s" in str(caught.value.__notes__)
                assert pool.statistics().leased == 0
                proxy.heal()

                for _ in range(3):
                    try:
                        assert await pool.select("SELECT 2") == [(2,)]
                        break
                    except UnavailableError:
                        continue
