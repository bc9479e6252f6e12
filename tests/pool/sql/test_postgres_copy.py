"""COPY: as a verb of the client, and as the way of ``insert_many``; replicas to read from."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, MACADDR

from tests.servers import StartServer
from tools.servers import PostgresServer
from ws_pool import PostgresPool
from ws_pool._sql.postgres.asyncpg_connection import AsyncpgConnection
from ws_pool._sql.postgres.connection import _copy_target
from ws_pool._sql.postgres.psycopg_connection import PsycopgConnection
from ws_pool.errors import IntegrityViolation, QueryError, UnavailableError, UsageError

ITEM = Table(
    "Odd item",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("Name", String(30), nullable=False),
    Column("price", Numeric(10, 2)),
    Column("made", DateTime(timezone=True)),
    Column("tags", ARRAY(String)),
    Column("more", JSON),
    Column("kind", Enum("a", "b", name="item_kind")),
    Column("state", String(10), server_default="new"),
)
EAST, WEST = dt.timezone(dt.timedelta(hours=2)), dt.timezone(dt.timedelta(hours=-5))
WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)


def rows(count: int) -> list[dict[str, Any]]:
    """Make rows with values of all types."""
    return [
        {
            "id": n,
            "Name": f"n\t{n}",
            "price": Decimal(n) / 4,
            "made": WHEN,
            "tags": ["x", None, "y"],
            "more": {"n": n} if n % 2 else None,
            "kind": "ab"[n % 2],
        }
        for n in range(1, count + 1)
    ]


@pytest.fixture
async def pool(driver_url: str) -> AsyncIterator[PostgresPool]:
    """A pool with an empty table."""
    async with PostgresPool(driver_url) as made:
        await made.create_all(ITEM.metadata)
        yield made


class Calls:
    """Counts the copies of a connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copies = 0

        for owner in (AsyncpgConnection, PsycopgConnection):
            self._count(owner, monkeypatch)

    def _count(self, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = owner.load_records

        async def load_records(*args: Any) -> Any:
            self.copies += 1
            return await real(*args)

        monkeypatch.setattr(owner, "load_records", load_records)


class TestInsertMany:
    """Many rows go by COPY, where that does the same."""

    async def test_rows_are_those_of_an_insert(self, pool: PostgresPool, monkeypatch: pytest.MonkeyPatch):
        """Types, defaults of the server, names that need quotes."""
        calls = Calls(monkeypatch)
        assert await pool.insert_many(ITEM, rows(300)) == 300
        assert calls.copies == 1
        copied = await pool.select(select(ITEM).order_by(ITEM.c.id))
        await pool.execute(ITEM.delete())
        assert await pool.insert_many(ITEM, rows(150)) == 150
        assert await pool.insert_many(ITEM, rows(300)[150:]) == 150
        assert calls.copies == 1
        assert copied == await pool.select(select(ITEM).order_by(ITEM.c.id))
        assert copied[0].state == "new"

    async def test_a_row_that_fails_leaves_none(self, pool: PostgresPool, monkeypatch: pytest.MonkeyPatch):
        """The error is that of an insert, and the pool is sound."""
        calls = Calls(monkeypatch)

        with pytest.raises(IntegrityViolation):
            await pool.insert_many(ITEM, [*rows(300), rows(1)[0]])

        assert calls.copies == 1
        assert await pool.count(ITEM) == 0
        await pool.insert_many(ITEM, rows(2))

    @pytest.mark.parametrize(
        "table",
        [
            "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, n int)",
            "CREATE TABLE base (id int, n int); CREATE VIEW t AS SELECT * FROM base",
            "CREATE TABLE t (id int, n int); CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
        ],
    )
    async def test_where_copy_does_something_else_rows_are_inserted(
        self, table: str, pool: PostgresPool, monkeypatch: pytest.MonkeyPatch
    ):
        """An identity that is always generated is an error as for INSERT; views and rules work."""
        calls = Calls(monkeypatch)
        target = Table("t", MetaData(), Column("id", Integer), Column("n", Integer))

        for statement in table.split("; "):
            await pool.execute(statement)

        many = [{"id": n, "n": n} for n in range(300)]

        if "ALWAYS" in table:
            with pytest.raises(QueryError, match="GENERATED ALWAYS"):
                await pool.insert_many(target, many)
        else:
            await pool.insert_many(target, many)
            assert await pool.count(target) == (0 if "RULE" in table else 300)

        assert calls.copies == 0

    async def test_types_that_a_driver_cannot_copy(self, pool: PostgresPool, driver: str):
        """Their rows are inserted; a COPY of them over asyncpg is an error that names the remedy."""
        table = Table("kinds", MetaData(), Column("id", Integer), Column("mac", MACADDR))
        address = "08:00:2b:01:02:03"
        await pool.execute("CREATE TABLE kinds (id int, mac macaddr)")
        await pool.insert_many(insert(table), [{"id": n, "mac": address} for n in range(300)])
        found = await pool.select(select(table.c.mac).distinct())
        assert [row.mac for row in found] == [address]

        async with pool.get_client() as client:
            if driver == "asyncpg":
                with pytest.raises(QueryError, match="format='text'"):
                    await client.copy_from("kinds", [(1, address)], columns=["id", "mac"])
            else:
                assert await client.copy_from("kinds", [(1, address)], columns=["id", "mac"]) == 1

            source = io.BytesIO(b"1\t08:00:2b:01:02:03\n")
            assert await client.copy_from("kinds", source, columns=["id", "mac"], format="text") == 1

        assert pool.statistics().opened == 1

    @pytest.mark.parametrize(
        ("declared", "real", "value"),
        [
            (DateTime(), "timestamp", dt.datetime(2026, 1, 1, 10, tzinfo=EAST)),
            (DateTime(), "timestamptz", dt.datetime(2026, 1, 1, 10)),  # noqa: DTZ001 - so it is declared
            (DateTime(timezone=True), "timestamp", dt.datetime(2026, 1, 1, 10, tzinfo=EAST)),
            (Date(), "date", dt.datetime(2026, 1, 1, 23, 30, tzinfo=WEST)),
            (Date(), "timestamp", dt.datetime(2026, 1, 1, 10)),  # noqa: DTZ001 - it is cut
            (Time(), "time", dt.time(10, tzinfo=EAST)),
            (Numeric(10, 2), "numeric", Decimal("2.555")),
            (Numeric(10, 2), "numeric(12, 4)", Decimal("2.555")),
            (Numeric(10, 2), "numeric(10, 2)", 2.675),
            (Numeric(), "numeric", 0.1 + 0.2),
            (Float(), "numeric", 0.1 + 0.2),
            (Float(), "int", 2.7),
            (Integer(), "int", True),
            (Integer(), "int", 2.7),
            (Integer(), "text", 5),
            (String(), "money", "$1.50"),
            (String(3), "text", "long"),
            (Integer(), "bigint", 5),
            (ARRAY(DateTime()), "timestamp[]", [dt.datetime(2026, 1, 1, 10, tzinfo=EAST)]),
            (ARRAY(Integer()), "int[]", [[1, True], [2, 3]]),
            (ARRAY(String()), "text[]", ["a", None]),
            (JSONB(), "json", {"b": 1, "a": [2]}),
            (Integer(), "number_in_range", 5),
        ],
        ids=repr,
    )
    async def test_a_value_is_the_same_in_any_number_of_rows(
        self, pool: PostgresPool, declared: Any, real: str, value: Any
    ):
        """Whatever the statement declares, the table has, and the value is; or it is an error each time."""
        await pool.execute("CREATE DOMAIN number_in_range AS int CHECK (VALUE < 10)")
        await pool.execute(f"CREATE TABLE t (id int, v {real})")
        table = Table("t", MetaData(), Column("id", Integer), Column("v", declared))
        results: list[object] = []

        async with pool.get_client() as client:
            await client.execute("SET timezone TO 'Asia/Tokyo'")

            for count in (1, 300):
                try:
                    await client.insert_many(table, [{"id": n, "v": value} for n in range(count)])
                except QueryError as error:
                    results.append(type(error))
                else:
                    found = await client.select("SELECT DISTINCT v::text FROM t")
                    results.append([row.v for row in found])

                await client.execute("DELETE FROM t")

        assert results[0] == results[1]

    def test_only_an_insert_of_nothing_but_its_values_is_a_copy(self):
        """Its columns and values are read from its text."""
        found = _copy_target('INSERT INTO s."My t" (id, "a""b") VALUES ($1::INTEGER, $2::NUMERIC(10, 2))')
        assert found is not None
        assert (found.schema, found.name, found.columns) == ("s", "My t", ["id", 'a"b'])
        assert found.table == 's."My t"'
        assert found.casts == ["INTEGER", "NUMERIC(10, 2)"]

        for sql in (
            "INSERT INTO t (a, b) VALUES ($2, $1)",
            "INSERT INTO t (a, b) VALUES ($1, now())",
            "INSERT INTO t (a, b) VALUES ($1, lower($2))",
            "INSERT INTO t (a) VALUES ($1) RETURNING a",
            "INSERT INTO t (a) VALUES ($1 + 1)",
            "INSERT INTO t DEFAULT VALUES",
        ):
            assert _copy_target(sql) is None, sql


class TestCopy:
    """``copy_from`` and ``copy_to``."""

    async def test_rows_go_in_and_out(self, pool: PostgresPool, tmp_path: Path):
        """As sequences, mappings and files; whole or not at all."""
        async with pool.get_client() as client:
            assert await client.copy_from(ITEM, [(1, "one"), (2, "two")], columns=["id", "Name"]) == 2
            assert await client.copy_from("Odd item", [{"id": 3, "Name": "three"}]) == 1
            path = tmp_path / "items.csv"
            query = select(ITEM.c.id, ITEM.c.Name).where(ITEM.c.id > 1).order_by(ITEM.c.id)
            assert await client.copy_to(query, path, format="csv", options={"header": True}) == 2
            assert path.read_text() == "id,Name\n2,two\n3,three\n"
            await client.delete(ITEM.delete().where(ITEM.c.id > 1))
            names = ["id", "Name"]
            assert await client.copy_from(ITEM, path, columns=names, format="csv", header=True) == 2
            out = io.BytesIO()
            assert await client.copy_to(ITEM, out, format="binary") == 3
            await client.delete(ITEM.delete())
            out.seek(0)
            assert await client.copy_from(ITEM, out, format="binary") == 3
            chunks: list[bytes] = []

            async def take(data: bytes) -> None:
                chunks.append(data)

            assert await client.copy_to('SELECT "Name" FROM "Odd item" WHERE id = :n', take, n=2) == 1
            assert b"".join(chunks) == b"two\n"

    async def test_what_fails_changes_nothing(self, pool: PostgresPool):
        """A wrong row, a broken source, a client that only reads; the connection goes on."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"5,five\n"
            raise KeyError("broken")

        async with pool.get_client() as client:
            with pytest.raises(IntegrityViolation):
                await client.copy_from(ITEM, [(1, "a"), (1, "b")], columns=["id", "Name"])

            with pytest.raises(UsageError, match="row 1 has other keys"):
                await client.copy_from(ITEM, [{"id": 1, "Name": "a"}, {"id": 2}])

            with pytest.raises(UsageError, match="say its format"):
                await client.copy_from(ITEM, [], delimiter=",")

            with pytest.raises(KeyError):
                await client.copy_from(ITEM, broken(), columns=["id", "Name"], format="csv")

            with pytest.raises(QueryError):
                await client.copy_to("SELECT * FROM nowhere", io.BytesIO())

            assert await client.count(ITEM) == 0

        async with pool.get_client(read_only=True) as reading:
            with pytest.raises(UsageError, match="only reads"):
                await reading.copy_from(ITEM, [(1, "a")], columns=["id", "Name"])

            assert await reading.copy_to(ITEM, io.BytesIO()) == 0

    @pytest.mark.parametrize(
        ("rows", "columns", "message"),
        [
            ([(1, "a"), (2, "b", "lost?")], ["id", "Name"], "row 1 has 3 values for 2 columns"),
            ([(1, "a"), (2,)], ["id", "Name"], "row 1 has 1 values for 2 columns"),
            ([(1, "a")], None, "row 0 has 2 values for 8 columns"),
            ([(*range(8), "lost?")], None, "row 0 has 9 values for 8 columns"),
            ([(1, "a")], "id", "columns are a sequence of names"),
            (["ab"], ["id", "Name"], "row 0 is a str"),
            ([5], ["id"], "row 0 is a int"),
            ("/tmp/rows.csv", None, "say the format"),
            (Path("rows.csv"), None, "say the format"),
            (b"1,a", None, "say the format"),
            ([b"1,a"], ["id", "Name"], "row 0 is a bytes"),
            ({"id": 1}, None, "say the format"),
            (None, None, "say the format"),
        ],
    )
    async def test_what_is_not_a_row_is_refused(
        self, pool: PostgresPool, rows: Any, columns: Any, message: str
    ):
        """No value is left out, and nothing is sent."""
        async with pool.get_client() as client:
            with pytest.raises(UsageError, match=message):
                await client.copy_from(ITEM, rows, columns=columns)

            assert await client.count(ITEM) == 0

    async def test_rows_of_all_columns(self, pool: PostgresPool):
        """Without names they are those of the table, but for what the server computes."""
        await pool.execute(
            "CREATE TABLE t (a int, gone int, b int GENERATED ALWAYS AS (a + 1) STORED, c int)"
        )
        await pool.execute("ALTER TABLE t DROP COLUMN gone")

        async with pool.get_client() as client:
            assert await client.copy_from("t", [(1, 2), (3, 4)]) == 2
            assert await client.select("SELECT a, b, c FROM t", row_type=tuple) == [(1, 2, 2), (3, 4, 4)]

            with pytest.raises(QueryError, match="does not exist"):
                await client.copy_from("nowhere", [(1, 2)])

    @pytest.mark.parametrize("kind", ["bytes", "iterable", "async read", "read"])
    async def test_files_of_all_kinds(self, pool: PostgresPool, kind: str):
        """Bytes, their iterables, and objects that are read, be it by a coroutine."""
        content = b"1,one\n2,two\n"

        class Reader:
            """A file that is read without a thread."""

            async def read(self, size: int) -> bytes:
                """Return what comes next."""
                return file.read(min(size, 5))

        file = io.BytesIO(content)
        sources = {
            "bytes": content,
            "iterable": [content[:7], content[7:]],
            "async read": Reader(),
            "read": file,
        }

        async with pool.get_client() as client:
            names = ["id", "Name"]
            assert await client.copy_from(ITEM, sources[kind], columns=names, format="csv") == 2
            assert await client.count(ITEM) == 2

    async def test_an_error_of_a_file_is_its_own(self, pool: PostgresPool, tmp_path: Path):
        """It is not one of the server, or of the connection; a file that is not written stays as it was."""
        here, nowhere = tmp_path / "here", tmp_path / "nowhere" / "file"
        here.write_bytes(b"before")

        async def full(_: bytes) -> None:
            raise OSError(errno.ENOSPC, "full")

        async def broken() -> AsyncIterator[bytes]:
            yield b"5,five\n"
            raise OSError(errno.EIO, "broken")

        async with pool.get_client() as client:
            await client.copy_from(ITEM, b"1,a\n", columns=["id", "Name"], format="csv")

            with pytest.raises(FileNotFoundError):
                await client.copy_from(ITEM, nowhere, format="csv")

            with pytest.raises(FileNotFoundError):
                await client.copy_to(ITEM, nowhere)

            with pytest.raises(OSError, match="full"):
                await client.copy_to(ITEM, full)

            with pytest.raises(OSError, match="broken"):
                await client.copy_from(ITEM, broken(), columns=["id", "Name"], format="csv")

            with pytest.raises(UsageError, match="sends bytes, not str"):
                await client.copy_from(ITEM, io.StringIO("6,six"), columns=["id", "Name"], format="csv")

            with pytest.raises(UsageError, match=r"copy_to.. writes to a path"):
                await client.copy_to(ITEM, 5)

            with pytest.raises(QueryError, match="nowhere"):
                await client.copy_to("SELECT * FROM nowhere", here)

            assert here.read_bytes() == b"before"
            assert await client.copy_to("SELECT 1 WHERE false", here) == 0
            assert here.read_bytes() == b""
            assert await client.count(ITEM) == 1

    @pytest.mark.parametrize("count", [1, 50_000])
    async def test_a_writer_that_is_cancelled(self, pool: PostgresPool, count: int):
        """Be it over the last rows: the pool goes on."""
        writing = asyncio.Event()

        async def stand(_: bytes) -> None:
            writing.set()
            await asyncio.Event().wait()

        async def dump() -> None:
            async with pool.get_client() as client:
                await client.copy_to(f"SELECT * FROM generate_series(1, {count})", stand)

        dumping = asyncio.create_task(dump())
        await writing.wait()
        dumping.cancel()
        await asyncio.wait({dumping})
        assert dumping.cancelled()
        assert await pool.count(ITEM) == 0

    @pytest.mark.parametrize("count", [1, 50_000])
    async def test_a_writer_that_fails(self, pool: PostgresPool, count: int):
        """Be it over the last rows: the client goes on, and so does its transaction."""

        async def full(_: bytes) -> None:
            raise OSError(errno.ENOSPC, "full")

        async with pool.atomic() as client:
            await client.copy_from(ITEM, b"1,a\n", columns=["id", "Name"], format="csv")

            with pytest.raises(OSError, match="full"):
                async with client.begin():
                    await client.copy_to(f"SELECT * FROM generate_series(1, {count})", full)

        assert await pool.count(ITEM) == 1

    async def test_a_cancelled_copy_keeps_nothing(self, pool: PostgresPool):
        """The server is not left at it, and the next statement works."""
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"5,five\n"
            begun.set()
            await asyncio.Event().wait()

        async def load() -> None:
            async with pool.get_client() as client:
                await client.copy_from(ITEM, endless(), columns=["id", "Name"], format="csv")

        loading = asyncio.create_task(load())
        await begun.wait()
        loading.cancel()
        await asyncio.wait({loading})
        assert loading.cancelled()
        assert await pool.count(ITEM) == 0
        assert pool.statistics().leased == 0


class TestReplicas:
    """Clients that only read."""

    async def test_they_go_to_replicas_that_are_up(self, driver_url: str, start_server: StartServer):
        """They take turns; the primary serves when none is up, and one that is down stops no start."""
        server = start_server(PostgresServer)
        down = "postgresql://postgres@127.0.0.1:1/test"

        async with PostgresPool(driver_url, name="shop", replicas=[server.url, {"url": down}]) as pool:
            port = "SELECT current_setting('port') AS port"
            primary = (await pool.find(port)).port

            async with pool.get_client(read_only=True) as client:
                assert (await client.find(port)).port == str(server.port) != primary

            assert list((await pool.health()).parts) == ["shop/replica0", "shop/replica1"]
            assert len(pool.replica_statistics()) == 2
            server.kill()

            async with asyncio.timeout(20):
                while True:
                    try:
                        async with pool.get_client(read_only=True) as client:
                            assert (await client.find(port)).port == primary
                            break
                    except UnavailableError:  # its processes end a little later than it does
                        await asyncio.sleep(0.05)


SKIPS = """
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF new.n % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END $$
"""
NUMBERS = Table("number", MetaData(), Column("n", Integer))


class TestRowsLeftOut:
    """Rows that the server leaves out are not counted, however few or many are inserted at once."""

    @pytest.mark.parametrize("count", [2, 11, 300])
    @pytest.mark.parametrize(
        "made",
        [
            [
                "CREATE TABLE number (n int)",
                "CREATE TRIGGER t BEFORE INSERT ON number FOR ROW EXECUTE FUNCTION skip()",
            ],
            [
                "CREATE TABLE number (n int) PARTITION BY RANGE (n)",
                "CREATE TABLE part PARTITION OF number FOR VALUES FROM (0) TO (1000)",
                "CREATE TRIGGER t BEFORE INSERT ON part FOR ROW EXECUTE FUNCTION skip()",
            ],
            [
                "CREATE TABLE number (n int)",
                "CREATE RULE r AS ON INSERT TO number WHERE new.n % 2 = 1 DO INSTEAD NOTHING",
            ],
        ],
        ids=["trigger", "trigger of a partition", "rule"],
    )
    async def test_they_are_not_counted(self, driver_url: str, made: list[str], count: int) -> None:
        """By triggers, also of a partition, and by rules."""
        async with PostgresPool(driver_url, max_size=1) as pool:
            for statement in (SKIPS, *made):
                await pool.execute(statement)

            values = [{"n": n} for n in range(count)]
            said = (
                await pool.insert_many(NUMBERS, values),
                (await pool.execute(insert(NUMBERS), values)).rowcount,
            )
            kept = await pool.count(select(NUMBERS))
            assert kept == 2 * ((count + 1) // 2)
            assert said == (kept // 2, kept // 2)

    async def test_a_view(self, driver_url: str) -> None:
        """Its INSTEAD OF trigger decides."""
        async with PostgresPool(driver_url, max_size=1) as pool:
            await pool.execute(SKIPS)
            await pool.execute("CREATE VIEW number AS SELECT 1 AS n")
            await pool.execute("CREATE TRIGGER t INSTEAD OF INSERT ON number FOR ROW EXECUTE FUNCTION skip()")
            assert await pool.insert_many(NUMBERS, [{"n": n} for n in range(5)]) == 3
