"""Results over asyncmy are those that the driver reads itself, whether their columns are known or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import asyncmy.protocol
import pytest

from ws_pool import MysqlPool
from ws_pool._sql.mysql.asyncmy_reader import AsyncmyReader
from ws_pool.errors import QueryError, UnavailableError

NAMES = ", ".join(f"{n} AS c{n}" for n in range(300))
QUERIES = (
    "SELECT 1 AS one",
    "SELECT 1 AS one, 1 AS one, NULL AS none, '' AS empty",
    "SELECT 'zwölf' AS word, JSON_OBJECT('a', 1) AS doc, X'00ff' AS raw, 1.50 AS price, 1e0 AS ratio",
    "SELECT CAST('2024-02-29' AS DATE) AS d, CAST('01:02:03.5' AS TIME(1)) AS t",
    "SELECT TIMESTAMP('2024-01-02 03:04:05') AS moment, CAST('2024-01-02' AS CHAR(10)) AS day",
    "SELECT '0000-00-00' AS zero, 18446744073709551615 AS large, -9223372036854775808 AS small",
    "SELECT 1 AS one WHERE 1 = 0",
    *(f"SELECT REPEAT('x', {size}) AS x, 2 AS two" for size in (250, 251, 252, 65_535, 65_536, 300_000)),
    "SELECT seq, REPEAT('y', seq) AS y FROM seq_1_to_700",
    "SELECT seq FROM seq_1_to_20000",
    f"SELECT {NAMES}",
    "SELECT CHAR(254, 0, 0, 2, 0) AS looks, 254 AS like_an_end",
    "SELECT `it's` FROM (SELECT 5 AS `it's`) AS t",
)


@pytest.fixture
async def pool(mysql_url: str) -> AsyncIterator[MysqlPool]:
    """Open a pool of one connection over asyncmy."""
    async with MysqlPool(mysql_url.replace("mysql://", "mysql+asyncmy://", 1), max_size=1) as pool:
        yield pool


def reader_of(client: Any) -> AsyncmyReader:
    """Return the reader of a client's connection."""
    return cast("AsyncmyReader", client.connection.send.__self__)


@asynccontextmanager
async def dripping(url: str, size: int) -> AsyncIterator[str]:
    """Put a proxy before a server that passes replies on in pieces; yield its URL."""
    parts = urlsplit(url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(limit):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)

        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, back, 1 << 16), pump(there, writer, size))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    try:
        port = server.sockets[0].getsockname()[1]
        yield parts._replace(scheme="mysql+asyncmy", netloc=f"root@127.0.0.1:{port}").geturl()
    finally:
        server.close()


async def theirs(client: Any, sql: str) -> tuple[Any, Any]:
    """Return the rows and columns of a query as the driver reads them."""
    raw = client.connection.raw
    await raw.query(sql)
    return list(raw._result.rows), raw._result.description


async def ours(client: Any, sql: str) -> tuple[Any, Any]:
    """Return the rows and columns of a query as our reader reads them."""
    reply = await client.connection.run(sql, None)
    return list(reply.rows), reply.description


class TestResults:
    """Rows and columns."""

    async def test_results_are_those_of_the_driver(self, pool: MysqlPool) -> None:
        """At the first execution of a query, and at later ones, in any order."""
        async with pool.get_client() as client:
            wanted = {sql: await theirs(client, sql) for sql in QUERIES}

            for _ in range(3):
                for sql in QUERIES:
                    assert await ours(client, sql) == wanted[sql]

            for sql in reversed(QUERIES):
                assert await ours(client, sql) == wanted[sql]

    @pytest.mark.parametrize("size", [7, 1_000])
    async def test_results_that_come_in_pieces(self, mysql_url: str, size: int) -> None:
        """What is not there as a whole is read by the driver."""
        large = ("20000", "300000", "6553", "700", "c299") if size < 100 else ()
        queries = [sql for sql in QUERIES if not any(part in sql for part in large)]

        async with (
            dripping(mysql_url, size) as url,
            MysqlPool(url, max_size=1) as pool,
            pool.get_client() as client,
        ):
            for sql in queries:
                wanted = await theirs(client, sql)

                for _ in range(2):
                    assert await ours(client, sql) == wanted

    async def test_known_columns_are_recognised(self, pool: MysqlPool) -> None:
        """The driver's own way, which leaves its result behind, is taken for new columns only."""
        async with pool.get_client() as client:
            raw = client.connection.raw
            reader = reader_of(client)
            reader._known.clear()

            for n in range(3):
                await client.select(f"SELECT {n} AS known_one, 'x' AS known_two")
                assert (raw._result is None) is (n > 0)

            await client.select("SELECT 1 AS another")
            assert raw._result is not None
            assert len(reader._known) == 2

    async def test_few_columns_are_remembered(self, pool: MysqlPool) -> None:
        """A program whose queries are all different does not fill the memory."""
        async with pool.get_client() as client:
            for n in range(600):
                assert await client.find(f"SELECT {n} AS c{n}") == (n,)

            assert len(reader_of(client)._known) <= 256

    async def test_a_table_that_changes(self, pool: MysqlPool) -> None:
        """Columns that have another type, name or number are other columns."""
        async with pool.get_client() as client:
            await client.execute("CREATE TABLE t (a INT)")
            await client.execute("INSERT INTO t VALUES (7)")

            for change, wanted in (
                ("MODIFY a VARCHAR(9)", ("7",)),
                ("CHANGE a b VARCHAR(9)", ("7",)),
                ("ADD c DATE DEFAULT '2024-01-02'", None),
                ("MODIFY b DOUBLE", None),
            ):
                before = await client.select("SELECT * FROM t")
                assert await client.select("SELECT * FROM t") == before
                await client.execute(f"ALTER TABLE t {change}")
                found = await ours(client, "SELECT * FROM t")
                assert found == await theirs(client, "SELECT * FROM t")
                assert wanted is None or found[0] == [wanted]


class TestWhatIsNotAResult:
    """All else is read by the driver."""

    async def test_statements_without_rows_and_calls(self, pool: MysqlPool) -> None:
        """Counts, ids and further results come as before."""
        async with pool.get_client() as client:
            await client.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
            await client.execute(
                "CREATE PROCEDURE p() BEGIN SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS a; END"
            )

            for n in range(3):
                assert await client.insert("INSERT INTO t (v) VALUES (:v)", v=n) == n + 1
                assert await client.update("UPDATE t SET v = v + 1") == n + 1
                result = await client.execute("CALL p()")
                assert result.rows == [(1,)]
                assert [other.rows for other in result.more_results()] == [[(2,)], [(3,)]]

    async def test_an_error_behind_rows(self, pool: MysqlPool) -> None:
        """It belongs to its statement, and what follows is right."""
        query = "SELECT seq, IF(seq = 3, (SELECT 1 UNION SELECT 2), 0) AS bad FROM seq_1_to_3"

        async with pool.get_client() as client:
            for _ in range(3):
                with pytest.raises(QueryError, match="1242"):
                    await client.select(query)

                assert await client.find("SELECT 5 AS five") == (5,)

    async def test_transactions_are_seen(self, pool: MysqlPool) -> None:
        """The server's status comes with the result of a known query too."""
        async with pool.get_client() as client:
            connection = client.connection

            for _ in range(3):
                await client.execute("BEGIN")
                await client.select("SELECT 1 AS one")
                assert connection.in_transaction
                await client.execute("COMMIT")
                await client.select("SELECT 1 AS one")
                assert not connection.in_transaction

    async def test_without_autocommit(self, mysql_url: str) -> None:
        """A query has begun a transaction, which the release ends."""
        url = mysql_url.replace("mysql://", "mysql+asyncmy://", 1)

        async with MysqlPool(url, max_size=1, autocommit=False) as pool:
            await pool.execute("CREATE TABLE t (v INT)")

            for _ in range(3):
                async with pool.get_client() as client:
                    assert await client.select("SELECT v FROM t") == []
                    assert client.connection.in_transaction

            async with pool.get_client() as client:
                await client.execute("COMMIT")
                assert not client.connection.in_transaction

    async def test_a_connection_that_ends_is_lost(self, pool: MysqlPool) -> None:
        """The error is that of the driver, and the next user has another connection."""
        for _ in range(2):
            async with pool.get_client() as client:
                number = (await client.find("SELECT CONNECTION_ID() AS id")).id
                task = asyncio.ensure_future(client.select("SELECT SLEEP(60) AS s"))
                await asyncio.sleep(0)  # it is sent
                await asyncio.sleep(0)
                client.connection.raw._transport.abort()

                with pytest.raises(UnavailableError, match="lost"):
                    await task

            assert (await pool.find("SELECT CONNECTION_ID() AS id")).id != number


async def test_another_version_of_the_driver_reads_by_itself(
    mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not public may be gone: then the driver reads all."""
    monkeypatch.delattr(asyncmy.protocol, "parse_rows_from_buffer")

    async with (
        MysqlPool(mysql_url.replace("mysql://", "mysql+asyncmy://", 1), max_size=1) as pool,
        pool.get_client() as client,
    ):
        for _ in range(3):
            assert await client.select("SELECT 1 AS one, 'x' AS x") == [(1, "x")]

        assert reader_of(client)._known == {}
        assert client.connection.raw._result is not None
