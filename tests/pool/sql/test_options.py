"""Options of the SQL pools: a wrong one is an error before anything starts, which holds no secret."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import Any

import pytest
from aiomysql import DictCursor  # type: ignore[import-untyped]

from tests.servers import StartServer
from tools.servers import MariaDBServer
from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import AcquireTimeout, ConfigError, QueryTimeout
from ws_pool.mysql import SqlConnection


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter[2@h/db", "mysql://u:hunter\u21002@h/db", "mysql://u:hunter2]@[h/db"]
)
def test_a_url_that_cannot_be_split_keeps_its_password(url: str):
    """Neither the message nor a traceback shows it."""
    with pytest.raises(ConfigError, match=r"MysqlPool\.url") as caught:
        MysqlPool(url)

    message = "".join(traceback.format_exception(caught.value)).split("ConfigError: ")[-1]
    assert "hunter" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_sqlite_url_that_cannot_be_split_is_told():
    """As for MySQL."""
    with pytest.raises(ConfigError, match=r"SqlitePool\.url"):
        SqlitePool("sqlite://[x/y.db?key=hunter2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"charset": "utf8mb5"}, r"MysqlPool\.charset must be a character set .* did you mean 'utf8mb4'"),
        ({"cursorclass": "nonsense"}, r"MysqlPool\.cursorclass must be dict, tuple"),
        ({"row_type": list}, r"MysqlPool\.row_type must be dict, tuple"),
        ({"min_size": 5, "max_size": 2}, r"MysqlPool\.min_size is 5, above MysqlPool\.max_size, which is 2"),
        ({"minsize": 5, "maxsize": 2}, r"MysqlPool\.minsize is 5, above MysqlPool\.maxsize, which is 2"),
        ({"on_open": 5}, r"MysqlPool\.on_open must be a function"),
    ],
)
def test_nonsense_is_refused_by_its_name(options: dict[str, Any], message: str):
    """Before anything starts, and under the name that the user gave."""
    with pytest.raises(ConfigError, match=message):
        MysqlPool(host="db", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"journal_mode": "wall"}, r"SqlitePool\.journal_mode must be one of 'WAL'"),
        ({"synchronous": 7}, r"SqlitePool\.synchronous must be one of"),
        ({"min_size": 9, "max_size": 2}, r"SqlitePool\.min_size is 9"),
    ],
)
def test_nonsense_for_sqlite_is_refused_too(options: dict[str, Any], message: str):
    """Words that SQLite would pass over in silence."""
    with pytest.raises(ConfigError, match=message):
        SqlitePool(path="x.db", **options)


def test_what_the_original_called_cursorclass_is_understood():
    """Cursors' classes and names, whether of aiomysql or as a setting."""
    for value, meant in (
        ("DictCursor", dict),
        (DictCursor, dict),
        ("Cursor", None),
        ("tuple", tuple),
        (dict, dict),
    ):
        assert MysqlPool(host="db", cursorclass=value).row_type is meant


async def test_hooks_are_called_with_the_connection(mysql_url: str, tmp_path: Path):
    """MysqlPool and SqlitePool take the hooks of the pool under them."""
    for make, where in ((MysqlPool, {"url": mysql_url}), (SqlitePool, {"path": str(tmp_path / "x.db")})):
        seen: list[str] = []

        async def opened(conn: SqlConnection) -> None:
            await conn.run("SELECT 1", None)
            seen.append("open")  # noqa: B023 - called before the loop goes on

        options: dict[str, Any] = {"on_open": opened, "on_close": lambda _: seen.append("close"), **where}  # noqa: B023 - as above

        async with make(**options) as pool:
            await pool.select("SELECT 1")

        assert set(seen) == {"open", "close"}
        assert seen.count("open") == seen.count("close")


async def test_a_full_replica_is_passed_over(mysql_url: str):
    """Readers go to the primary while the replica has no connection free, and wait when neither has."""
    async with MysqlPool(
        mysql_url, name="shop", maxsize=1, acquire_timeout=0.05, replicas=[mysql_url]
    ) as pool:
        async with pool.get_client(read_only=True, alone=True) as first:
            assert pool.replica_statistics()[0].leased == 1

            async with pool.get_client(read_only=True, alone=True) as second:
                assert pool.statistics().leased == 1
                assert (await second.find("SELECT 2"))[0] == 2

                with pytest.raises(AcquireTimeout, match="replica0"):
                    async with pool.get_client(read_only=True, alone=True):
                        pass

            assert (await first.find("SELECT 1"))[0] == 1

        assert pool.statistics().leased == 0


async def test_many_rows_fit_a_small_packet(start_server: StartServer):
    """insert_many keeps every statement below the server's own max_allowed_packet, head and tail included."""
    server = start_server(MariaDBServer, config={"max-allowed-packet": 16384})

    async with MysqlPool(server.url) as pool:
        assert pool.compiler.packet_limit == 16384
        await pool.execute("CREATE TABLE t (id INT PRIMARY KEY, text VARCHAR(2000))")
        rows = [{"id": n, "text": "é" * 900} for n in range(100)]
        again = f" ON DUPLICATE KEY UPDATE text = '{'x' * 1900}'"
        assert await pool.insert_many(f"INSERT INTO t (id, text) VALUES (:id, :text){again}", rows) == 100
        assert await pool.count("SELECT * FROM t WHERE CHAR_LENGTH(text) = 900") == 100


@pytest.mark.parametrize("backend", ["mysql", "sqlite"])
async def test_a_cancelled_close_leaves_nothing_open(backend: str, mysql_url: str, tmp_path: Path):
    """Replicas and the writer are closed too, though the close was cut short while a client was in use."""
    pool: Any = (
        MysqlPool(mysql_url, replicas=[mysql_url])
        if backend == "mysql"
        else SqlitePool(path=str(tmp_path / "x.db"))
    )
    await pool.start()

    async with pool.get_client(read_only=True) as reading:
        await reading.select("SELECT 1")  # over a replica

    client = pool.get_client()
    await client.__aenter__()
    closing = asyncio.create_task(pool.close(timeout=30))

    while pool._context.source.ready:
        await asyncio.sleep(0)

    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    others = pool.replica_statistics() if backend == "mysql" else [pool.writer_statistics()]
    assert [(found.size, found.opened - found.closed) for found in (pool.statistics(), *others)] == [
        (0, 0)
    ] * 2
    await client.__aexit__(None, None, None)


@pytest.mark.parametrize("backend", ["aiomysql", "asyncmy", "sqlite"])
async def test_statements_end_in_time(backend: str, mysql_url: str, tmp_path: Path):
    """query_timeout ends a statement, prepared or not, and a transaction around it; then all goes on."""
    slow, make = "SELECT SLEEP(3)", "CREATE TABLE note (text VARCHAR(20))"
    url = mysql_url.replace("mysql://", f"mysql+{backend}://", 1)
    pool: SqlPool

    if backend == "sqlite":
        pool = SqlitePool(path=str(tmp_path / "x.db"), query_timeout=0.5)
        slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    else:
        pool = MysqlPool(url, query_timeout=0.5)

    async def write() -> None:
        async with pool.atomic() as client:
            await client.insert("INSERT INTO note VALUES ('undone')")
            await client.select(slow)

    async with pool:
        await pool.execute(make)

        with pytest.raises(QueryTimeout, match=r"query_timeout, 0\.5 s"):
            await pool.select(slow)

        with pytest.raises(TimeoutError):
            await pool.select(pool.prepare(slow))

        with pytest.raises(QueryTimeout):
            await write()

        assert await pool.count("SELECT * FROM note") == 0
