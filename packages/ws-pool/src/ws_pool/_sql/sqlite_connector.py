"""Connections to SQLite over aiosqlite: each has its own thread, and each statement costs one hop to it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, unquote

from ws_pool._config import Check, choice, integer, mask_url, number, optional, text, url_parts
from ws_pool._sql.connection import Reply, busy, cut_short, sqlite_error
from ws_pool._sql.mysql_options import POOL_CHECKS
from ws_pool.errors import ConfigError, UnavailableError, UnsupportedStatement

__all__ = ("SqliteConnection", "SqliteConnector", "SqliteFile", "path_of")

T = TypeVar("T")

_LOOK = 0.005  # seconds between looks at a thread that has been told to stop
_PRAGMA = re.compile(r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*PRAGMA\b", re.IGNORECASE | re.DOTALL)

SQLITE_CHECKS: dict[str, Check] = {
    **POOL_CHECKS,
    "url": text,
    "path": text,
    "busy_timeout": number(0),
    "journal_mode": choice("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", any_case=True),
    "synchronous": choice("OFF", "NORMAL", "FULL", "EXTRA", any_case=True),
    "foreign_keys": POOL_CHECKS["echo"],
    "cache_kb": optional(integer(0)),
    "init_command": optional(text),
}

SQLITE_ALIASES = {"minsize": "min_size", "maxsize": "max_size", "db": "path", "cursorclass": "row_type"}


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A database file and how it is opened; ``:memory:`` is a database that lives as long as its pool."""

    path: str
    busy_timeout: float = 5.0
    journal_mode: str = "WAL"
    synchronous: str = "NORMAL"
    foreign_keys: bool = True
    cache_kb: int | None = None
    init_command: str | None = None

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == ":memory:"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


def path_of(url: str, where: str) -> dict[str, object]:
    """
    Split a URL into options.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.
        where: The option's full name for errors.

    Returns:
        The path, and the options of the query.

    Raises:
        ConfigError: It is no SQLite URL.
    """
    parts = url_parts(url, where)
    path = unquote(parts.path)[1:] or ":memory:"

    if parts.scheme.partition("+")[0] != "sqlite" or parts.netloc:
        forms = "sqlite:///path, sqlite:////absolute/path or sqlite:///:memory:"
        message = f"{where} must be {forms}, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    return {"path": path, **dict(parse_qsl(parts.query))}


class SqliteConnection:
    """
    One connection; aiosqlite's own is ``raw``.

    Args:
        raw: A connection of aiosqlite, open.
        writable: Whether it may change the database.
    """

    __slots__ = ("cursor", "cut", "dirty", "in_exchange", "lost", "raw", "running", "spoiled", "writable")

    gathers: ClassVar[bool] = False

    def __init__(self, raw: Any, *, writable: bool) -> None:  # Any: its needed methods are not public
        self.raw = raw
        self.writable = writable
        self.dirty = False
        self.in_exchange = False
        self.cursor: sqlite3.Cursor | None = None  # of a query whose rows are being fetched
        self.cut = False  # the task that waited for a statement has gone
        self.running = False  # whether the thread has work of ours; it says when that has ended
        self.spoiled = False  # a setting was changed, so that no reset makes the session as new
        self.lost = False

    def __repr__(self) -> str:
        return f"<SqliteConnection {'writer' if self.writable else 'reader'} {id(self):#x}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self.raw._connection is not None and self.raw.in_transaction)  # noqa: SLF001 - it raises when closed

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when a statement was cut short, until it is reset."""
        return not (self.cut or self.in_exchange or self.cursor) and self.usable

    @property
    def usable(self) -> bool:
        """Whether the connection can be used, be it after a reset."""
        return not self.lost and self.raw._connection is not None  # noqa: SLF001 - as above

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run one statement.

        Args:
            sql: The statement with ``?`` placeholders.
            values: The values, or None when it has no placeholders.

        Returns:
            The reply.

        Raises:
            QueryError: SQLite refused the statement.
        """
        if _PRAGMA.match(sql):
            self.dirty = self.spoiled = True

        left: sqlite3.Cursor | None = None

        if sql.startswith("ROLLBACK") and not (self.cut or self.in_exchange):
            left, self.cursor = self.cursor, None  # of an iteration that was left early

        def work(connection: sqlite3.Connection) -> Reply:
            if left is not None:
                left.close()

            before = connection.total_changes
            cursor = connection.execute(sql, () if values is None else values)
            description = cursor.description
            rows = None if description is None else cursor.fetchall()
            count = cursor.rowcount

            if rows is not None:
                count = len(rows)
            elif count < 0 and connection.total_changes != before:  # it counts no WITH ... UPDATE
                count = connection.execute("SELECT changes()").fetchone()[0]

            reply = Reply(rows, description, max(count, 0), cursor.lastrowid or 0)
            cursor.close()
            return reply

        return await self._call(work, sql)

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run a query that will be run again and again; SQLite keeps it prepared anyway.

        Args:
            sql: The query with ``?`` placeholders.
            values: The values, or None when it has no placeholders.

        Returns:
            The reply, as of `run`.
        """
        return await self.run(sql, values)

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values, all or nothing.

        Args:
            sql: The statement with ``?`` placeholders.
            values: The rows.

        Returns:
            The sum of rows matched.
        """

        def work(connection: sqlite3.Connection) -> int:
            own = not connection.in_transaction

            if own:
                connection.execute("BEGIN IMMEDIATE")

            try:
                count = connection.executemany(sql, values).rowcount
            except BaseException:
                if own:
                    connection.execute("ROLLBACK")

                raise

            if own:
                connection.execute("COMMIT")

            return max(count, 0)

        return await self._call(work, sql)

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """
        Run one statement and give its rows in blocks.

        Args:
            sql: The statement with ``?`` placeholders.
            values: The values, or None when it has no placeholders.
            size: Rows per block.

        Yields:
            Replies with up to ``size`` rows each.
        """
        cursor = await self._call(
            lambda connection: connection.execute(sql, () if values is None else values), sql
        )
        self.cursor = cursor

        try:
            while rows := await self._call(lambda _: cursor.fetchmany(size), sql, streaming=True):
                yield Reply(rows, cursor.description, len(rows), 0)
        finally:
            if self.cursor is cursor and not self.cut:  # else the reset has closed it, or will
                await self._call(lambda _: cursor.close(), sql, streaming=True)
                self.cursor = None

    async def halt(self) -> None:
        """
        Wait for the end of a statement whose task has gone, and see to it that it comes.

        The statement is interrupted again and again, because SQLite forgets an interrupt that
        comes before the thread has begun.
        """
        connection = self.raw._connection  # noqa: SLF001 - its own interrupt() is a coroutine

        while self.running and connection is not None:
            connection.interrupt()
            await asyncio.sleep(_LOOK)

    async def reset(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """
        End what was cut short or left behind, and make the session as new.

        Args:
            work: What to do to the session, in the connection's thread.
        """
        await self.halt()
        cursor, self.cursor = self.cursor, None
        self.cut = self.in_exchange = False

        def clear(connection: sqlite3.Connection) -> None:
            if cursor is not None:
                cursor.close()

            work(connection)

        await self._call(clear, "ROLLBACK")
        self.dirty = False

    def terminate(self) -> sqlite3.Connection | None:
        """
        Interrupt what runs, and have the thread close the connection and end.

        Returns:
            SQLite's connection; None when the thread has ended before.
        """
        connection: sqlite3.Connection | None = self.raw._connection  # noqa: SLF001 - as above
        self.cut = True

        if connection is not None:
            connection.interrupt()
            self.raw.stop()

        return connection

    async def _call(self, work: Callable[[sqlite3.Connection], T], sql: str, *, streaming: bool = False) -> T:
        if self.cut:
            raise cut_short()

        if self.in_exchange or (self.cursor is not None and not streaming):
            raise busy()

        connection = self.raw._connection  # noqa: SLF001 - as above

        if connection is None:
            message = "the connection to the database is closed"
            raise UnavailableError(message)

        def guarded() -> T:
            try:
                if self.cut:
                    raise cut_short()

                return work(connection)
            finally:
                self.running = False

        self.in_exchange = self.running = True

        try:
            result: T = await self.raw._execute(guarded)  # noqa: SLF001 - one hop for all the work of a statement
        except sqlite3.ProgrammingError as error:
            self.in_exchange = False

            if "type" in str(error) and "not supported" in str(error):
                raise UnsupportedStatement(str(error), sql=sql) from error

            raise sqlite_error(error, sql) from error
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            self.in_exchange = False
            raise sqlite_error(error, sql) from error
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False
        return result


class SqliteConnector:
    """
    Opens and closes connections to one database.

    Args:
        file: Which, and how.
        writable: Whether the connections may change it.
    """

    def __init__(self, file: SqliteFile, *, writable: bool) -> None:
        self.file = file
        self._writable = writable
        self._threads: dict[Thread, sqlite3.Connection | None] = {}  # alive, or were when last looked at

    def __str__(self) -> str:
        return f"{self.file}{'' if self._writable else ' (reading)'}"

    async def open(self) -> SqliteConnection:
        """Open the database in a thread of its own, and set the session up."""
        import aiosqlite  # noqa: PLC0415 - drivers load on first use

        file = self.file
        raw: Any = aiosqlite.connect(
            file.path,
            isolation_level=None,
            timeout=file.busy_timeout,
            check_same_thread=False,
            cached_statements=256,
        )
        thread: Thread | None = getattr(raw, "_thread", None)

        if thread is not None:
            thread.daemon = True  # a leaked connection must not keep the process from ending
            self._threads = {other: last for other, last in self._threads.items() if other.is_alive()}
            self._threads[thread] = None

        async def connect() -> None:
            await raw

        connecting = asyncio.create_task(connect())

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
            await conn._call(self._set_up, "PRAGMA")  # noqa: SLF001 - the two are one driver
        except BaseException:
            self.terminate(conn)
            raise

        return conn

    def is_alive(self, conn: SqliteConnection) -> bool:
        """Tell whether a connection can be used, be it after a reset."""
        return conn.usable

    def is_clean(self, conn: SqliteConnection) -> bool:
        """Tell whether the session is as new."""
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
        conn.lost = conn.spoiled and not self.file.in_memory

        if conn.lost:
            return

        left = False

        def work(connection: sqlite3.Connection) -> None:
            nonlocal left
            left = self._reset(connection)

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
        deadline = time.monotonic() + 5

        while threads := [thread for thread in self._threads if thread.is_alive()]:
            if time.monotonic() > deadline:
                return

            for thread in threads:
                if (connection := self._threads[thread]) is not None:
                    with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
                        connection.interrupt()

            await asyncio.sleep(_LOOK)

        self._threads.clear()

    def _reset(self, connection: sqlite3.Connection) -> bool:
        """Reset in the connection's thread; tells whether something is left that only closing ends."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")

        self._set_up(connection)
        attached = {row[1] for row in connection.execute("PRAGMA database_list")} - {"main", "temp"}
        return bool(attached or connection.execute("SELECT 1 FROM sqlite_temp_master LIMIT 1").fetchone())

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


def absolute(path: str) -> str:
    """
    Make a path independent of the working directory, which may change while the pool is open.

    Args:
        path: A path, or ``:memory:``.
    """
    return path if path == ":memory:" else str(Path(path).absolute())
