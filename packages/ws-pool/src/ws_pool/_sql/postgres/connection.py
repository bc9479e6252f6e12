"""Statements over one connection of asyncpg."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from ws_pool._sql.connection import Reply, busy, trace_statements
from ws_pool._sql.postgres.errors import map_error
from ws_pool.errors import QueryError, UnavailableError

__all__ = ("PostgresConnection",)

_CONTROL = frozenset(
    {"BEGIN", "START", "COMMI", "ROLLB", "SAVEP", "RELEA"}
)  # first letters of transaction control
_ROLLED_BACK = "ROLLBACK"
_INNER = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")  # as transactions write them
_COPY_FROM = 200  # rows; from here on COPY is faster than one prepared INSERT with many sets of values
_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_INSERT = re.compile(
    rf"INSERT\ INTO\ (?P<table>(?:{_IDENTIFIER}\.)?{_IDENTIFIER})\ "
    rf"\((?P<columns>{_IDENTIFIER}(?:,\ {_IDENTIFIER})*)\)\ "
    r"VALUES\ \((?P<values>[^()]*(?:\(\d+(?:,\ \d+)?\)[^()]*)*)\)",
    re.VERBOSE,
)
_CAST = re.compile(r"::[A-Za-z][\w ]*(?:\(\d+(?:, \d+)?\))?(?:\[\])*(?: WITH(?:OUT)? TIME ZONE)?")
_COPIES = """
SELECT c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND NOT c.relhasrules AND NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity = 'a'
) FROM pg_class c WHERE c.oid = to_regclass($1)
"""


class PostgresConnection:
    """
    One connection; asyncpg's own is ``raw``.

    A cancelled statement is asyncpg's to end: it sends a CancelRequest over another connection, and
    the next exchange waits until the server has let go. So a connection is never cut short here.
    """

    __slots__ = (
        "_descriptions",
        "_driver_errors",
        "_left",
        "_out_of_step",
        "_streaming",
        "dirty",
        "lost",
        "raw",
    )

    gathers: ClassVar[bool] = False
    cut: ClassVar[bool] = False

    def __init__(self, raw: Any, driver: Any) -> None:  # Any: what it takes of asyncpg is not public
        self.raw = raw
        self.dirty = False
        self.lost = False
        self._driver_errors: tuple[type[Exception], ...] = (
            driver.PostgresError,
            driver.InterfaceError,
            driver.InternalClientError,
            OSError,
            # Values that do not fit their column, such as text for a number.
            TypeError,
            ValueError,
            OverflowError,
        )
        # The protocol is in a state that no statement of ours leaves behind: the server's last word, such as
        # its own end, has come, and the end of the connection has not.
        self._out_of_step: type[Exception] = driver.InternalClientError
        self._streaming = False  # a query's rows are being fetched
        self._left: str | None = None  # how to end the transaction of a stream whose reader has gone
        # asyncpg keeps a statement prepared, and with it this: its columns do not change.
        self._descriptions: dict[Any, list[tuple[Any, ...]]] = {}

    def __repr__(self) -> str:
        return f"<PostgresConnection {id(self):#x}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that has failed; that of a stream left early is not."""
        return bool(self._left is None and not self.raw.is_closed() and self.raw.is_in_transaction())

    @property
    def alive(self) -> bool:
        """Whether the connection can be used."""
        return not self.lost and not self.raw.is_closed()

    @property
    def clean(self) -> bool:
        """Whether the session is as it was at the beginning."""
        return not self.dirty and not self.raw.is_in_transaction()

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement; its values are ``$1``, ``$2`` and so on."""
        if values is None and sql[:5].upper() in _CONTROL:
            return await self._control(sql)

        await self._ready()
        raw: Any = self.raw
        arguments = values or ()

        def execute(statement: Any, timeout: float | None) -> Any:
            return raw._protocol.bind_execute(
                state=statement,
                args=arguments,
                portal_name="",
                limit=0,
                return_extra=True,
                timeout=timeout,
            )

        try:
            with raw._stmt_exclusive_section:
                # What `fetch` does, beside which it keeps the statement, for the columns of no rows,
                # and the command tag, for the number of rows.
                (rows, status, _), statement = await raw._do_execute(sql, execute, None)
        except self._driver_errors as error:
            raise self._map(error, sql) from error
        except BaseException:
            self.dirty = True  # what it has done, only the server knows
            raise

        description = self._describe(statement)
        tag = status.decode() if status else ""
        count = tag.rpartition(" ")[2]
        rowcount = int(count) if count.isdigit() else 0

        # An INSERT's id is the first thing that it returns, be it for SQLAlchemy's own sake.
        last_id = rows[0][0] if rows and tag.startswith("INSERT") else 0
        return Reply(
            rows if description else None,
            description or None,
            rowcount,
            last_id if isinstance(last_id, int) else 0,
        )

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query that will be run again and again; asyncpg keeps it prepared anyway."""
        return await self.run(sql, values)

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values, inside the transaction that is open.

        The driver's own way to do that, which sends all rows at once, reports no numbers of rows. An
        INSERT without ON CONFLICT inserts each row or fails, so its number is known.
        """
        plain = sql[:6].upper() == "INSERT" and "CONFLICT" not in sql.upper() and "SELECT" not in sql.upper()

        if not plain:
            return sum([(await self.run(sql, row)).rowcount for row in values])

        await self._ready()

        try:
            target = _copy_target(sql) if len(values) >= _COPY_FROM else None

            if target is not None and await self._copies(target.table):
                status = await self.raw.copy_records_to_table(
                    target.name, schema_name=target.schema, columns=target.columns, records=values
                )
                return _count(status)

            await self.raw.executemany(sql, values)
        except self._driver_errors as error:
            raise self._map(error, sql) from error

        return len(values)

    async def load_records(
        self,
        sql: str,
        name: str,
        schema: str | None,
        records: Iterable[Sequence[Any]],
        columns: Sequence[str] | None,
    ) -> int:
        """Load rows with COPY, and return how many; ``sql`` is what errors show."""
        await self._ready()

        try:
            status = await self.raw.copy_records_to_table(
                name, schema_name=schema, columns=columns, records=records
            )
        except self._driver_errors as error:
            raise self._map(error, sql) from error

        return _count(status)

    async def load_file(
        self,
        sql: str,
        name: str,
        schema: str | None,
        source: Any,
        columns: Sequence[str] | None,
        options: Mapping[str, Any],
    ) -> int:
        """Load a file with COPY, and return how many rows; ``sql`` is what errors show."""
        await self._ready()

        try:
            status = await self.raw.copy_to_table(
                name, schema_name=schema, columns=columns, source=source, **options
            )
        except self._driver_errors as error:
            raise self._map(error, sql) from error

        return _count(status)

    async def dump(self, sql: str, values: Sequence[Any], output: Any, options: Mapping[str, Any]) -> int:
        """Write the rows of a query with COPY, and return how many."""
        await self._ready()

        try:
            status = await self.raw.copy_from_query(sql, *values, output=output, **options)
        except self._driver_errors as error:
            raise self._map(error, sql) from error

        return _count(status)

    def batches(
        self,
        sql: str,
        values: Sequence[Sequence[Any]],
        most_rows: int,
        most_bytes: int,
    ) -> None:
        """Return None: the driver sends all rows to one prepared statement, without a wait in between."""
        return

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement with a cursor on the server, in a transaction of its own when none is open."""
        await self._ready()
        own = not self.in_transaction

        if own:
            await self._control("BEGIN")

        self._streaming = True

        try:
            statement = await self.raw.prepare(sql)
            description = [_column(attribute) for attribute in statement.get_attributes()]
            cursor = await statement.cursor(*(values or ()))

            while rows := await cursor.fetch(size):
                yield Reply(rows, description, len(rows), 0)
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
        self.terminate()

    def terminate(self) -> None:
        """Close at once."""
        self.lost = True
        self.raw.terminate()

    def forget(self) -> None:
        """Note that the session was made as new; columns may be others with another search path."""
        self._descriptions.clear()
        self._left = None
        self.dirty = False

    async def _copies(self, table: str) -> bool:
        """
        Return whether COPY does to a table what INSERT does.

        It overrides identities that are always generated, skips rules, and refuses views and tables with
        row-level security.
        """
        return bool(await self.raw.fetchval(_COPIES, table))

    async def _ready(self) -> None:
        """Refuse what comes in the middle of a stream, and end the transaction of one that was left."""
        if self._streaming:
            raise busy(iterating=True)

        if self._left is not None:
            control, self._left = self._left, None
            await self._control(control)

    async def _control(self, sql: str) -> Reply:
        if self._streaming or self._left is not None:
            await self._ready()

        try:
            status = await self.raw.execute(sql)
        except self._driver_errors as error:
            raise self._map(error, sql) from error
        except BaseException:
            # Whether a BEGIN or COMMIT that was cancelled has happened, the driver does not know before the
            # server has answered. A transaction that nobody knows of would swallow what comes next.
            self.dirty = True

            if not sql.startswith(_INNER):
                self._left = "ROLLBACK"

            raise

        # After an error inside of a transaction the server answers ROLLBACK to COMMIT, as if that were
        # a success: the caller must know that nothing was kept.
        if status == _ROLLED_BACK and sql[:6].upper() == "COMMIT":
            message = (
                "COMMIT was a ROLLBACK: a statement of this transaction had failed before. Let its error end "
                "the block, or run it in a block of its own inside, which is a savepoint"
            )
            raise QueryError(message, code="transaction_failed", sqlstate="25P02", sql=sql)

        return Reply(None, None, 0, 0)

    def _describe(self, statement: Any) -> list[tuple[Any, ...]]:
        description = self._descriptions.get(statement)

        if description is None:
            description = [_column(attribute) for attribute in statement._get_attributes() or ()]

            if statement.name:  # kept prepared: it comes again
                if len(self._descriptions) >= 1_000:
                    self._descriptions.clear()

                self._descriptions[statement] = description

        return description

    def _map(self, error: Exception, sql: str) -> Exception:
        if self.raw.is_closed() or isinstance(error, self._out_of_step):
            self.lost = True

        if isinstance(error, self._out_of_step):
            return UnavailableError(f"the connection to the server was lost: {error}", sql=sql)

        return map_error(error, sql)


class _Target(NamedTuple):
    table: str  # as it is written
    schema: str | None
    name: str
    columns: list[str]


@lru_cache(maxsize=512)
def _copy_target(sql: str) -> _Target | None:
    """Return where an INSERT of nothing but its parameters, in their order, inserts; otherwise None."""
    found = _INSERT.fullmatch(sql)

    if found is None:
        return None

    columns = [_plain_name(column) for column in re.findall(_IDENTIFIER, found["columns"])]
    values = re.split(r"\s*,\s*", _CAST.sub("", found["values"]).strip())

    if values != [f"${n}" for n in range(1, len(columns) + 1)]:
        return None

    parts = [_plain_name(part) for part in re.findall(_IDENTIFIER, found["table"])]
    return _Target(found["table"], parts[0] if len(parts) > 1 else None, parts[-1], columns)


def _plain_name(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')

    return identifier.lower()


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])


def _column(attribute: Any) -> tuple[Any, ...]:
    """Return the description of a column as the DB-API has it; its type is the number of the server's."""
    return (attribute.name, attribute.type.oid, None, None, None, None, None)


trace_statements(PostgresConnection, "postgresql")
