"""What a user leaves behind on a SQLite connection, and what survives him."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ws_pool import SqlitePool
from ws_pool._sql.sqlite.connector import SqliteConnector
from ws_pool._sql.sqlite.options import SqliteFile
from ws_pool.errors import QueryError

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


async def given_up(pool: SqlitePool, statement: str) -> None:
    """Run a statement whose task does not wait for it."""
    task = asyncio.create_task(pool.execute(statement))
    await asyncio.sleep(0.02)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


class TestMemory:
    """A database in memory lives as long as its pool."""

    async def test_a_cancelled_statement_keeps_the_database(self):
        """A query and a write cut short, and a transaction around them, leave all that was committed."""
        async with SqlitePool("sqlite://", ping_timeout=0.001) as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            await pool.insert("INSERT INTO note VALUES ('kept')")
            await given_up(pool, ENDLESS)
            await given_up(pool, f"INSERT INTO note {NUMBERS}")

            async def write() -> None:
                async with pool.atomic() as client:
                    await client.insert("INSERT INTO note VALUES ('undone')")
                    await client.select(ENDLESS)

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await write()

            assert [row.text for row in await pool.select("SELECT text FROM note")] == ["kept"]
            assert pool.statistics().opened == 1

    async def test_a_statement_that_never_began_is_not_run(self):
        """Cancelled before the thread has taken it, an endless query is not even begun."""
        async with SqlitePool("sqlite://") as pool:
            async with pool.get_client() as client:
                task = asyncio.create_task(client.connection.run(ENDLESS, None))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

            assert (await pool.find("SELECT 1"))[0] == 1
            assert pool.statistics().opened == 1

    async def test_an_iteration_left_early_keeps_the_database(self):
        """Whether the iterator is closed, dropped or cancelled."""
        async with SqlitePool("sqlite://") as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")

            async with pool.get_client() as client:
                rows = client.iterate(NUMBERS, size=2)
                assert (await anext(rows)).x == 1

            async with pool.get_client() as client:
                await rows.aclose()  # late: its connection belongs to another already
                others = client.iterate(NUMBERS, size=2)
                assert [(await anext(others)).x, (await anext(others)).x] == [1, 2]
                await others.aclose()
                assert await client.count("SELECT * FROM note") == 0

            async def read() -> None:
                async with pool.get_client() as client:
                    async for _ in client.iterate(NUMBERS, size=10_000_000):
                        pass

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await read()

            assert await pool.count("SELECT * FROM note") == 0
            assert pool.statistics().opened == 1

    async def test_an_engine_that_gives_its_connection_up_keeps_the_database(self):
        """What it left open is rolled back, and the database is there."""
        async with SqlitePool("sqlite://") as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")

            async with pool.engine().connect() as connection:
                await connection.execute(text("INSERT INTO note VALUES ('undone')"))
                await connection.invalidate()

            assert await pool.count("SELECT * FROM note") == 0
            assert pool.statistics().opened == 1

    async def test_an_iteration_that_nobody_waits_for_is_closed_by_the_reset(self):
        """Cancelled when its query has begun in the thread, and the news of it is on its way."""
        connector = SqliteConnector(SqliteFile(":memory:"), writable=True)
        conn = await connector.open()
        stream: Any = conn.stream(NUMBERS, None, 2)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)

        while conn.running:  # and the loop stands still meanwhile
            time.sleep(0.001)  # noqa: ASYNC251 - that is why

        reading.cancel()
        conn.raw._connection.interrupt()  # it stays pending as long as that query is open
        await asyncio.wait([reading])
        assert reading.cancelled()
        assert conn.cursor is not None
        await connector.reset(conn)
        assert conn.alive
        assert (await conn.run("SELECT 1", None)).rows == [(1,)]
        await connector.close(conn)


class TestFiles:
    """Sessions of a file."""

    async def test_nothing_of_a_session_reaches_the_next_user(self, tmp_path: Path):
        """Temporary tables, attached databases and settings end with the block of their user."""
        other = tmp_path / "other.db"

        async with SqlitePool(path=str(tmp_path / "notes.db"), maxsize=1) as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            opened = pool.writer_statistics().opened

            async with pool.atomic() as client:
                await client.execute("CREATE TEMP TABLE mine (a INTEGER)")

            with pytest.raises(QueryError, match="no such table"):
                await pool.execute("INSERT INTO mine VALUES (1)")

            async with pool.get_client() as client:
                await client.execute(f"ATTACH DATABASE '{other}' AS other")

            lease = await pool._writers.acquire()
            await lease.connection.run("/* mine */ pragma cache_size = 7", None)
            pool._writers.release(lease)

            async with pool.atomic() as client:
                assert (
                    len(await client.select("SELECT * FROM pragma_database_list WHERE name = 'other'")) == 0
                )
                assert (await client.find("SELECT * FROM pragma_cache_size"))[0] != 7

            assert pool.writer_statistics().opened > opened
            assert await pool.count("SELECT * FROM pragma_database_list WHERE name = 'other'") == 0

    @pytest.mark.parametrize("way", ["iterate", "raw", "engine", "many", "handle", "comment"])
    async def test_settings_end_however_they_are_made(self, way: str, tmp_path: Path):
        """The next user, a reader or the writer, has none of them."""
        setting = "PRAGMA case_sensitive_like = ON"

        async with SqlitePool(path=str(tmp_path / "notes.db"), maxsize=1) as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            await pool.execute("INSERT INTO note VALUES ('A')")

            async with pool.get_client() as client:
                if way == "iterate":
                    assert [row async for row in client.iterate(setting)] == []
                elif way == "raw":
                    await client.raw.execute(setting)
                elif way == "engine":
                    async with pool.engine().connect() as connection:
                        await connection.execute(text(setting))
                elif way == "many":
                    with pytest.raises(QueryError):
                        await client.execute(setting, [{}, {}])
                elif way == "handle":
                    await client.execute(pool.prepare(text(setting)))
                else:
                    await client.execute(f"/* mine */ ;{setting}")

            for _ in range(2):
                assert await pool.count("SELECT * FROM note WHERE text LIKE 'a'") == 1

            async with pool.atomic() as client:
                await client.execute("INSERT INTO note VALUES ('B')")
                assert await client.count("SELECT * FROM note WHERE text LIKE 'b'") == 1

    async def test_settings_of_a_database_in_memory_end_too(self):
        """It has one connection for all, which keeps the data and loses the settings, time and again."""
        names = (
            "recursive_triggers",
            "cache_size",
            "ignore_check_constraints",
            "full_column_names",
            "query_only",
        )

        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            await pool.execute("INSERT INTO note VALUES ('A')")
            before = [await pool.find(f"PRAGMA {name}") for name in names]

            for _ in range(2):
                async with pool.get_client() as client:
                    for name in (*names, "case_sensitive_like"):
                        await client.execute(f"PRAGMA {name} = 1")

                    assert await client.find("PRAGMA main.cache_size") == (1,)

                assert [await pool.find(f"PRAGMA {name}") for name in names] == before
                assert await pool.count("SELECT * FROM note WHERE text LIKE 'a'") == 1

            await pool.execute("PRAGMA user_version = 7")
            assert await pool.find("PRAGMA user_version") == (7,)  # it is the database's

    async def test_looking_at_a_table_costs_no_connection(self, tmp_path: Path):
        """A pragma that sets nothing is not a setting."""
        async with SqlitePool(path=str(tmp_path / "notes.db"), maxsize=1) as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            before = pool.writer_statistics().opened

            async with pool.engine().connect() as connection:
                found = await connection.execute(text("PRAGMA table_info('note')"))
                assert [row.name for row in found] == ["text"]

            assert await pool.find("PRAGMA foreign_keys") == (1,)
            await pool.execute("INSERT INTO note VALUES ('A')")
            assert pool.writer_statistics().opened == before

    async def test_what_is_set_on_the_driver_ends_too(self, tmp_path: Path):
        """Rows and texts are those of this client again."""
        async with SqlitePool(path=str(tmp_path / "notes.db"), maxsize=1) as pool:
            async with pool.get_client() as client:
                client.raw.text_factory = bytes
                client.raw.row_factory = lambda _, row: {"row": row}
                assert await client.raw.execute_fetchall("SELECT 'a'") != [("a",)]

            assert await pool.select("SELECT 'a' AS t", row_type=tuple) == [("a",)]

    async def test_what_an_engine_has_not_committed_is_undone(self, tmp_path: Path):
        """When its connection is given up, or its task cancelled in mid-session."""
        async with SqlitePool(path=str(tmp_path / "notes.db")) as pool:
            await pool.execute("CREATE TABLE note (text TEXT)")
            begun = asyncio.Event()

            async def write() -> None:
                async with pool.engine().connect() as connection:
                    await connection.execute(text("INSERT INTO note VALUES ('undone')"))
                    begun.set()
                    await connection.execute(text(ENDLESS))

            writing = asyncio.create_task(write())
            await begun.wait()
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            assert writing.cancelled()

            async with pool.engine().connect() as connection:
                await connection.execute(text("INSERT INTO note VALUES ('undone')"))
                await connection.invalidate()

            async with pool.atomic() as client:
                assert await client.count("SELECT * FROM note") == 0
                await client.insert("INSERT INTO note VALUES ('kept')")

            assert await pool.count("SELECT * FROM note") == 1

    async def test_rows_changed_behind_a_with_are_counted(self, tmp_path: Path):
        """WITH … UPDATE counts its own rows, not those of triggers, nor those of an earlier statement."""
        async with SqlitePool(path=str(tmp_path / "notes.db")) as pool:
            await pool.execute("CREATE TABLE note (id INTEGER, seen INTEGER)")
            await pool.execute("CREATE TABLE log (id INTEGER)")
            trigger = "CREATE TRIGGER t AFTER UPDATE ON note BEGIN INSERT INTO log VALUES (1); END"
            await pool.execute(trigger)
            await pool.execute("INSERT INTO note VALUES (1, 0), (2, 0), (3, 0)")
            change = "WITH w(i) AS (SELECT 2) UPDATE note SET seen = 1 WHERE id {} (SELECT i FROM w)"
            assert await pool.update(change.format(">=")) == 2
            assert await pool.update(change.format("> 9 AND id <")) == 0

    async def test_threads_end_before_the_pool_is_closed(self, tmp_path: Path):
        """Those of connections cancelled while they open, too: none is left to find its loop closed."""
        connector = SqliteConnector(SqliteFile(str(tmp_path / "x.db")), writable=True)

        for turns in range(12):
            opening = asyncio.create_task(connector.open())

            for _ in range(turns):
                await asyncio.sleep(0)

            opening.cancel()
            done, _ = await asyncio.wait([opening])

            for task in done:
                if not task.cancelled():
                    connector.terminate(task.result())

        conn = await connector.open()
        running = asyncio.create_task(conn.run(ENDLESS, None))
        await asyncio.sleep(0)
        threads = list(connector._threads)
        connector.terminate(conn)
        await connector.ended()
        await asyncio.gather(running, return_exceptions=True)
        assert not any(thread.is_alive() for thread in threads)
