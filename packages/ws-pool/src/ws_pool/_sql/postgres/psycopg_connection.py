"""Statements over one connection of psycopg 3."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import sql as compose
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.json import Json, Jsonb

from ws_pool._sql.connection import Reply, busy, trace_statements
from ws_pool._sql.files import Write
from ws_pool._sql.postgres import statement_text
from ws_pool._sql.postgres.connection import (
    CopyTarget,
    Fetch,
    PostgresConnection,
    Receive,
    check_end,
    inserted_id,
)
from ws_pool._sql.postgres.errors import map_error
from ws_pool._sql.postgres.options import Server
from ws_pool._sql.postgres.psycopg_driver import DriverConnection, open_driver_connection

_RESET = (
    "SET SESSION AUTHORIZATION DEFAULT; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL; "
    "DISCARD SEQUENCES; DISCARD TEMP"
)
_STALE_PLAN: Final = "RevalidateCachedQuery"  # the server's function that refuses a plan with other columns
_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_cursors = itertools.count(1)  # in the names of cursors
# The types of some columns; an enumeration takes text, a domain is what it is made of.
_TYPES: Final = """
SELECT CASE b.typtype WHEN 'e' THEN 'text' ELSE b.typname END
FROM unnest($2::text[]) WITH ORDINALITY AS given (name, place)
JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attname = given.name
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
WHERE b.typnamespace = 'pg_catalog'::regnamespace OR b.typtype = 'e' ORDER BY given.place
"""
# The values of which COPY makes what INSERT makes. The driver writes a value for COPY as text, of which the
# server makes one of the column's type: of a time with a zone, one without, and no number of a bool.
_COPIED: Final[Mapping[str, frozenset[type]]] = {
    **dict.fromkeys(("int2", "int4", "int8"), frozenset({int})),
    **dict.fromkeys(("float4", "float8"), frozenset({float, int})),
    **dict.fromkeys(("text", "varchar", "bpchar", "inet", "cidr"), frozenset({str})),
    **dict.fromkeys(("json", "jsonb"), frozenset({Json, Jsonb})),
    "numeric": frozenset({Decimal, int}),
    "bool": frozenset({bool}),
    "date": frozenset({dt.date}),
    **dict.fromkeys(("time", "timetz"), frozenset({dt.time})),
    **dict.fromkeys(("timestamp", "timestamptz"), frozenset({dt.datetime})),
    "interval": frozenset({dt.timedelta}),
    "uuid": frozenset({UUID, str}),
    "bytea": frozenset({bytes}),
}
_WITHOUT_ZONE: Final = ("time", "timestamp")


class _Cursor(psycopg.AsyncRawCursor[tuple[Any, ...]]):
    """A cursor that sends one statement, and never several in one text."""

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=True, binary=binary)


class PsycopgConnection(PostgresConnection):
    """One connection of psycopg, in autocommit mode."""

    __slots__ = ("_running",)

    raw: DriverConnection
    _driver_errors = (psycopg.Error, OSError, TypeError, ValueError, OverflowError)

    def __init__(self, raw: DriverConnection) -> None:
        super().__init__(raw)
        self._running = False

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that has failed; that of a stream left early is not."""
        return self._left is None and self.raw.pgconn.transaction_status in _OPEN

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; what the server has sent of its end is read here."""
        pgconn = self.raw.pgconn

        if self.cut or self.lost or pgconn.status == ConnStatus.BAD:
            return False

        if not self._running and not self._streaming and not self.raw.is_ending:
            try:
                pgconn.consume_input()
                pgconn.consume_input()  # the first may have read the server's last words, and not its end
            except psycopg.OperationalError:
                return False

        return bool(pgconn.status != ConnStatus.BAD)

    @property
    def clean(self) -> bool:
        """Whether the session is as it was at the beginning."""
        return not (self.cut or self.dirty) and self.raw.pgconn.transaction_status == TransactionStatus.IDLE

    async def make_new(self) -> None:
        """Make the session as new, when the server has let go of a statement that was cancelled."""
        raw = self.raw
        await raw.settle()

        if raw.pgconn.transaction_status in _OPEN:
            await self._command("ROLLBACK")

        # Of an engine's session.
        await raw.set_autocommit(True)
        await raw.set_isolation_level(None)
        await raw.set_read_only(None)
        await raw.set_deferrable(None)
        raw.own_adapters = None
        await self._command(_RESET)
        self.forget()

    async def close(self) -> None:
        """End the session and close."""
        await self.raw.settle()
        await self.raw.close()

    def terminate(self) -> None:
        """Close at once."""
        self.lost = True
        self.raw.terminate(running=self._running)

    async def load_records(self, sql: str, target: CopyTarget, records: Iterable[Sequence[Any]]) -> int:
        """Load rows with COPY, and return how many; ``sql`` is what errors show."""

        async def write(copy: psycopg.AsyncCopy) -> None:
            for record in records:
                await copy.write_row(record)

        return await self._copy(sql, f"{_copy_into(target)} FROM STDIN", write)

    async def load_file(
        self, sql: str, target: CopyTarget, source: AsyncIterable[bytes], options: Mapping[str, Any]
    ) -> int:
        """Load a file with COPY, and return how many rows; ``sql`` is what errors show."""

        async def write(copy: psycopg.AsyncCopy) -> None:
            async for data in source:
                await copy.write(data)

        return await self._copy(sql, f"{_copy_into(target)} FROM STDIN {_copy_options(options)}", write)

    async def dump(self, sql: str, values: Sequence[Any], output: Write, options: Mapping[str, Any]) -> int:
        """Write the rows of a query with COPY, and return how many."""

        async def read(copy: psycopg.AsyncCopy) -> None:
            async for data in copy:
                await output(bytes(data))

        # COPY takes no values: they are written into the query.
        written = statement_text.fill(sql, [self._literal(value) for value in values])
        return await self._copy(sql, f"COPY ({written}) TO STDOUT {_copy_options(options)}", read)

    def _literal(self, value: Any) -> str:
        return compose.Literal(value).as_string(self.raw)

    async def _copy(self, shown: str, sql: str, work: Callable[[psycopg.AsyncCopy], Awaitable[None]]) -> int:
        """Run a COPY, and return how many rows; it is ended in the background when its task is cancelled."""
        await self._ready()
        cursor = _Cursor(self.raw, row_factory=tuple_row)

        with self._mapped(shown), self._exclusive():
            copying = cursor.copy(sql)
            copy = await copying.__aenter__()

            try:
                await work(copy)
            except asyncio.CancelledError as error:
                self.dirty = True
                self.raw.end_later(_leave(copying, error))
                raise
            except BaseException as error:
                await copying.__aexit__(type(error), error, None)
                raise

            await copying.__aexit__(None, None, None)

        return max(cursor.rowcount, 0)

    async def _copies(self, target: CopyTarget, values: Sequence[Sequence[Any]]) -> bool:
        """Return whether COPY, for which values are written as text, does what INSERT does."""
        if not await super()._copies(target, values):
            return False

        reply = await self.run(_TYPES, [target.table, target.columns])
        kinds = [kind for (kind,) in reply.rows or ()]
        return len(kinds) == len(target.casts) and all(
            _are_copied(kind, column) for kind, column in zip(kinds, zip(*values, strict=True), strict=True)
        )

    async def _command(self, sql: str) -> str:
        with self._exclusive():
            cursor = await self.raw.execute(sql, prepare=False)

        return cursor.statusmessage or ""

    async def _insert_each(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        with self._exclusive():
            cursor = _Cursor(self.raw, row_factory=tuple_row)
            await cursor.executemany(cast("Any", sql), values)
            return cursor.rowcount

    async def _open_cursor(self, sql: str, values: Sequence[Any], size: int) -> Fetch:
        if not statement_text.has_cursor(sql):
            return _blocks(await self._execute(sql, values, prepare=None), size)

        name = f"ws_{next(_cursors)}"
        await self._execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", values, prepare=False)

        async def fetch() -> Reply:
            reply = await self._execute(f"FETCH FORWARD {size} FROM {name}", (), prepare=False)

            if not reply.rows:
                await self._execute(f"CLOSE {name}", (), prepare=False)

            return reply

        return fetch

    async def _execute(self, sql: str, values: Sequence[Any], *, prepare: bool | None) -> Reply:
        try:
            return await self._execute_once(sql, values, prepare=prepare)
        except psycopg.errors.FeatureNotSupported as error:
            # The columns of a statement that was kept prepared have changed.
            if self.in_transaction or error.diag.source_function != _STALE_PLAN:
                raise

            self.raw._prepared.clear()
            return await self._execute_once(sql, values, prepare=False)

    async def _execute_once(self, sql: str, values: Sequence[Any], *, prepare: bool | None) -> Reply:
        cursor = _Cursor(self.raw, row_factory=tuple_row)

        with self._exclusive():
            await cursor.execute(cast("Any", sql), values, prepare=prepare)

        result, tag = cursor.pgresult, cursor.statusmessage or ""

        if result is None or not cursor.description:
            check_end(tag, sql)
            return Reply(None, None, max(cursor.rowcount, 0), 0)

        rows = await cursor.fetchall()
        encoding = self.raw.info.encoding
        description = [
            ((result.fname(n) or b"").decode(encoding), result.ftype(n), None, None, None, None, None)
            for n in range(result.nfields)
        ]
        return Reply(rows, description, cursor.rowcount, inserted_id(tag, rows))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Refuse a second exchange: the driver would let it wait for the first."""
        if self._running:
            raise busy()

        self._running = True

        try:
            yield
        finally:
            self._running = False

    def _map(self, error: Exception, sql: str) -> Exception:
        if self.raw.pgconn.status == ConnStatus.BAD:
            self.lost = True

        return map_error(error, sql, lost=self.lost)


def _are_copied(kind: str, values: Sequence[Any]) -> bool:
    """Whether COPY makes of the values of a column what INSERT makes; a kind is an array after ``_``."""
    if kind.startswith("_"):
        return all(
            value is None
            or (type(value) is list and _are_copied(kind if _is_nested(value) else kind[1:], value))
            for value in values
        )

    if not set(map(type, values)) - {type(None)} <= _COPIED.get(kind, frozenset()):
        return False

    return kind not in _WITHOUT_ZONE or all(value is None or value.tzinfo is None for value in values)


def _is_nested(array: Sequence[Any]) -> bool:
    return any(type(item) is list for item in array)


def _blocks(reply: Reply, size: int) -> Fetch:
    """Return what returns the rows of a reply in blocks, of a statement that no cursor is for."""
    rows = list(reply.rows or ())

    async def fetch() -> Reply:
        block, rows[:] = rows[:size], rows[size:]
        return Reply(block, reply.description, len(block), 0)

    return fetch


async def _leave(copying: Any, error: BaseException) -> None:
    await copying.__aexit__(type(error), error, None)


def _copy_into(target: CopyTarget) -> str:
    columns = f" ({', '.join(map(_quoted, target.columns))})" if target.columns else ""
    return f"COPY {target.table}{columns}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _copy_options(options: Mapping[str, Any]) -> str:
    """Write the options of a COPY of a file: switches, texts, and lists of columns."""
    parts = []

    for name, value in options.items():
        if isinstance(value, bool) or value == "*":
            shown = str(value).upper()
        elif isinstance(value, str):
            shown = "'" + value.replace("'", "''") + "'"
        else:
            shown = f"({', '.join(map(_quoted, value))})"

        parts.append(f"{name.upper()} {shown}")

    return f"WITH ({', '.join(parts)})" if parts else ""


class _Listener:
    """A connection that listens."""

    def __init__(self, raw: DriverConnection, receive: Receive) -> None:
        self._raw = raw
        self._receive = receive

    async def watch(self, every: float, seen: Callable[[], None]) -> None:
        """Receive until the connection is lost; it has to answer when nothing came for a while."""
        raw = self._raw

        while True:
            try:
                async with aclosing(raw.notifies(timeout=every)) as notes:
                    async for note in notes:
                        self._receive(note.channel, note.payload, note.pid)

                async with asyncio.timeout(every):
                    await raw.execute("SELECT 1", prepare=False)
            except (psycopg.Error, OSError):  # a TimeoutError is one
                return

            seen()

    def terminate(self) -> None:
        """Close at once."""
        self._raw.terminate()


async def open_listener(server: Server, channels: Sequence[str], receive: Receive) -> _Listener:
    """Connect, and listen to channels."""
    try:
        raw = await open_driver_connection(server)

        try:
            for channel in channels:
                await raw.execute(cast("Any", f"LISTEN {_quoted(channel)}"), prepare=False)
        except BaseException:
            raw.terminate()
            raise
    except psycopg.OperationalError as error:
        if error.sqlstate is None:  # the server is not there
            raise OSError(str(error)) from error

        raise map_error(error, "LISTEN") from error
    except psycopg.Error as error:
        raise map_error(error, "LISTEN") from error

    return _Listener(raw, receive)


async def open_connection(server: Server) -> PsycopgConnection:
    """Connect, authenticate, and set the session up."""
    return PsycopgConnection(await open_driver_connection(server))


trace_statements(PsycopgConnection, "postgresql")
