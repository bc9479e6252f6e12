"""Every kind of statement returns the same through our client as through SQLAlchemy's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tests.pool.sql._postgres import over
from tests.pool.sql.backends import POSTGRES
from tests.pool.sql.corpus import KEYED, METADATA, ORDER, ORDERS, PEOPLE, USER, Sample, samples
from ws_pool import MysqlPool, PostgresPool, SqlClient, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import WsError

BACKENDS = ("aiomysql", "asyncmy", "sqlite", *POSTGRES)


@pytest.fixture(autouse=True)
def _bytes_for_aiomysql(monkeypatch: pytest.MonkeyPatch):
    """Let SQLAlchemy's engine send bytes, which aiomysql 0.3 alone cannot do with PyMySQL 1.2."""
    import aiomysql.connection  # type: ignore[import-untyped]
    from pymysql.converters import escape_bytes

    if not callable(aiomysql.connection.escape_bytes_prefixed):
        monkeypatch.setattr(aiomysql.connection, "escape_bytes_prefixed", escape_bytes)


async def fill(client: SqlClient) -> None:
    """Make the tables and their rows."""
    await client.create_all(METADATA)
    await client.insert_many(USER, PEOPLE)
    await client.insert_many(ORDER, ORDERS)
    await client.insert_many(KEYED, [{"id": "one", "n": 1}, {"id": "two", "n": 2}])


async def restart_numbers(pool: SqlPool, sample: Sample) -> None:
    """Have the server give the same numbers again, which a rollback does not take back."""
    if sample.name.startswith(("queries", "expressions", "conditions", "types", "shapes")):
        return

    if isinstance(pool, PostgresPool):
        await pool.execute('ALTER SEQUENCE "user%s_id_seq" RESTART 1000')
        await pool.execute("ALTER SEQUENCE order_id_seq RESTART 1000")

    if isinstance(pool, MysqlPool) and not sample.name.startswith(
        ("queries", "expressions", "conditions", "types", "shapes")
    ):
        await pool.execute("ALTER TABLE `user%s` AUTO_INCREMENT = 1")
        await pool.execute("ALTER TABLE `order` AUTO_INCREMENT = 1")


async def ours(client: SqlClient, sample: Sample) -> dict[str, Any]:
    """Run a statement through our client, and roll it back."""
    found: dict[str, Any] = {}
    transaction = client.begin()

    async with transaction:
        try:
            args = () if sample.params is None else (sample.params,)
            result = await client.execute(sample.statement, *args)
            found["rows"] = [tuple(row) for row in result.rows]
            found["keys"] = result.rows[0].keys() if result.rows else None
            found["rowcount"] = result.rowcount
            found["last_id"] = result.last_id
            found["state"] = [
                [tuple(row) for row in await client.select(select(table).order_by(*table.primary_key))]
                for table in (USER, ORDER, KEYED)
            ]
        except WsError as error:
            found["error"] = str(error)

        await transaction.rollback()

    return found


def last_id(result: Any) -> Any:
    """Return the id of SQLAlchemy's INSERT, which comes by RETURNING on PostgreSQL."""
    if result.context.dialect.name != "postgresql":
        return 0 if result.returns_rows else result.context.get_lastrowid()

    try:
        key = result.inserted_primary_key
    except InvalidRequestError:  # of several rows, or of a query
        return 0

    return key[0] if key and isinstance(key[0], int) else 0


async def theirs(connection: AsyncConnection, sample: Sample) -> dict[str, Any]:
    """Run a statement through SQLAlchemy's engine, and roll it back."""
    found: dict[str, Any] = {}

    async with connection.begin() as transaction:
        try:
            result = await connection.execute(sample.statement, sample.params)
            rows = result.all() if result.returns_rows else []
            found["rows"] = [tuple(row) for row in rows]
            found["keys"] = tuple(result.keys()) if rows else None
            found["rowcount"] = result.rowcount
            context = result.context
            found["last_id"] = last_id(result) if context.isinsert else 0
            found["state"] = [
                [
                    tuple(row)
                    for row in (await connection.execute(select(table).order_by(*table.primary_key))).all()
                ]
                for table in (USER, ORDER, KEYED)
            ]
        except SQLAlchemyError as error:
            found["error"] = str(error)

        await transaction.rollback()

    return found


def differences(sample: Sample, mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Compare what both gave."""
    if ("error" in mine) != ("error" in other):
        return [f"{sample.name}: ours {mine.get('error')!r}, theirs {other.get('error')!r}"]

    keys = ["rows", "keys", "state"] if "error" not in mine else []
    writes = bool(getattr(sample.statement, "is_dml", False))

    if writes and "error" not in mine and not isinstance(sample.params, list) and other["rowcount"] >= 0:
        keys.append("rowcount")

        numbered = getattr(getattr(sample.statement, "table", None), "autoincrement_column", None) is not None

        if numbered and sample.statement.is_insert and not mine["rows"]:
            keys.append("last_id")

    return [
        f"{sample.name}: {key}\n  ours   {mine[key]!r}\n  theirs {other[key]!r}"
        for key in keys
        if repr(mine[key]) != repr(other[key])
    ]


async def prepared_differences(pool: SqlPool, sample: Sample, other: dict[str, Any]) -> list[str]:
    """Run a query twice through a handle, which some drivers prepare on the server, and compare."""
    handle = pool.prepare(sample.statement)
    wrong = []

    for _ in range(2):
        rows = await pool.select(handle, **(sample.params or {}))

        if repr([tuple(row) for row in rows]) != repr(other["rows"]):
            wrong.append(f"{sample.name}, prepared:\n  ours   {rows!r}\n  theirs {other['rows']!r}")

    return wrong


KINDS: dict[str, Any] = {"sqlite": SqlitePool, **dict.fromkeys(POSTGRES, PostgresPool)}


def urls(backend: str, request: pytest.FixtureRequest, directory: Path) -> tuple[str, str]:
    """Return the URL for our pool and that for SQLAlchemy's engine."""
    if backend == "sqlite":
        path = directory / "corpus.db"
        return f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}"

    if backend in POSTGRES:
        url = over(backend, request.getfixturevalue("postgres_url"))
        return url, url

    url = request.getfixturevalue("mysql_url").replace("mysql://", f"mysql+{backend}://", 1)
    return url, url


def enforce_foreign_keys(engine: AsyncEngine) -> None:
    """Have SQLite enforce foreign keys, as our pool does."""

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA foreign_keys = 1")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_statement_gives_what_sqlalchemy_gives(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """All statements of the corpus give equal rows, names, counts, ids and effects, also when cached."""
    our_url, their_url = urls(backend, request, tmp_path)
    kind = backend if backend in KINDS else "mysql"
    make: Any = KINDS.get(kind, MysqlPool)
    pool: SqlPool = make(our_url)
    engine = create_async_engine(their_url, poolclass=NullPool)
    wrong: list[str] = []
    count = 0

    if kind == "sqlite":
        enforce_foreign_keys(engine)

    async with pool:
        async with pool.get_client() as client:
            await fill(client)

        for _again in (False, True):
            for sample in samples():
                if sample.only and sample.only != kind:
                    continue

                await restart_numbers(pool, sample)

                async with engine.connect() as connection:
                    other = await theirs(connection, sample)

                await restart_numbers(pool, sample)

                async with pool.get_client() as client:
                    mine = await ours(client, sample)

                count += 1
                wrong += differences(sample, mine, other)

                if getattr(sample.statement, "is_select", False) and "error" not in other:
                    wrong += await prepared_differences(pool, sample, other)

    await engine.dispose()
    assert not wrong, "\n".join(wrong)
    assert count >= 2 * 150


def test_the_corpus_has_at_least_150_statements_for_each_backend():
    """The corpus is as large as promised."""
    everything = list(samples())
    assert len({sample.name for sample in everything}) == len(everything)

    for kind in ("mysql", "sqlite"):
        assert sum(sample.only in {"", kind} for sample in everything) >= 150


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_client_that_skips_processors_is_caught(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The broken twin, whose rows are what the driver gave, fails the comparison."""
    from ws_pool._sql.compile.plan import RowMaker

    our_url, their_url = urls(backend, request, tmp_path)
    make: Any = KINDS.get(backend, MysqlPool)
    engine = create_async_engine(their_url, poolclass=NullPool)
    sample = Sample("types", select(USER))

    async with make(our_url) as pool:
        async with pool.get_client() as client:
            await fill(client)

        async with engine.connect() as connection:
            other = await theirs(connection, sample)

        honest = RowMaker.many
        monkeypatch.setattr(RowMaker, "many", lambda self, rows, _row_type: list(map(self.cls, rows)))

        async with pool.get_client() as client:
            mine = await ours(client, sample)

        monkeypatch.setattr(RowMaker, "many", honest)

    await engine.dispose()
    assert differences(sample, mine, other)
