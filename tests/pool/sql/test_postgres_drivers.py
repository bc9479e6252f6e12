"""PostgreSQL over each driver: what the drivers leave to us, and what differs between them."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from tests.pool.sql._postgres import ITEM, over
from tests.pool.sql.test_mysql_servers import CERTIFICATE
from tests.pool.sql.test_postgres import active
from tests.servers import StartServer
from tools.servers import PostgresServer
from ws_pool import PostgresPool
from ws_pool.errors import IntegrityViolation, QueryError, UnavailableError, UsageError


async def test_a_handle_whose_columns_change(pool: PostgresPool) -> None:
    """A statement kept prepared is prepared anew after another connection's ALTER TABLE."""
    handle = pool.prepare("SELECT * FROM item WHERE id = :id")

    async with pool.get_client(alone=True) as reader, pool.get_client(alone=True) as other:
        assert (await reader.select(handle, id=1))[0].keys() == ("id", "name", "stock")
        await other.execute("ALTER TABLE item ADD COLUMN more text DEFAULT 'x'")
        assert (await reader.select(handle, id=1))[0].more == "x"
        await other.execute("ALTER TABLE item DROP COLUMN more")

        with suppress(QueryError):  # inside a transaction it may be an error, and never other columns
            async with reader.begin():
                assert (await reader.select(handle, id=1))[0].keys() == ("id", "name", "stock")


async def _set_text(raw: Any) -> None:
    await raw.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=str.upper)


async def _alias_text(raw: Any) -> None:
    await raw.set_builtin_type_codec("text", schema="pg_catalog", codec_name="bytea")


async def _reset_json(raw: Any) -> None:
    await raw.reset_type_codec("json", schema="pg_catalog")


async def _load_numbers(raw: Any) -> None:
    from psycopg.types.string import TextBinaryLoader, TextLoader

    raw.adapters.register_loader("numeric", TextLoader)
    raw.adapters.register_loader("numeric", TextBinaryLoader)


@pytest.mark.parametrize(
    ("driver", "change"),
    [
        ("asyncpg", _set_text),
        ("asyncpg", _alias_text),
        ("asyncpg", _reset_json),
        ("psycopg", _load_numbers),
    ],
)
async def test_how_one_user_reads_values_ends_with_the_block(
    driver_url: str, change: Callable[[Any], Awaitable[None]]
) -> None:
    """Codecs and adapters that were set on the driver's own connection do not reach the next user."""
    query = """SELECT 'x' AS t, 1.5 AS n, '{"a": 1}'::json AS j"""

    async with PostgresPool(driver_url, min_size=1, max_size=1) as pool:
        async with pool.get_client() as client:
            before = await client.select(query)
            await change(client.raw)

        async with pool.get_client() as client:
            after = await client.select(query)

    assert [(type(value), value) for value in after[0]] == [(type(value), value) for value in before[0]]


async def test_how_an_engine_reads_values_ends_with_its_session(driver_url: str) -> None:
    """Its own reading of JSON and addresses ends too; an engine without one replaces no connection."""
    query = """SELECT '{"a": 1}'::json AS j, '{"a": 1}'::jsonb AS b"""

    async with PostgresPool(driver_url, min_size=1, max_size=1) as pool:
        async with pool.engine().connect() as session:
            assert tuple((await session.execute(text(query))).one()) == ({"a": 1}, {"a": 1})

        async with pool.get_client() as client, client.begin(), client.orm_session() as session:
            assert tuple((await session.execute(text(query))).one()) == ({"a": 1}, {"a": 1})

        assert tuple((await pool.select(query))[0]) == ({"a": 1}, {"a": 1})
        assert pool.statistics().opened == 1

        async with pool.engine(json_deserializer=lambda _: "read by the engine").connect() as session:
            assert (await session.execute(text(query))).one().j == "read by the engine"

        assert tuple((await pool.select(query))[0]) == ({"a": 1}, {"a": 1})

        async with pool.engine(native_inet_types=False).connect() as session:
            assert (await session.execute(text("SELECT '10.0.0.1'::inet"))).scalar_one() == "10.0.0.1"

        assert not isinstance((await pool.select("SELECT '10.0.0.1'::inet AS a"))[0].a, str)


@pytest.mark.parametrize(
    "end",
    [
        "COMMIT",
        " commit",
        "/* the /* very */ end */ COMMIT",
        "-- so\nCOMMIT;",
        "END",
        "END TRANSACTION",
        "COMMIT WORK",
        "PREPARE TRANSACTION 'later'",
    ],
)
async def test_the_end_of_a_failed_transaction_is_an_error(pool: PostgresPool, end: str) -> None:
    """However it is spelled, and whether it is a string, a statement or a handle."""
    for statement in (end, text(end), pool.prepare(text(end))):
        async with pool.get_client() as client:
            await client.execute("BEGIN")
            await client.insert(ITEM, name="kept?")

            with pytest.raises(IntegrityViolation):
                await client.insert(ITEM, name="n1")

            with pytest.raises(QueryError, match="COMMIT was a ROLLBACK"):
                await client.execute(statement)

            for undo in ("ROLLBACK", "/* or */ ABORT"):
                await client.execute("BEGIN")
                await client.insert(ITEM, name="gone")
                await client.execute(undo)

    assert await pool.count(ITEM) == 3


async def test_an_iteration_over_changed_rows(pool: PostgresPool) -> None:
    """The rows of RETURNING come in blocks, and what was changed is kept."""
    statement = insert(ITEM).from_select(["name"], select(ITEM.c.name + "x")).returning(ITEM.c.name)

    async with pool.get_client() as client:
        found = [row.name async for row in client.iterate(statement, size=2)]

    assert sorted(found) == ["n1x", "n2x", "n3x"]
    assert await pool.count(ITEM) == 6


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW server_version",
        "VALUES (1), (2)",
        "WITH n AS (SELECT 1 AS a) SELECT a FROM n",
        "EXPLAIN SELECT 1",
    ],
)
async def test_iterations_over_other_statements(pool: PostgresPool, sql: str) -> None:
    """What has rows can be iterated over."""
    async with pool.get_client() as client:
        assert [tuple(row) async for row in client.iterate(sql, size=1)] == [
            tuple(row) for row in await client.select(sql)
        ]


async def test_an_idle_connection_that_the_server_has_ended(pool: PostgresPool, driver_url: str) -> None:
    """It is not used again: the next call sees no error."""
    async with PostgresPool(driver_url, max_size=1) as victims:
        pid = (await victims.find("SELECT pg_backend_pid() AS pid")).pid
        await pool.execute("SELECT pg_terminate_backend(:pid)", pid=pid)

        while (await pool.find("SELECT count(*) AS n FROM pg_stat_activity WHERE pid = :pid", pid=pid)).n:
            await asyncio.sleep(0.01)

        await asyncio.sleep(0.2)  # its last words are on the way
        assert (await victims.find("SELECT pg_backend_pid() AS pid")).pid != pid


async def test_closing_ends_what_still_runs(pool: PostgresPool, driver_url: str) -> None:
    """A statement under way when its pool is closed is an error, and ends on the server."""
    users = PostgresPool(driver_url)
    await users.start()
    running = asyncio.create_task(users.execute("SELECT pg_sleep(60)"))

    while not await active(pool, "SELECT pg_sleep(60)%"):
        await asyncio.sleep(0.01)

    await users.close(timeout=0)

    with pytest.raises(UnavailableError):
        await running


async def test_a_connection_that_is_closed_under_its_user(pool: PostgresPool) -> None:
    """The next statement is the error of a lost connection, whatever the driver makes of it."""
    async with pool.get_client() as client:
        client.connection.terminate()

        with pytest.raises(UnavailableError):
            await client.select("SELECT 1 AS a")

    assert await pool.select("SELECT 1 AS a") == [(1,)]


async def test_a_wrong_user(postgres_server: PostgresServer, driver: str) -> None:
    """The server's refusal is in the error of the start, which does not wait for another server."""
    url = postgres_server.url.replace("postgres@", "nobody_there@")

    with pytest.raises(UnavailableError, match='role "nobody_there" does not exist'):
        await PostgresPool(over(driver, url)).start()


class TestCopies:
    """COPY of files."""

    async def test_values_of_the_query(self, pool: PostgresPool) -> None:
        """They are written into the query, where a value may be, and nowhere else."""
        out = io.BytesIO()

        async with pool.get_client() as client:
            sql = "SELECT :words, name /* $1 */ FROM item WHERE stock > :least AND name <> '$x$' ORDER BY id"
            assert await client.copy_to(sql, out, words="it's $2", least=5, format="csv") == 3

        assert out.getvalue() == b"it's $2,n1\nit's $2,n2\nit's $2,n3\n"

    @pytest.mark.parametrize(
        ("sql", "shown"),
        [
            ("SELECT :a || '$1' || :b", b"x'$1y\\\\$2\n"),
            ("SELECT '$2', :a, :b -- $1", b"$2\tx'\ty\\\\$2\n"),
            ("SELECT :a, :b /* $2 */;", b"x'\ty\\\\$2\n"),
        ],
    )
    async def test_values_stay_out_of_its_strings(self, pool: PostgresPool, sql: str, shown: bytes) -> None:
        """A text that looks like the place of a value is text; comments and a semicolon end the query."""
        out = io.BytesIO()

        async with pool.get_client() as client:
            assert await client.copy_to(sql, out, a="x'", b="y\\$2") == 1

        assert out.getvalue() == shown

    async def test_values_keep_their_types(self, pool: PostgresPool) -> None:
        """As in the query itself, NULL and negative numbers too."""
        out = io.BytesIO()
        query = select(
            literal(-5) - literal(-7), literal(None), literal([1, None], ARRAY(Integer)), literal("5")
        )

        async with pool.get_client() as client:
            assert await client.copy_to(query.where(literal(1).in_([1, 2])), out) == 1
            assert await client.copy_to(select(ITEM.c.name).where(ITEM.c.id == 2), out) == 1

        assert out.getvalue() == b"2\t\\N\t{1,NULL}\t5\nn2\n"

    async def test_options(self, pool: PostgresPool) -> None:
        """Texts, switches and lists of columns; what COPY does not have is an error."""
        out = io.BytesIO()

        async with pool.get_client() as client:
            given = {"header": True, "delimiter": ";", "force_quote": ["name"]}
            await client.copy_to(
                "SELECT id, name FROM item ORDER BY id LIMIT 1", out, format="csv", options=given
            )
            assert out.getvalue() == b'id;name\n1;"n1"\n'

            for name in ("nonsense", "header) x ("):
                with pytest.raises(UsageError, match=r"copy_to.. has no option .*; it has: delimiter"):
                    await client.copy_to(ITEM, out, format="csv", options={name: True})

            with pytest.raises(UsageError, match=r"copy_from.. has no option force_quote"):
                await client.copy_from(ITEM, b"", format="csv", force_quote=["name"])

            wrong: Any = "json"

            for copy in (client.copy_from(ITEM, b"", format=wrong), client.copy_to(ITEM, out, format=wrong)):
                with pytest.raises(UsageError, match="the format text, csv, binary, not 'json'"):
                    await copy

            assert await client.count(ITEM) == 3


async def test_the_engine_writes_as_its_users_do(postgres_url: str) -> None:
    """Over psycopg values have names in text; a session's isolation and savepoints are SQLAlchemy's."""
    async with PostgresPool(over("psycopg", postgres_url), max_size=1) as pool:
        async with pool.engine().connect() as connection:
            found = await connection.exec_driver_sql("SELECT %(n)s::int + 1, '%%'", {"n": 1})
            assert found.one() == (2, "%")

        async with pool.engine().connect() as plain:
            serial = await plain.execution_options(isolation_level="SERIALIZABLE")
            assert (await serial.exec_driver_sql("SHOW transaction_isolation")).scalar() == "serializable"

        async with pool.get_client() as client, client.begin():
            assert (await client.find("SHOW transaction_isolation", row_type=tuple)) == ("read committed",)

        assert pool.statistics().opened == 1


def encrypt(server: PostgresServer) -> None:
    """Have a server offer TLS."""
    data = Path(str(server.execute("SHOW data_directory")[0][0]))
    key = data / "server.key"
    key.write_bytes(CERTIFICATE.read_bytes())
    key.chmod(0o600)
    os.chown(key, data.stat().st_uid, data.stat().st_gid)
    server.execute("ALTER SYSTEM SET ssl_cert_file = 'server.key'", "ALTER SYSTEM SET ssl = on")
    server.execute("SELECT pg_reload_conf()")


async def test_tls(start_server: StartServer, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modes of libpq: encrypted or not, and with verify-full not without certificates to trust."""
    server = await asyncio.to_thread(start_server, PostgresServer)
    encrypt(server)

    while server.execute("SHOW ssl") != [("on",)]:
        await asyncio.sleep(0.05)

    monkeypatch.setenv("PGSSLROOTCERT", str(CERTIFICATE))
    found = {}

    for mode in ("disable", "require", "verify-full"):
        url = over(driver, server.url).replace(f"@{server.host}:", "@localhost:")

        async with PostgresPool(url, sslmode=mode) as pool:
            row = await pool.find("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            found[mode] = row.ssl

    assert found == {"disable": False, "require": True, "verify-full": True}

    monkeypatch.setenv("PGSSLROOTCERT", "/nowhere")

    with pytest.raises(UnavailableError, match=r"root certificate file|No such file"):
        await PostgresPool(over(driver, server.url), sslmode="verify-full").start()
