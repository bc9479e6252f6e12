"""Statements over one connection to SQLite: it has its own thread, and each statement costs one hop to it.

`ws_pool._sql.sqlite.connector` makes them.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar, TypeVar

from ws_pool._sql.connection import Reply, busy, cut_short, remember, trace_statements
from ws_pool._sql.sqlite.errors import map_error
from ws_pool._sql.sqlite.statement_text import inserted_table, returning_number
from ws_pool.errors import UnavailableError, UnsupportedStatement

T = TypeVar("T")

LOOK = 0.005  # seconds between looks at a thread that was stopped
_REMEMBERED = 1_000  # tables
_WITH_RETURNING = (3, 35)  # the version of SQLite
_ASKING = ("info", "list", "check")  # ends of the names of pragmas that set nothing, but take an argument


class SqliteConnection:
    """One connection; aiosqlite's own is ``raw``."""

    __slots__ = (
        "_numbering",
        "cursor",
        "cut",
        "defaults",
        "dirty",
        "foreign",
        "in_exchange",
        "left",
        "lost",
        "raw",
        "running",
        "settings",
        "writable",
    )

    gathers: ClassVar[bool] = False

    def __init__(self, raw: Any, *, writable: bool) -> None:  # Any: its needed methods are not public
        self.raw = raw
        self.writable = writable
        self.dirty = False
        self.in_exchange = False
        self.cursor: sqlite3.Cursor | None = None  # of a query whose rows are being fetched
        self.foreign: Sequence[Any] = ()  # aiosqlite's cursors that an engine has opened
        self.left: sqlite3.Cursor | None = None  # of an iteration that was left early
        self.cut = False  # the task that waited for a statement has gone
        self.running = False  # whether the thread has work of ours; it says when that has ended
        self.settings: set[str] = set()  # what a user has set; a file's connection is then given up
        self.defaults: dict[str, Any] = {}  # what a database in memory, which cannot be given up, had before
        self.lost = False
        self._numbering: dict[str, bool] = {}  # whether tables number their rows

    def __repr__(self) -> str:
        return f"<SqliteConnection {'writer' if self.writable else 'reader'} {id(self):#x}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self.raw._connection is not None and self.raw.in_transaction)  # closed, it would raise

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when a statement was cut short, until it is reset."""
        return not (self.cut or self.in_exchange or self.cursor or self.left) and self.usable

    @property
    def usable(self) -> bool:
        """Whether the connection can be used, be it after a reset."""
        return not self.lost and self.raw._connection is not None

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement."""
        if values:
            _refuse_nan(values, sql)

        if sql.startswith("ROLLBACK") and self.cursor is not None and not (self.cut or self.in_exchange):
            self.left, self.cursor = self.cursor, None  # an iteration that is still referred to

        upsert = returning_number(sql)

        def work(connection: sqlite3.Connection) -> Reply:
            if upsert is not None and (reply := _upsert(connection, upsert, values)) is not None:
                return reply

            before = connection.total_changes
            cursor = connection.execute(sql, () if values is None else values)
            description = cursor.description
            rows = None if description is None else cursor.fetchall()
            count = cursor.rowcount

            if rows is not None:
                count = len(rows)
            elif count < 0 and connection.total_changes != before:  # it counts no WITH ... UPDATE
                count = connection.execute("SELECT changes()").fetchone()[0]

            last_id = 0 if upsert is not None else cursor.lastrowid or 0

            if (
                last_id
                and (table := inserted_table(sql)) is not None
                and not self._numbers(connection, table)
            ):
                last_id = 0  # it is another table's row

            reply = Reply(rows, description, max(count, 0), last_id)
            cursor.close()
            return reply

        return await self._call(work, sql)

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query that will be run again and again; SQLite keeps it prepared anyway."""
        return await self.run(sql, values)

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one statement once per row of values, inside the transaction that is open."""
        for row in values:
            _refuse_nan(row, sql)

        def work(connection: sqlite3.Connection) -> int:
            return max(connection.executemany(sql, values).rowcount, 0)

        return await self._call(work, sql)

    def batches(
        self,
        sql: str,
        values: Sequence[Sequence[Any]],
        most_rows: int,
        most_bytes: int,
    ) -> None:
        """Return None: SQLite runs one prepared statement for all rows, with no trip in between."""
        return

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement, and yield its rows in blocks of up to ``size``."""
        _refuse_nan(values or (), sql)

        def begin(connection: sqlite3.Connection) -> sqlite3.Cursor:
            # Noted here, in the thread: whoever waited may be gone, and a query that nobody closes
            # would keep an interrupt pending for all that follows.
            self.cursor = connection.execute(sql, () if values is None else values)
            return self.cursor

        cursor = await self._call(begin, sql)

        try:
            while rows := await self._call(lambda _: cursor.fetchmany(size), sql, streaming=True):
                yield Reply(rows, cursor.description, len(rows), 0)

            await self._call(lambda _: cursor.close(), sql, streaming=True)
            self.cursor = None
        finally:
            # Of an iteration that is left early the next call to the thread closes the cursor: doing it
            # here would await, which a dropped iteration cannot. After a cut the reset closes it.
            if self.cursor is cursor and not self.cut:
                self.left, self.cursor = cursor, None

    async def halt(self) -> None:
        """
        Wait for the end of a statement whose task has gone, and see to it that it comes.

        The statement is interrupted again and again, because SQLite forgets an interrupt that
        comes before the thread has begun.
        """
        connection = self.raw._connection

        while self.running and connection is not None:
            connection.interrupt()
            await asyncio.sleep(LOOK)

    async def reset(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """End what was cut short or left behind, and make the session as new."""
        await self.halt()
        foreign, self.foreign = self.foreign, ()

        if foreign:
            await self._halt_foreign()

        cursor, self.cursor = self.cursor, None
        self.cut = self.in_exchange = False

        def clear(connection: sqlite3.Connection) -> None:
            for one in (cursor, *(other._cursor for other in foreign)):
                if one is not None:
                    one.close()

            work(connection)

        await self._call(clear, "ROLLBACK")
        self.dirty = False

    def note_settings(self, connection: sqlite3.Connection) -> None:
        """Note settings that are made from now on, be it by an iteration, an engine, or over ``raw``."""

        def note(action: int, name: str | None, value: str | None, *_: str | None) -> int:
            if action == sqlite3.SQLITE_PRAGMA and name is not None and value is not None:
                setting = name.lower()

                if not setting.endswith(_ASKING):
                    self.dirty = True
                    self.settings.add(setting)

            return sqlite3.SQLITE_OK

        # Called when a statement is prepared.
        connection.set_authorizer(note)

    def give_up(self) -> None:
        """Let nothing more run: somebody else's exchange on it was cut short."""
        self.cut = True

    def terminate(self) -> sqlite3.Connection | None:
        """Interrupt what runs, and have the thread close the connection and end; return SQLite's."""
        connection: sqlite3.Connection | None = self.raw._connection
        self.cut = True

        if connection is not None:
            connection.interrupt()
            self.raw.stop()

        return connection

    async def _halt_foreign(self) -> None:
        """Interrupt what an engine's session may have left running in the thread."""
        idle = asyncio.ensure_future(self.raw._execute(bool))

        while not (await asyncio.wait({idle}, timeout=LOOK))[0]:
            self.raw._connection.interrupt()

    def _numbers(self, connection: sqlite3.Connection, table: str) -> bool:
        """Whether a table numbers its rows: of one that does not, the last id is an earlier one's."""
        known = self._numbering.get(table)

        if known is None:
            try:
                connection.execute(f"SELECT _rowid_ FROM {table} LIMIT 0").close()  # noqa: S608 - as it was written
            except sqlite3.OperationalError:
                known = False
            else:
                known = True

            remember(self._numbering, table, known, _REMEMBERED)

        return known

    def _guarded(
        self,
        work: Callable[[sqlite3.Connection], T],
        connection: sqlite3.Connection,
        left: sqlite3.Cursor | None,
    ) -> T:
        """Run in the thread: close what an iteration has left, then work, unless the task has gone."""
        try:
            if left is not None:
                left.close()

            if self.cut:
                raise cut_short()

            return work(connection)
        finally:
            self.running = False

    async def _call(self, work: Callable[[sqlite3.Connection], T], sql: str, *, streaming: bool = False) -> T:
        if self.cut:
            raise cut_short()

        if self.in_exchange or (self.cursor is not None and not streaming):
            raise busy(iterating=self.cursor is not None)

        connection = self.raw._connection

        if connection is None:
            message = "the connection to the database is closed"
            raise UnavailableError(message)

        left, self.left = self.left, None
        self.in_exchange = self.running = True

        try:
            result: T = await self.raw._execute(self._guarded, work, connection, left)
        except sqlite3.ProgrammingError as error:
            self.in_exchange = False

            if "type" in str(error) and "not supported" in str(error):
                raise UnsupportedStatement(str(error), sql=sql) from error

            raise map_error(error, sql) from error
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            self.in_exchange = False
            raise map_error(error, sql) from error
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False
        return result


def _upsert(connection: sqlite3.Connection, sql: str, values: Sequence[Any] | None) -> Reply | None:
    """
    Run an INSERT that may update a row instead, and returns its number; None when its table has none.

    Of a row that it updates SQLite notes no number: `lastrowid` would be that of some INSERT before.
    """
    if sqlite3.sqlite_version_info < _WITH_RETURNING:
        return None

    try:
        rows = connection.execute(sql, () if values is None else values).fetchall()
    except sqlite3.OperationalError as error:
        if "_rowid_" in str(error):
            return None

        raise

    return Reply(None, None, len(rows), rows[-1][0] if rows else 0)


def _refuse_nan(values: Sequence[Any], sql: str) -> None:
    """Refuse NaN: SQLite would store NULL for it."""
    for value in values:
        if type(value) is float and math.isnan(value):
            message = "NaN has no form in SQLite, which would store NULL: use None, or a text"
            raise UnsupportedStatement(message, sql=sql)


trace_statements(SqliteConnection, "sqlite")
