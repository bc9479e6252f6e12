"""LOAD DATA LOCAL INFILE sends what it was given, and nothing else is ever sent to a server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from tests.pool.sql.backends import MYSQL, make_pool
from ws_pool import MysqlPool
from ws_pool._sql.mysql.connection import MysqlConnection
from ws_pool.errors import ConfigError, QueryError, UnavailableError, UnsupportedStatement, UsageError

LOAD = "LOAD DATA LOCAL INFILE 'items' INTO TABLE thing FIELDS TERMINATED BY ','"


@pytest.fixture(params=MYSQL)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[MysqlPool]:
    """A pool that may load files, with an empty table."""
    made = make_pool(request.param, mysql_url, tmp_path, local_infile=True)

    async with cast("MysqlPool", made) as pool:
        await pool.execute("CREATE TABLE thing (id INT PRIMARY KEY, name VARCHAR(10)) ENGINE=InnoDB")
        yield pool


async def load(pool: MysqlPool, source: Any, statement: Any = LOAD, **params: Any) -> int:
    """Load a source in a client of its own."""
    async with pool.get_client() as client:
        return await client.load_data(statement, source, **params)


async def things(pool: MysqlPool) -> list[tuple[Any, ...]]:
    """Read the table."""
    return await pool.select("SELECT id, name FROM thing ORDER BY id", row_type=tuple)


class Reader:
    """An object that is read asynchronously."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        """Read a piece."""
        return self._file.read(size)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield parts."""
    for part in parts:
        yield part


class TestSources:
    """Where the bytes come from."""

    @pytest.mark.parametrize("kind", ["path", "str", "bytes", "view", "file", "reader", "list", "generator"])
    async def test_each_kind_of_source(self, pool: MysqlPool, tmp_path: Path, kind: str):
        """A path, bytes, a file, iterables; an empty chunk is not the end."""
        data = b"1,a\n2,\xc3\xa9\n3,c\n"
        path = tmp_path / "things.csv"
        path.write_bytes(data)
        sources: dict[str, Any] = {
            "path": path,
            "str": str(path),
            "bytes": data,
            "view": memoryview(bytearray(data)),
            "file": io.BytesIO(data),
            "reader": Reader(data),
            "list": [data[:3], b"", data[3:]],
            "generator": chunks(b"", data[:5], b"", b"", data[5:], b""),
        }
        assert await load(pool, sources[kind]) == 3
        assert await things(pool) == [(1, "a"), (2, "é"), (3, "c")]

    async def test_a_file_of_many_packets(self, pool: MysqlPool):
        """Packet numbers go round, and the connection serves the next statement."""

        def lines() -> Iterator[bytes]:
            for start in range(0, 60_000, 100):
                yield b"".join(b"%d,%d\n" % (n, n % 97) for n in range(start, start + 100))

        async with pool.get_client() as client:
            assert await client.load_data(LOAD, lines()) == 60_000
            assert await client.count("SELECT * FROM thing WHERE name = id % 97") == 60_000
            assert await client.load_data("LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE thing", b"") == 0

        whole = b"".join(b"%d,x\n" % n for n in range(60_000, 200_000))  # in one piece
        assert await load(pool, whole) == 140_000

    async def test_parameters_and_handles(self, pool: MysqlPool):
        """Values are bound as in any statement."""
        statement = (
            "LOAD DATA LOCAL INFILE 'x' INTO TABLE thing FIELDS TERMINATED BY ',' (id) SET name = :name"
        )
        assert await load(pool, b"1\n", statement, name="it's") == 1
        assert await load(pool, b"2\n", pool.prepare(statement), name="50 %") == 1
        assert await load(pool, b"3\n", text(statement), name="\\") == 1
        assert await things(pool) == [(1, "it's"), (2, "50 %"), (3, "\\")]


class TestWhole:
    """All of a file, or an error and nothing of it."""

    @pytest.mark.parametrize("data", [b"1,a\n1,b\n", b"1,a\n2,far too long\n", b"1,a\nx,b\n", b"1,a\n2\n"])
    async def test_what_does_not_fit_is_an_error(self, pool: MysqlPool, data: bytes):
        """A duplicate, a value too long, of a wrong type, or missing: the server would make do with it."""
        with pytest.raises(QueryError, match=r"1 warnings: \(\d+\) .* strict=False"):
            await load(pool, data)

        assert await things(pool) == []
        await load(pool, data, strict=False)
        assert len(await things(pool)) in {1, 2}

    async def test_inside_a_transaction(self, pool: MysqlPool):
        """What fails is undone alone; what does not is kept or undone with the transaction."""
        async with pool.atomic() as client:
            await client.execute("INSERT INTO thing VALUES (1, 'one')")

            with pytest.raises(QueryError, match="warnings"):
                await client.load_data(LOAD, b"2,b\n1,again\n")

            assert await client.load_data(LOAD, b"3,c\n") == 1

        assert await things(pool) == [(1, "one"), (3, "c")]

        with pytest.raises(LookupError):
            async with pool.atomic() as client:
                await client.load_data(LOAD, b"4,d\n")
                raise LookupError

        assert await things(pool) == [(1, "one"), (3, "c")]

    async def test_a_source_that_fails(self, pool: MysqlPool):
        """Its error is raised, nothing is loaded, and the connection goes on."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"1,a\n"
            raise LookupError

        async with pool.get_client() as client:
            with pytest.raises(LookupError):
                await client.load_data(LOAD, broken())

            with pytest.raises(UsageError, match="'rb'"):
                await client.load_data(LOAD, io.StringIO("1,a\n"))

            assert await client.count("SELECT * FROM thing") == 0
            assert await client.load_data(LOAD, b"1,a\n") == 1

        assert pool.statistics().opened == 1

    async def test_a_cancelled_load(self, pool: MysqlPool):
        """Nothing is loaded, and the next user has another connection."""
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"1,a\n"
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(load(pool, endless()))
        await begun.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert await load(pool, b"2,b\n") == 1
        assert await things(pool) == [(2, "b")]

    async def test_a_connection_that_is_lost(self, pool: MysqlPool):
        """An error, whatever the source does meanwhile."""

        async def killing() -> AsyncIterator[bytes]:
            yield b"1,a\n"
            async with pool.get_client(alone=True) as other:
                await other.execute(f"KILL {client.raw.thread_id()}")

            for _ in range(50):
                yield b"2,b\n" * 10_000

        async with pool.get_client() as client:
            with pytest.raises(UnavailableError):
                await client.load_data(LOAD, killing())

        assert await things(pool) == []


class TestRefusals:
    """Nothing is sent that was not given to `load_data`."""

    @pytest.mark.parametrize("verb", ["execute", "select", "iterate"])
    async def test_a_server_that_asks_gets_nothing(self, pool: MysqlPool, tmp_path: Path, verb: str):
        """A server may ask for any file at any time; the connection is given up."""
        path = tmp_path / "secret"
        path.write_text("7,secret\n")
        sql = LOAD.replace("'items'", f"'{path}'")

        async with pool.get_client() as client:
            with pytest.raises(QueryError, match="only load_data"):
                if verb == "iterate":
                    _ = [row async for row in client.iterate(sql)]
                else:
                    await getattr(client, verb)(sql)

        assert await things(pool) == []
        assert await load(pool, b"1,a\n", sql) == 1
        assert await things(pool) == [(1, "a")]

    async def test_it_is_off_by_default(self, mysql_url: str, tmp_path: Path):
        """By the client before anything is sent, and by the server."""
        for driver in MYSQL:
            async with make_pool(driver, mysql_url, tmp_path) as pool:
                await pool.execute("CREATE TABLE IF NOT EXISTS thing (id INT, name TEXT)")

                with pytest.raises(UsageError, match="local_infile=True"):
                    await load(cast("MysqlPool", pool), b"1,a\n")

                with pytest.raises(QueryError, match=r"load_data\(\) and the option local_infile"):
                    await pool.execute(LOAD)

        with pytest.raises(ConfigError, match="local_infile"):
            MysqlPool(mysql_url, local_infile="perhaps")

    @pytest.mark.parametrize(
        "sql",
        ["DELETE FROM thing", "LOAD DATA INFILE 'x' INTO TABLE thing", "SELECT 'load data local infile'"],
    )
    async def test_other_statements(self, pool: MysqlPool, sql: str):
        """They are refused before anything is sent."""
        await pool.execute("INSERT INTO thing VALUES (1, 'one')")

        with pytest.raises(UsageError, match=r"execute\(\) runs all others"):
            await load(pool, b"", sql)

        async with pool.get_client() as client:
            with pytest.raises(UnsupportedStatement, match="does not ask for a file"):
                connection = cast("MysqlConnection", client.connection)
                await connection.load_file("DELETE FROM thing WHERE FALSE", None, chunks())

        assert await things(pool) == [(1, "one")]

    async def test_errors_before_anything_is_sent(self, pool: MysqlPool, tmp_path: Path):
        """A file that is not there, what is not a source, a client that only reads, a wrong table."""
        with pytest.raises(FileNotFoundError):
            await load(pool, tmp_path / "nothing")

        with pytest.raises(UsageError, match="not a int"):
            await load(pool, 5)

        with pytest.raises(UsageError, match="only reads"):
            async with pool.get_client(read_only=True) as client:
                await client.load_data(LOAD, b"1,a\n")

        with pytest.raises(QueryError, match="nowhere"):
            await load(pool, b"1,a\n", LOAD.replace("thing", "nowhere"))

        assert await load(pool, b"1,a\n", f"/* a comment */ {LOAD.lower()}") == 1
        assert pool.statistics().opened == 1

    async def test_while_an_iteration_is_open(self, pool: MysqlPool):
        """The rest of one that was left is read first; in the middle of one it is refused."""
        await load(pool, b"1,a\n2,b\n3,c\n")

        async with pool.get_client() as client:
            async for _ in client.iterate("SELECT * FROM thing", size=1):
                break

            assert await client.load_data(LOAD, b"4,d\n") == 1
            connection = cast("MysqlConnection", client.connection)
            stream = connection.stream("SELECT * FROM thing", None, 1)
            await anext(stream)
            connection.left = None
            connection.give_up()

            with pytest.raises(UnavailableError, match="cut short"):
                await connection.load_file(LOAD, None, chunks(b"5,e\n"))
