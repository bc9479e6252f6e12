"""SQLite behind the same client: one writer, several readers."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, select, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker

from ws_pool import SqlitePool
from ws_pool.errors import (
    QueryError,
    TransactionConflict,
    UnavailableError,
    UnsupportedStatement,
    UsageError,
)

METADATA = MetaData()
NOTE = Table("note", METADATA, Column("id", Integer, primary_key=True), Column("text", String(50)))


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[SqlitePool]:
    """A pool on a file."""
    async with SqlitePool(f"sqlite:///{tmp_path / 'notes.db'}", maxsize=3) as pool:
        await pool.create_all(METADATA)
        yield pool


async def test_the_database_is_set_up_for_production(pool: SqlitePool, tmp_path: Path):
    """WAL, a busy timeout and foreign keys are on; readers cannot write."""
    assert (await pool.find("SELECT * FROM pragma_journal_mode()"))[0] == "wal"
    assert (await pool.find("SELECT * FROM pragma_foreign_keys()"))[0] == 1
    assert (await pool.find("SELECT * FROM pragma_busy_timeout()"))[0] == 5000
    assert pool.path == str(tmp_path / "notes.db")
    assert "notes.db" in repr(pool)

    async with pool.get_client() as client:
        with pytest.raises(QueryError, match="readonly"):
            await client.connection.run("INSERT INTO note (text) VALUES ('x')", None)


async def test_nan_is_refused(pool: SqlitePool):
    """SQLite would store NULL for it without a word; infinity is kept."""
    nan, infinity = float("nan"), float("inf")

    async with pool.get_client() as client:
        with pytest.raises(UnsupportedStatement, match="NaN has no form in SQLite"):
            await client.insert("INSERT INTO note (text) VALUES (:n)", n=nan)

        with pytest.raises(UnsupportedStatement, match="NaN"):
            await client.execute("INSERT INTO note (text) VALUES (:n)", [{"n": 1.5}, {"n": nan}])

        with pytest.raises(UnsupportedStatement, match="NaN"):
            async for _row in client.iterate("SELECT :n AS n", n=nan):
                pytest.fail("it yielded a row")

        assert await client.count(NOTE) == 0
        assert await client.find("SELECT :n AS n", n=infinity) == (infinity,)


async def test_readers_do_not_wait_for_the_writer(pool: SqlitePool):
    """While a transaction is open others read what was there before."""
    async with pool.get_client() as client, client.begin():
        await client.insert(NOTE, text="new")
        assert await client.count(NOTE) == 1

        async def look() -> int:
            return await pool.count(NOTE)

        assert await asyncio.gather(*(look() for _ in range(3))) == [0, 0, 0]

    assert await pool.count(NOTE) == 1


async def test_writers_take_turns_and_are_never_busy(pool: SqlitePool):
    """A hundred tasks that write at the same time all succeed."""
    await asyncio.gather(*(pool.insert(NOTE, text=str(n)) for n in range(100)))

    async def change(n: int) -> None:
        async with pool.atomic():
            await pool.update(update(NOTE).where(NOTE.c.id == n).values(text="changed"))
            await asyncio.sleep(0)

    await asyncio.gather(*(change(n) for n in range(1, 31)))
    assert await pool.count(select(NOTE).where(NOTE.c.text == "changed")) == 30


async def test_another_process_that_writes_is_waited_for_or_told(tmp_path: Path):
    """A lock of someone else is a conflict after busy_timeout, and retried when asked for."""
    path = tmp_path / "busy.db"

    async with SqlitePool(path=str(path), busy_timeout=0.05) as pool:
        await pool.create_all(METADATA)
        other = sqlite3.connect(path, isolation_level=None)

        try:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(TransactionConflict, match="locked"):
                await pool.insert(NOTE, text="x")

            with pytest.raises(TransactionConflict):
                async with pool.atomic():
                    pass

            runs = 0

            @pool.atomic(retry_deadlocks=20)
            async def add() -> None:
                nonlocal runs
                runs += 1
                await pool.insert(NOTE, text="x")

            adding = asyncio.create_task(add())
            await asyncio.sleep(0.1)
            other.execute("COMMIT")
            await adding
            assert await pool.count(NOTE) == 1
        finally:
            other.close()


async def test_a_cancelled_write_is_undone_and_the_writer_lives_on(pool: SqlitePool):
    """A write cut short is interrupted, and its connection is good for the next."""
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    endless = f"INSERT INTO note (text) {numbers}"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await pool.execute(endless)

    await pool.insert(NOTE, text="after")
    assert await pool.count(NOTE) == 1
    assert pool.writer_statistics().opened == 1


async def test_a_database_in_memory_has_one_connection():
    """Without a file readers and writer are the same connection."""
    async with SqlitePool("sqlite://", init_command="PRAGMA temp_store = 2", cache_kb=100) as pool:
        await pool.create_all(METADATA)
        await pool.insert_many(NOTE, [{"text": str(n)} for n in range(5)])
        assert await pool.count(NOTE) == 5
        assert pool.statistics() == pool.writer_statistics()

        async with pool.get_client() as client, client.begin():
            await client.insert(NOTE, text="x")

        pool.expire()
        assert (await pool.health()).ok
        assert await pool.count(NOTE) == 6


async def test_settings_of_a_session_do_not_reach_the_next_user(pool: SqlitePool):
    """A pragma, a temporary table and an open transaction on the raw connection are undone or closed."""
    async with pool.get_client() as client, client.begin():
        await client.execute("PRAGMA foreign_keys = 0")
        await client.raw.execute("SELECT 1")

    async with pool.get_client() as client, client.begin():
        assert (await client.find("PRAGMA foreign_keys"))[0] == 1

    lease = await pool._writers.acquire()
    await lease.connection.run("BEGIN", None)
    pool._writers.release(lease)
    await pool.insert(NOTE, text="free")
    pool.expire()
    assert await pool.count(NOTE) == 1


async def test_engine_sessions_hold_the_writer(pool: SqlitePool):
    """SQLAlchemy's engine runs over the pool's writing connection, and releases it."""
    sessions = async_sessionmaker(pool.engine())

    async with sessions() as session, session.begin():
        await session.execute(text("INSERT INTO note (text) VALUES ('engine')"))
        assert pool.writer_statistics().leased == 1

    async with pool.engine().connect() as connection:
        await connection.execute(text("INSERT INTO note (text) VALUES ('rolled back')"))

    assert [row.text for row in await pool.select(select(NOTE))] == ["engine"]

    async with pool.engine().connect() as connection:
        await connection.execute(select(func.count()).select_from(NOTE))
        await connection.invalidate()

    await pool.insert(NOTE, text="after")
    assert await pool.count(NOTE) == 2


async def test_what_cannot_be_opened_or_asked_for_is_told(tmp_path: Path):
    """A missing directory and an isolation level that SQLite lacks are errors that say so."""
    missing = SqlitePool(path=str(tmp_path / "no" / "such" / "x.db"))

    with pytest.raises(UnavailableError, match="unable to open database file"):
        await missing.start()

    async with SqlitePool(path=str(tmp_path / "x.db")) as pool:
        with pytest.raises(UsageError, match="SQLite has no isolation level"):
            async with pool.atomic(isolation="READ COMMITTED"):
                pass

        with pytest.raises(QueryError):
            await pool.execute("INSERT INTO nowhere VALUES (:n)", n=2**70)

        async with pool.get_client(read_only=True) as client:
            with pytest.raises(UsageError, match="only reads"):
                await client.execute("CREATE TABLE x (a)")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG])
async def test_the_drivers_debug_lines_are_quiet_unless_asked_for(
    level: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """They show the values of every statement to whoever sets the root logger to DEBUG."""
    monkeypatch.setattr(logging.getLogger("aiosqlite"), "level", level)

    with caplog.at_level(logging.DEBUG):
        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.select("SELECT :secret AS s", secret="hunter2")

    logging.getLogger("aiosqlite").setLevel(level)
    lines = [record for record in caplog.records if record.name == "aiosqlite"]
    assert bool(lines) is (level == logging.DEBUG)
