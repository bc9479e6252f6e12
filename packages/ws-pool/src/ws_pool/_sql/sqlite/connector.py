"""How connections to SQLite are opened over aiosqlite, checked, reset and closed.

What they do in between is `ws_pool._sql.sqlite.connection`'s.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

from ws_pool._core.background import TaskSet
from ws_pool._sql.sqlite.connection import LOOK, SqliteConnection
from ws_pool._sql.sqlite.options import SqliteFile

_ENDING = 5.0  # seconds for the threads to end
# Settings of a connection, and not of its database.
_NAMES = """
automatic_index cache_size cache_spill cell_size_check count_changes defer_foreign_keys
empty_result_callbacks full_column_names ignore_check_constraints legacy_alter_table query_only
read_uncommitted recursive_triggers reverse_unordered_selects secure_delete short_column_names temp_store
threads trusted_schema writable_schema
"""
_SETTINGS = tuple(_NAMES.split())


class SqliteConnector:
    """Opens and closes connections to one database."""

    def __init__(self, file: SqliteFile, *, writable: bool) -> None:
        self.file = file
        self._writable = writable
        self._threads: dict[Thread, sqlite3.Connection | None] = {}  # alive, or were when last looked at
        self._connecting = TaskSet()

    def __str__(self) -> str:
        return f"{self.file}{'' if self._writable else ' (reading)'}"

    async def open(self) -> SqliteConnection:
        """Open the database in a thread of its own, and set the session up."""
        import aiosqlite  # noqa: PLC0415 - drivers load on first use

        file = self.file
        drivers_log = logging.getLogger("aiosqlite")

        if drivers_log.level == logging.NOTSET:  # it logs two lines with all values for each statement
            drivers_log.setLevel(logging.INFO)

        raw: Any = aiosqlite.connect(
            file.path,
            isolation_level=None,
            timeout=file.busy_timeout,
            check_same_thread=False,  # another thread interrupts it
            cached_statements=256,
        )
        thread: Thread | None = getattr(raw, "_thread", None)

        if thread is not None:
            thread.daemon = True  # a leaked connection must not keep the process from ending
            # One without an identity has not begun yet, and will.
            self._threads = {
                other: last
                for other, last in self._threads.items()
                if other.ident is None or other.is_alive()
            }
            self._threads[thread] = None

        async def connect() -> None:
            await raw

        connecting = self._connecting.spawn(connect())

        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The thread opens the database all the same; whoever gets it closes it, or nobody does.
            connecting.add_done_callback(
                lambda task: None if task.cancelled() or task.exception() else raw.stop()
            )
            raise

        conn = SqliteConnection(raw, writable=self._writable)

        try:
            await conn._call(partial(self._begin, conn), "PRAGMA")
        except BaseException:
            self.terminate(conn)
            raise

        return conn

    def is_alive(self, conn: SqliteConnection) -> bool:
        """Return whether a connection can be used, be it after a reset."""
        return conn.usable

    def is_clean(self, conn: SqliteConnection) -> bool:
        """Return whether the session is as new."""
        return not conn.dirty and conn.alive and not conn.in_transaction

    async def ping(self, conn: SqliteConnection) -> None:
        """Make sure that the database can be read."""
        await conn.run("SELECT 1 FROM sqlite_master LIMIT 1", None)

    async def reset(self, conn: SqliteConnection) -> None:
        """
        End what was left open, and set the session up again.

        A session with settings, temporary tables or databases of its user is given up, unless the
        whole database would be lost with it.
        """
        conn.lost = bool(conn.settings) and not self.file.in_memory

        if conn.lost:
            return

        left = False

        def work(connection: sqlite3.Connection) -> None:
            nonlocal left
            left = self._reset(conn, connection)

        await conn.reset(work)
        conn.lost = left and not self.file.in_memory

    async def close(self, conn: SqliteConnection) -> None:
        """Close, after the thread has ended."""
        await conn.raw.close()

    def terminate(self, conn: SqliteConnection) -> None:
        """Close at once; the thread ends a little later."""
        thread = getattr(conn.raw, "_thread", None)
        connection = conn.terminate()

        if thread is not None and connection is not None:
            self._threads[thread] = connection

    async def ended(self) -> None:
        """Wait for the threads of all connections, which must not outlive their loop."""
        deadline = time.monotonic() + _ENDING

        if self._connecting:  # whoever wanted these was cancelled, maybe before their threads began
            await asyncio.wait(self._connecting, timeout=_ENDING)

        while threads := [thread for thread in self._threads if thread.is_alive()]:
            if time.monotonic() > deadline:
                return

            for thread in threads:
                if (connection := self._threads[thread]) is not None:
                    with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
                        connection.interrupt()

            await asyncio.sleep(LOOK)

        self._threads.clear()

    def _begin(self, conn: SqliteConnection, connection: sqlite3.Connection) -> None:
        """Set the session up, and note what its user sets from now on."""
        connection.set_authorizer(None)

        if self.file.in_memory:
            self._restore(conn, connection)

        self._set_up(connection)
        conn.note_settings(connection)

    def _restore(self, conn: SqliteConnection, connection: sqlite3.Connection) -> None:
        """Set what a user has set to what it was, or note what it is."""
        if not conn.defaults:
            for name in _SETTINGS:
                if (found := connection.execute(f"PRAGMA {name}").fetchone()) is not None:
                    conn.defaults[name] = found[0]

            conn.defaults["case_sensitive_like"] = 0  # which cannot be read

        for name in conn.settings & conn.defaults.keys():
            connection.execute(f"PRAGMA {name} = {conn.defaults[name]}").close()

        conn.settings.clear()

    def _reset(self, conn: SqliteConnection, connection: sqlite3.Connection) -> bool:
        """Reset in the connection's thread; returns whether something is left that only closing ends."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")

        connection.isolation_level = None  # not earlier: it commits what is open
        connection.row_factory, connection.text_factory = None, str
        self._begin(conn, connection)
        attached = {row[1] for row in connection.execute("PRAGMA database_list")} - {"main", "temp"}
        temporary = connection.execute(
            "SELECT type, name FROM sqlite_temp_master WHERE sql NOTNULL"
        ).fetchall()

        if self.file.in_memory:  # where closing would end the database too
            for name in attached:
                connection.execute(f"DETACH DATABASE {_quoted(name)}")

            for kind, name in temporary:
                connection.execute(f"DROP {kind} IF EXISTS temp.{_quoted(name)}")

        return bool(attached or temporary)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        file = self.file
        connection.execute(f"PRAGMA busy_timeout = {int(file.busy_timeout * 1000)}")
        connection.execute(f"PRAGMA foreign_keys = {int(file.foreign_keys)}")

        if self._writable and not file.in_memory:
            connection.execute(f"PRAGMA journal_mode = {file.journal_mode}").close()
            connection.execute(f"PRAGMA synchronous = {file.synchronous}")

        if file.cache_kb is not None:
            connection.execute(f"PRAGMA cache_size = -{file.cache_kb}")

        if file.init_command is not None:
            connection.execute(file.init_command)

        connection.execute(f"PRAGMA query_only = {int(not self._writable)}")


def _quoted(name: str) -> str:
    """Write a name as SQL."""
    return '"' + name.replace('"', '""') + '"'
