"""Handles of `prepare`: whatever protocol they take, they return what their statement returns."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncmy.connection
import pytest
from sqlalchemy import text

from tests.pool.sql.backends import MYSQL, make_pool
from ws_pool import MysqlPool
from ws_pool._sql.mysql import binary
from ws_pool._sql.mysql.connection import AsyncmyConnection
from ws_pool._sql.pool import SqlPool

COLUMNS = """
    id INT PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP NULL, t TIME(3), f FLOAT, g DOUBLE,
    h DOUBLE(10,2), n DECIMAL(30,10), y YEAR, i BIGINT UNSIGNED, s VARCHAR(50), b BLOB, e ENUM('x','y'),
    j JSON, bit8 BIT(8), z INT(8) ZEROFILL
"""
ROWS = r"""
    1, '0000-00-00', '0000-00-00 00:00:00', NULL, '-838:59:59', 1.1, 0.1, 1.239, 1.5, 0, 18446744073709551615, '', '', 'x', '{}', b'1', 7
    2, '2024-02-29', '2024-02-29 01:02:03.000004', '2024-01-01', '10:00:00.5', 16777217, 1e308, 2, 12345678901234567890.0123456789, 2155, 0, 'ä\\0', x'00ff', 'y', '[1]', b'11111111', 1
    3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    4, '2024-00-10', '2024-01-00', NULL, '838:59:59', -0.0, -1e-300, 0, 0, 1901, 1, 'x', 'y', '', NULL, NULL, 0
""".strip().splitlines()  # noqa: E501 - a row each

QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "all columns": ("SELECT * FROM kinds WHERE id >= :id ORDER BY id", {"id": 0}),
    "a zero date": ("SELECT d FROM kinds WHERE id = :id", {"id": 1}),
    "half a date": ("SELECT d, dt FROM kinds WHERE id = :id", {"id": 4}),
    "a real date": ("SELECT d, dt, ts FROM kinds WHERE id = :id", {"id": 2}),
    "no date": ("SELECT d, dt, ts FROM kinds WHERE id = :id", {"id": 3}),
    "VALUES": ("WITH c (a, b) AS (VALUES (:x, :y)) SELECT a, b FROM c", {"x": 1, "y": "b"}),
    "no label": ("SELECT :x, :x + 1, id FROM kinds WHERE id = :x", {"x": 2}),
    "single precision": ("SELECT f, f * :n AS g FROM kinds WHERE id < 3", {"n": 3}),
    "a double with decimals": ("SELECT h * 1.1 AS h, AVG(h) AS a FROM kinds WHERE id > :id", {"id": 0}),
    "a position": ("SELECT id, -id AS m FROM kinds ORDER BY :n", {"n": 2}),
    "a group's position": ("SELECT y, COUNT(*) AS n FROM kinds GROUP BY :n ORDER BY y", {"n": 1}),
    "a decimal": ("SELECT id FROM kinds WHERE n = :n", {"n": Decimal("12345678901234567890.0123456789")}),
    "a date": ("SELECT id FROM kinds WHERE d = :d", {"d": dt.date(2024, 2, 29)}),
    "a float": ("SELECT id FROM kinds WHERE g = :g", {"g": 0.1}),
    "a number for text": ("SELECT :a + 1 AS n, CONCAT(:a, 'x') AS s", {"a": "5"}),
    "numbers": ("SELECT :a AS a, :b AS b, -:a AS c", {"a": 2**63, "b": -5}),
    "a limit": ("SELECT id FROM kinds ORDER BY id LIMIT :n", {"n": 2}),
    "bytes": ("SELECT :b AS b, HEX(:b) AS h", {"b": b"\x00\xff'"}),
    "nothing": ("SELECT :x AS x, :x IS NULL AS y", {"x": None}),
    "truth": ("SELECT :x AS x", {"x": True}),
    "long text": ("SELECT LENGTH(:x) AS n, :x AS x", {"x": "ä" * 700_000}),
    "sixteen MiB": ("SELECT REPEAT('x', :n) AS x, 2 AS two", {"n": 17_000_000}),
}


@pytest.fixture(params=MYSQL)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with a row of every kind."""
    async with make_pool(request.param, mysql_url, tmp_path, sql_mode="") as pool:
        await pool.execute(f"CREATE TABLE kinds ({COLUMNS})")

        for row in ROWS:
            async with pool.get_client() as client:
                await client.connection.run(f"INSERT INTO kinds VALUES ({row})", None)

        yield pool


@pytest.mark.parametrize("name", QUERIES)
async def test_a_handle_returns_what_its_statement_does(pool: SqlPool, name: str) -> None:
    """Twelve times each: no run is different, also not the eleventh."""
    sql, params = QUERIES[name]

    if name == "sixteen MiB":
        await pool.execute("SET GLOBAL max_allowed_packet = 64000000")
        pool.expire()

    async with pool.get_client() as client:
        plain = await client.select(sql, **params)
        assert plain, "the query finds something"

        for statement in (sql, text(sql), pool.prepare(sql)):
            for _ in range(3 if "long" in name or "MiB" in name else 12):
                assert repr(await client.select(statement, **params)) == repr(plain)
                assert repr((await client.execute(statement, **params)).rows) == repr(plain)

        assert await client.find("SELECT 1 AS one") == (1,)  # nothing of a long row is left


async def test_in_binary_alone_they_differ(
    mysql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin trusts the binary protocol, and loses a zero date and what VALUES holds."""
    from ws_pool._sql.mysql import connection

    monkeypatch.setattr(connection, "same_as_text", lambda _sql, _values: True)
    monkeypatch.setattr(connection, "read_as_text", lambda _rows, _description: True)

    async with make_pool("asyncmy", mysql_url, tmp_path, sql_mode="") as pool:
        await pool.execute("CREATE TABLE kinds (id INT, d DATE)")
        await pool.execute("INSERT INTO kinds VALUES (1, '0000-00-00')")
        zero, values = "SELECT d FROM kinds WHERE id = :id", QUERIES["VALUES"][0]
        assert await pool.select(zero, id=1) == [("0000-00-00",)]
        assert await pool.select(pool.prepare(zero), id=1) == [(None,)]
        handle = pool.prepare(values)
        assert await pool.select(handle, x=1, y="b") == [(b"", b"")]


async def test_strings_are_never_prepared(
    mysql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a handle is prepared on the server, however often a statement is run."""
    ran: list[str] = []
    real = AsyncmyConnection.run_prepared

    async def observed(self: AsyncmyConnection, sql: str, values: Any) -> Any:
        ran.append(sql)
        return await real(self, sql, values)

    monkeypatch.setattr(AsyncmyConnection, "run_prepared", observed)

    async with make_pool("asyncmy", mysql_url, tmp_path) as pool:
        for _ in range(30):
            await pool.select("SELECT :n AS n", n=1)

        assert ran == []
        await pool.select(pool.prepare("SELECT :n AS n"), n=1)
        assert ran == ["SELECT %s AS n"]


def test_where_a_parameter_is_not_a_literal() -> None:
    """The judgement errs on the side of text, and does not look into strings."""
    assert binary.same_as_text("SELECT a FROM t WHERE b = %s ORDER BY a LIMIT %s", (1, 2))
    assert binary.same_as_text("SELECT 'values order by' FROM t WHERE b = %s", (1,))
    assert not binary.same_as_text("SELECT a FROM t ORDER BY FIELD(a, %s)", (1,))
    assert not binary.same_as_text("SELECT a FROM t LIMIT %s", (-1,))
    assert not binary.same_as_text("SELECT %s", (2**64,))
    assert not binary.same_as_text("SELECT %s", ("\ud800",))


async def test_the_driver_keeps_its_short_ways(mysql_url: str) -> None:
    """It has them for connections of its own class alone, and not for those of a subclass."""
    pool = MysqlPool(mysql_url.replace("mysql://", "mysql+asyncmy://", 1))

    async with pool, pool.get_client() as client:
        assert type(client.raw) is asyncmy.connection.Connection
        assert "_get_server_information" not in vars(client.raw)


async def test_what_is_known_of_a_statement_is_bounded(
    mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is about the very columns that it returns: others are looked at anew."""
    monkeypatch.setattr("ws_pool._sql.mysql.connection._REMEMBERED", 2)

    async with MysqlPool(mysql_url.replace("mysql://", "mysql+asyncmy://", 1), max_size=1) as pool:
        await pool.execute("CREATE TABLE turned (id INT PRIMARY KEY, v INT)")
        await pool.execute("INSERT INTO turned VALUES (1, 2)")
        turned = pool.prepare("SELECT * FROM turned WHERE id = :id")

        for handle in [
            turned,
            *(pool.prepare(f"SELECT id + {n} AS a FROM turned WHERE id = :id") for n in range(5)),
        ]:
            for _ in range(3):
                assert await pool.find(handle, id=1) is not None

        assert await pool.find(turned, id=1) == (1, 2)
        await pool.execute("ALTER TABLE turned MODIFY v FLOAT")
        await pool.execute("UPDATE turned SET v = 0.1")
        assert await pool.find(turned, id=1) == (1, 0.1)
        await pool.execute("UPDATE turned SET v = NULL")
        await pool.execute("ALTER TABLE turned MODIFY v DATE NULL")

        for value in ("2026-01-02", None, "2026-01-03"):
            await pool.execute("UPDATE turned SET v = :v", v=value)
            row = await pool.find(turned, id=1)
            assert row == (1, None if value is None else dt.date.fromisoformat(value))
