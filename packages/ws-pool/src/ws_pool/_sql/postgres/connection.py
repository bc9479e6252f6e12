"""Statements over one connection to PostgreSQL: what does not depend on the driver."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol

from ws_pool._sql.connection import Reply, busy, cut_short, trace_statements
from ws_pool._sql.files import Write
from ws_pool._sql.postgres.statement_text import verb
from ws_pool.errors import QueryError

Fetch = Callable[[], Awaitable[Reply]]
"""Fetches the next rows of a query; none when there are no more."""

Receive = Callable[[str, str, int], None]
"""Takes a message of NOTIFY: its channel, its payload, and the process that sent it."""

# What transaction control begins with, in five letters: it goes as plain text, which is not prepared.
_CONTROL = frozenset({"BEGIN", "START", "COMMI", "ROLLB", "SAVEP", "RELEA"})
_ROLLED_BACK = "ROLLBACK"
_INNER = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")  # as transactions write them
_COPY_FROM = 200  # rows; from here on COPY is faster than one prepared INSERT with many sets of values
IDENTIFIER = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_INSERT = re.compile(
    rf"INSERT\ INTO\ (?P<table>(?:{IDENTIFIER}\.)?{IDENTIFIER})\ "
    rf"\((?P<columns>{IDENTIFIER}(?:,\ {IDENTIFIER})*)\)\ "
    r"VALUES\ \((?P<values>[^()]*(?:\(\d+(?:,\ \d+)?\)[^()]*)*)\)",
    re.VERBOSE,
)
_PLACE = re.compile(
    r"\$(?P<n>\d+)(?:::(?P<cast>[A-Za-z][\w ]*(?:\(\d+(?:, \d+)?\))?(?:\[\])*(?: WITH(?:OUT)? TIME ZONE)?))?"
)
# Whether COPY does to a table what INSERT does: see `_copies`.
_COPIES = """
SELECT c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND NOT c.relhasrules AND NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity = 'a'
) AND NOT EXISTS (
    SELECT FROM unnest($2::text[], $3::text[]) AS given (name, declared)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = given.name
    JOIN pg_type t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END AS oid,
               CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier
    ) AS real
    WHERE given.declared IS NOT NULL AND NOT coalesce(
        replace(format_type(real.oid, real.modifier), ' ', '') = replace(lower(given.declared), ' ', '')
        OR (given.declared NOT LIKE '%(%' AND to_regtype(given.declared) = real.oid)
        OR (to_regtype(given.declared) IN ('varchar'::regtype, 'text'::regtype)
            AND real.oid IN ('varchar'::regtype, 'text'::regtype, 'bpchar'::regtype))
        OR (to_regtype(given.declared) IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
            AND real.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)),
        false
    )
) FROM pg_class c WHERE c.oid = to_regclass($1)
"""


class PostgresConnection(ABC):
    """
    One connection; the driver's own is ``raw``.

    A cancelled statement is stopped by a CancelRequest over another connection, and the next exchange
    waits until the server has let go. So only `give_up` and a transaction that cannot be ended cut it short.
    """

    __slots__ = ("_left", "_streaming", "cut", "dirty", "lost", "raw")

    gathers: ClassVar[bool] = False

    _driver_errors: tuple[type[Exception], ...]
    """What the driver raises for a statement that fails, and for values that do not fit."""

    def __init__(self, raw: Any) -> None:  # Any: what it takes of the drivers is not public
        self.raw = raw
        self.cut = False
        self.dirty = False
        self.lost = False
        self._streaming = False  # a query's rows are being fetched
        self._left: str | None = None  # how to end the transaction of a stream whose reader has gone

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {id(self):#x}>"

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that has failed; that of a stream left early is not."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the connection can be used."""

    @property
    @abstractmethod
    def clean(self) -> bool:
        """Whether the session is as it was at the beginning."""

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement; its values are ``$1``, ``$2`` and so on."""
        if values is None and sql[:5].upper() in _CONTROL:
            return await self._control(sql)

        return await self._run(sql, values or (), prepare=None)

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query that will be run again and again."""
        return await self._run(sql, values or (), prepare=True)

    async def ping(self) -> None:
        """Make sure that the server answers; the driver's own errors are raised."""
        # Not ";" alone: asyncpg cannot read the reply to that on a new connection.
        await self._command("SELECT 1")

    @abstractmethod
    async def make_new(self) -> None:
        """
        Make the session as new: settings, temporary tables, locks, cursors and transactions end.

        A statement that was cancelled is waited for first, until the server has let go of it.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the session and close."""

    @abstractmethod
    def terminate(self) -> None:
        """Close at once."""

    @abstractmethod
    async def load_records(self, sql: str, target: CopyTarget, records: Iterable[Sequence[Any]]) -> int:
        """Load rows with COPY, and return how many; ``sql`` is what errors show."""

    @abstractmethod
    async def load_file(
        self, sql: str, target: CopyTarget, source: AsyncIterable[bytes], options: Mapping[str, Any]
    ) -> int:
        """Load a file with COPY, and return how many rows; ``sql`` is what errors show."""

    @abstractmethod
    async def dump(self, sql: str, values: Sequence[Any], output: Write, options: Mapping[str, Any]) -> int:
        """Write the rows of a query with COPY, and return how many."""

    @abstractmethod
    async def _execute(self, sql: str, values: Sequence[Any], *, prepare: bool | None) -> Reply:
        """Run one statement, prepared at once or when the driver thinks fit; its own errors are raised."""

    @abstractmethod
    async def _command(self, sql: str) -> str:
        """Run text without values, and return its command tag; the driver's own errors are raised."""

    @abstractmethod
    async def _insert_each(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one INSERT once per row of values, if possible without a wait in between; return how many."""

    @abstractmethod
    async def _open_cursor(self, sql: str, values: Sequence[Any], size: int) -> Fetch:
        """Run a query, and return what fetches its next rows; the driver's own errors are raised."""

    @abstractmethod
    def _map(self, error: Exception, sql: str) -> Exception:
        """Map an error of the driver, and note when it means that the connection was lost."""

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values, inside the transaction that is open.

        Only an INSERT that inserts each row or fails is sent at once: not every driver counts the others.
        """
        plain = sql[:6].upper() == "INSERT" and "CONFLICT" not in sql.upper() and "SELECT" not in sql.upper()

        if not plain:
            return await self._run_one_by_one(sql, values)

        target = _copy_target(sql) if len(values) >= _COPY_FROM else None

        if target is not None and await self._copies(target, values):
            return await self.load_records(sql, target, values)

        await self._ready()

        with self._mapped(sql):
            return await self._insert_each(sql, values)

    async def _run(self, sql: str, values: Sequence[Any], *, prepare: bool | None) -> Reply:
        if self.cut or self._streaming or self._left is not None:
            await self._ready()

        try:
            return await self._execute(sql, values, prepare=prepare)
        except self._driver_errors as error:
            raise self._map(error, sql) from error
        except BaseException:
            self.dirty = True  # what it has done, only the server knows
            raise

    async def _run_one_by_one(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        return sum([(await self.run(sql, row)).rowcount for row in values])

    def batches(
        self,
        sql: str,
        values: Sequence[Sequence[Any]],
        most_rows: int,
        most_bytes: int,
    ) -> None:
        """Return None: the drivers send all rows to one prepared statement, without a wait in between."""
        return

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement with a cursor on the server, in a transaction of its own when none is open."""
        await self._ready()
        own = not self.in_transaction

        if own:
            await self._control("BEGIN")

        self._streaming = True

        try:
            fetch = await self._open_cursor(sql, values or (), size)

            while (reply := await fetch()).rows:
                yield reply
        except GeneratorExit:
            # Left early, and nothing can be awaited here: the next statement, or the reset, ends the
            # transaction. What a statement with RETURNING has changed is kept, as outside of a stream.
            self._left = "COMMIT" if own else None
            raise
        except self._driver_errors as error:
            self._left = "ROLLBACK" if own else None
            raise self._map(error, sql) from error
        except BaseException:
            self._left = "ROLLBACK" if own else None
            raise
        finally:
            self._streaming = False

        if own:
            await self._control("COMMIT")

    def give_up(self) -> None:
        """Let nothing more run: somebody else's exchange on it was cut short."""
        self.cut = True
        self.terminate()

    def forget(self) -> None:
        """Note that the session was made as new."""
        self._left = None
        self.dirty = False

    async def _copies(self, target: CopyTarget, values: Sequence[Sequence[Any]]) -> bool:
        """
        Return whether COPY does to some columns of a table what INSERT does.

        It overrides identities that are always generated, skips rules, and refuses views and tables with
        row-level security. An INSERT converts each value to the type that the statement declares, and this
        one to the column's: COPY only the second, so both must be the same.
        """
        reply = await self.run(_COPIES, [target.table, target.columns, target.casts])
        return bool(reply.rows and reply.rows[0][0])

    @contextmanager
    def _mapped(self, sql: str) -> Iterator[None]:
        """Map the driver's errors."""
        try:
            yield
        except self._driver_errors as error:
            raise self._map(error, sql) from error

    async def _ready(self) -> None:
        """Refuse what comes in the middle of a stream, and end the transaction of one that was left."""
        if self.cut:
            raise cut_short()

        if self._streaming:
            raise busy(iterating=True)

        if self._left is not None:
            control, self._left = self._left, None
            await self._control(control)

    async def _control(self, sql: str) -> Reply:
        await self._ready()

        try:
            status = await self._command(sql)
        except self._driver_errors as error:
            raise self._map(error, sql) from error
        except BaseException:
            # Whether a BEGIN or COMMIT that was cancelled has happened, the driver does not know before the
            # server has answered. A transaction that nobody knows of would swallow what comes next.
            self.dirty = True

            if not sql.startswith(_INNER):
                self._left = "ROLLBACK"

            raise

        check_end(status, sql)
        return Reply(None, None, 0, 0)


def check_end(tag: str, sql: str) -> None:
    """
    Refuse the success of a COMMIT, in any spelling, that was a ROLLBACK.

    After an error inside of a transaction the server answers so: the caller must know that nothing was kept.
    """
    if tag == _ROLLED_BACK and verb(sql) not in {"rollback", "abort"}:
        message = (
            "COMMIT was a ROLLBACK: a statement of this transaction had failed before. Let its error end "
            "the block, or run it in a block of its own inside, which is a savepoint"
        )
        raise QueryError(message, code="transaction_failed", sqlstate="25P02", sql=sql)


class Listener(Protocol):
    """A connection that listens to channels; made by a driver's ``open_listener``."""

    async def watch(self, every: float, seen: Callable[[], None]) -> None:
        """Receive until the connection is lost, and call ``seen`` when it has answered, every few seconds."""

    def terminate(self) -> None:
        """Close at once."""


class CopyTarget(NamedTuple):
    """Where a COPY writes to."""

    table: str  # as it is written in SQL
    schema: str | None
    name: str
    columns: Sequence[str] | None  # None for all
    casts: Sequence[str | None] = ()  # the types that an INSERT declares for them


@lru_cache(maxsize=512)
def _copy_target(sql: str) -> CopyTarget | None:
    """Return where an INSERT of nothing but its parameters, in their order, inserts; otherwise None."""
    found = _INSERT.fullmatch(sql)

    if found is None:
        return None

    columns = [_plain_name(column) for column in re.findall(IDENTIFIER, found["columns"])]
    places = [_PLACE.fullmatch(place) for place in re.split(r"\s*,\s*(?=\$)", found["values"].strip())]

    if [place and place["n"] for place in places] != [str(n) for n in range(1, len(columns) + 1)]:
        return None

    parts = [_plain_name(part) for part in re.findall(IDENTIFIER, found["table"])]
    casts = [place and place["cast"] for place in places]
    return CopyTarget(found["table"], parts[0] if len(parts) > 1 else None, parts[-1], columns, casts)


def _plain_name(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')

    return identifier.lower()


def inserted_id(tag: str, rows: Sequence[Sequence[Any]]) -> int:
    """Return the id of an INSERT: the first thing that it returns, be it for SQLAlchemy's own sake."""
    first = rows[0][0] if rows and tag.startswith("INSERT") else 0
    return first if isinstance(first, int) else 0


def count_of(tag: str) -> int:
    """Return the number of rows at the end of a command tag, 0 when there is none."""
    count = tag.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0


trace_statements(PostgresConnection, "postgresql")
