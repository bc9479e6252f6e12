"""What a statement returns beside its rows: further results, and what a changed session makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.dialects.mysql.aiomysql import dialect

from tests.pool.sql.backends import BACKENDS, MYSQL, make_pool
from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.compile.plan import CompiledPlan
from ws_pool._sql.connection import Reply
from ws_pool._sql.rows import Row
from ws_pool._sql.sqlite import statement_text
from ws_pool.errors import UsageError


@pytest.mark.parametrize("driver", MYSQL)
class TestCall:
    """A CALL has as many results as its procedure has queries."""

    async def test_all_results_can_be_read(self, driver: str, mysql_url: str, tmp_path: Path):
        """The first is the result's own rows, the others come after it, in order."""
        async with make_pool(driver, mysql_url, tmp_path) as pool:
            body = "SELECT 1 AS a; DO 0; SELECT 2 AS b, 3 AS c UNION SELECT 4, 5; SELECT 6 AS d WHERE FALSE;"
            await pool.execute(f"CREATE PROCEDURE p() BEGIN {body} END")
            result = await pool.execute("CALL p()")
            assert [row.a for row in result.rows] == [1]
            assert [[row._asdict() for row in more.rows] for more in result.more_results()] == [
                [{"b": 2, "c": 3}, {"b": 4, "c": 5}],
                [],
            ]
            dicts = await pool.execute("CALL p()", row_type=dict)
            assert dicts.more_results()[0].rows == [{"b": 2, "c": 3}, {"b": 4, "c": 5}]
            assert (await pool.execute("SELECT 1")).more_results() == ()


@pytest.mark.parametrize("driver", MYSQL)
async def test_a_handle_follows_the_database_of_its_session(driver: str, mysql_url: str, tmp_path: Path):
    """What was prepared before a USE reads from the new database, as the statement in text does."""
    async with make_pool(driver, mysql_url, tmp_path, max_size=1) as pool:
        await pool.execute("CREATE TABLE place (name VARCHAR(20))")
        await pool.execute("INSERT INTO place VALUES ('here')")
        other = f"{mysql_url.rpartition('/')[2].partition('?')[0]}_other"
        await pool.execute(f"CREATE DATABASE {other}")

        try:
            await pool.execute(f"CREATE TABLE {other}.place (name VARCHAR(20))")
            await pool.execute(f"INSERT INTO {other}.place VALUES ('there')")
            handle = pool.prepare(text("SELECT name FROM place WHERE name <> :not"))
            assert [row.name for row in await pool.select(handle, {"not": ""})] == ["here"]

            async with pool.get_client() as client:
                await client.execute(f"USE {other}")
                assert [row.name for row in await client.select(handle, {"not": ""})] == ["there"]

            assert [row.name for row in await pool.select(handle, {"not": ""})] == ["here"]
        finally:
            await pool.execute(f"DROP DATABASE {other}")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_columns_of_one_name_are_not_lost_in_dicts(backend: str, mysql_url: str, tmp_path: Path):
    """A dict holds each name once, so it is refused; rows and tuples have all columns."""
    query = "SELECT 1 AS id, 2 AS name, 3 AS id"

    async with make_pool(backend, mysql_url, tmp_path) as pool, pool.get_client() as client:
        for _ in range(2):
            with pytest.raises(UsageError, match="several columns id: give them labels for dicts"):
                await client.select(query, row_type=dict)

            with pytest.raises(UsageError, match="several columns id"):
                await client.find(query, row_type=dict)

            with pytest.raises(UsageError, match="several columns id"):
                async for _row in client.iterate(query, row_type=dict):
                    pytest.fail("it yielded a row")

            assert await client.select(query, row_type=tuple) == [(1, 2, 3)]
            assert tuple(await client.find(query) or ()) == (1, 2, 3)

        assert await client.select(f"{query} WHERE 1 = 0", row_type=dict) == []


@pytest.mark.parametrize("backend", BACKENDS)
class TestRowType:
    """``row_type`` says what rows are."""

    @pytest.mark.parametrize(("kind", "shown"), [(list, "list"), (set, "set"), ("dict", "'dict'"), (5, "5")])
    async def test_of_an_unknown_one_nothing_is_run(
        self, backend: str, kind: Any, shown: str, mysql_url: str, tmp_path: Path
    ):
        """No verb makes something else of it."""
        async with make_pool(backend, mysql_url, tmp_path, max_size=1) as pool, pool.get_client() as client:
            await client.execute("CREATE TABLE n (a INT)")
            handle = pool.prepare(text("SELECT a FROM n WHERE a <> :no"))
            message = f"row_type is Row, dict or tuple, not {shown}"

            for verb in (client.select, client.find, client.execute):
                with pytest.raises(UsageError, match=message):
                    await verb("INSERT INTO n VALUES (1) RETURNING a", row_type=kind)

                with pytest.raises(UsageError, match=message):
                    await verb(handle, no=1, row_type=kind)

            with pytest.raises(UsageError, match=message):
                client.iterate("SELECT a FROM n", row_type=kind)

            assert await client.count("SELECT a FROM n") == 0

    async def test_rows_on_request(self, backend: str, mysql_url: str, tmp_path: Path):
        """Where dicts are the pool's, rows and tuples are had as well."""
        async with make_pool(backend, mysql_url, tmp_path, row_type=dict) as pool:
            assert await pool.select("SELECT 1 AS a") == [{"a": 1}]
            (row,) = await pool.select("SELECT 1 AS a", row_type=Row)
            assert (row.a, row) == (1, (1,))
            assert type(await pool.find("SELECT 1 AS a", row_type=tuple)) is tuple


def test_no_values_in_a_diagnosed_traceback():
    """A log that shows variables has neither the rows of a reply nor the values of a statement."""
    plan, _, _ = Compiler(dialect(), statement_text, size=10).plan(select(literal("hunter2")), None)
    assert isinstance(plan, CompiledPlan)
    shown = [repr(Reply([("hunter2",)], None, 1, 0)), *map(repr, plan._sources)]
    assert len(shown) == 2
    assert not [text for text in shown if "hunter2" in text]
