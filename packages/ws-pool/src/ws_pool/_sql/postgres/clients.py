"""The client of a PostgreSQL pool: the verbs of all clients, and COPY."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeVar, cast, get_args

from sqlalchemy import Table

from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.parameters import Statement
from ws_pool._sql.compile.plan import TextPlan
from ws_pool._sql.files import Bytes, Output, Source, Write, reading, writing
from ws_pool._sql.postgres import statement_text
from ws_pool._sql.postgres.connection import CopyTarget, PostgresConnection
from ws_pool.errors import UsageError

Format = Literal["text", "csv", "binary"]
T = TypeVar("T")

_TEXTS = {"delimiter", "null", "quote", "escape", "encoding", "header"}
_READING = _TEXTS | {"force_not_null", "force_null", "freeze"}  # options of COPY FROM
_WRITING = _TEXTS | {"force_quote"}
_COLUMNS = TextPlan(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 "
    "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
    statement_text,
)


class PostgresClient(SqlClient):
    """A client of a `PostgresPool`: the verbs of `SqlClient`, and `copy_from` and `copy_to`."""

    __slots__ = ()

    async def copy_from(
        self,
        table: Table | str,
        source: Source | Iterable[Sequence[Any]] | Iterable[Mapping[str, Any]],
        *,
        columns: Sequence[str] | None = None,
        format: Format | None = None,
        **options: Any,
    ) -> int:
        """
        Load rows into a table with COPY, and return how many. All of them, or none.

        ``source`` is rows, as sequences or mappings, whose values have the types of the columns: no
        types of SQLAlchemy convert them. With a ``format`` it is a file: a path, bytes, an object with
        ``read()``, or a sync or async iterable of bytes; ``options`` are then those of COPY (``delimiter
        null header quote escape encoding``). ``table`` is a table or its name, with its schema before
        a dot. Defaults and triggers work as for INSERT; rules do not.
        """
        target = _target(table, columns)
        plan = _plan(f"COPY {target.table} FROM STDIN", reading=False)
        self._refuse_change(plan)

        if isinstance(columns, str):
            message = f"copy_from(): columns are a sequence of names, not {columns!r}"
            raise UsageError(message)

        if format is not None:
            given = _options("copy_from", format, options, _READING)

            async with reading(source, "copy_from") as chunks:
                noted = _Noted()
                loaded = noted.chunks(chunks)
                return await noted.run(
                    self._session.run(
                        plan, plan.sql, lambda to: _copying(to).load_file(plan.sql, target, loaded, given)
                    )
                )

        if options:
            message = f"copy_from(): {', '.join(options)} belong to a file: say its format"
            raise UsageError(message)

        records, names = _records(source, columns)

        if names is None:
            found = await self._session.run(
                _COLUMNS, _COLUMNS.sql, lambda to: to.run(_COLUMNS.sql, [target.table])
            )
            names = [column for (column,) in found.rows or ()] or None

        _check_length(records, names)
        return await self._session.run(
            plan,
            plan.sql,
            lambda to: _copying(to).load_records(plan.sql, target._replace(columns=names), records),
        )

    async def copy_to(
        self,
        what: Statement | Table,
        output: Output,
        *args: Any,
        format: Format = "text",
        options: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> int:
        """
        Write a table or the rows of a query to a file with COPY, and return how many rows.

        ``output`` is a path, an object with ``write()``, or a coroutine function that gets the bytes
        as they come; a file stays as it was when the query fails at once. ``options`` are those of COPY,
        such as ``{"header": True}``.
        """
        statement = what.select() if isinstance(what, Table) else what
        given = _options("copy_to", format, options or {}, _WRITING)
        inner, sql, values = await self._bind(statement, args, params)
        plan = _plan(f"COPY ({sql}) TO STDOUT", reading=inner.reading)
        query = sql.rstrip().rstrip(";") + "\n"  # the line ends a comment

        async with writing(output, "copy_to") as write:
            noted = _Noted()
            taking = noted.write(write)
            return await noted.run(
                self._session.run(
                    plan, plan.sql, lambda to: _copying(to).dump(query, values or (), taking, given)
                )
            )

    def _refuse_change(self, plan: TextPlan) -> None:
        if self.read_only:
            message = "this client only reads, and COPY FROM changes data: take one without read_only"
            raise UsageError(message, sql=plan.sql)


class _Noted:
    """Notes the error of a file, which a driver would take for one of its own, or for a lost connection."""

    def __init__(self) -> None:
        self._failure: Exception | None = None

    async def run(self, copying: Awaitable[T]) -> T:
        """Wait for a COPY; when the file has failed, it is that error which is raised."""
        try:
            return await copying
        except Exception as error:
            if self._failure is None or self._failure is error:
                raise

            raise self._failure from error

    async def chunks(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a source."""
        try:
            async for chunk in source:
                yield chunk
        except Exception as error:
            self._failure = error
            raise

    def write(self, output: Write) -> Write:
        """Return what writes to an output."""

        async def write(data: bytes) -> None:
            try:
                await output(data)
            except Exception as error:
                self._failure = error
                raise

        return write


def _options(verb: str, kind: str, options: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the options of a COPY of a file, when it has them."""
    if kind not in get_args(Format):
        message = f"{verb}(): a file has the format {', '.join(get_args(Format))}, not {kind!r}"
        raise UsageError(message)

    if unknown := sorted(set(options) - known):
        message = f"{verb}() has no option {', '.join(unknown)}; it has: {', '.join(sorted(known))}"
        raise UsageError(message)

    return {"format": kind, **options}


def _check_length(records: Iterable[Sequence[Any]], names: Sequence[str] | None) -> None:
    """Refuse rows with more or less values than there are columns: a driver may leave values out."""
    for number, record in enumerate(records):
        if names is not None and len(record) != len(names):
            message = f"copy_from(): row {number} has {len(record)} values for {len(names)} columns"
            raise UsageError(message)


def _copying(connection: object) -> PostgresConnection:
    return cast("PostgresConnection", connection)


def _plan(sql: str, *, reading: bool) -> TextPlan:
    """Return the plan of a COPY, which changes nothing of its session."""
    plan = TextPlan(sql, statement_text)
    plan.clean, plan.reading = True, reading
    return plan


def _target(table: Table | str, columns: Sequence[str] | None) -> CopyTarget:
    """Return where a COPY writes to; a table's name has its schema before a dot."""
    if isinstance(table, Table):
        schema, name = table.schema, table.name
    else:
        schema, _, name = table.rpartition(".")

    written = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name) if part)
    return CopyTarget(written, schema or None, name, columns)


def _records(
    source: Any, columns: Sequence[str] | None
) -> tuple[Sequence[Sequence[Any]], Sequence[str] | None]:
    """Return rows as sequences, with the names of their columns; mappings must all have the same keys."""
    if isinstance(source, str | PathLike | Bytes | Mapping) or not isinstance(source, Iterable):
        message = (
            f"copy_from() without a format takes an iterable of rows, not a {type(source).__name__}: "
            "say the format of a file"
        )
        raise UsageError(message)

    rows = list(source)

    for number, row in enumerate(rows):
        if isinstance(row, str | Bytes) or not isinstance(row, Mapping | Sequence):
            message = f"copy_from(): row {number} is a {type(row).__name__}, and not a sequence or a mapping"
            raise UsageError(message)

    if not rows or not isinstance(rows[0], Mapping):
        return rows, columns

    names = list(columns or rows[0])

    for number, row in enumerate(rows):
        if row.keys() != set(names):
            differ = ", ".join(map(repr, sorted(row.keys() ^ set(names))))
            message = f"copy_from(): row {number} has other keys than the columns: {differ}"
            raise UsageError(message)

    return [[row[name] for name in names] for row in rows], names
