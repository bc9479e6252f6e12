"""The client of a PostgreSQL pool: the verbs of all clients, and COPY."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, cast

from sqlalchemy import Table

from ws_pool._sql.client import SqlClient, Statement
from ws_pool._sql.compile.plan import TextPlan
from ws_pool._sql.postgres import statement_text
from ws_pool._sql.postgres.connection import PostgresConnection
from ws_pool.errors import UsageError

__all__ = ("PostgresClient",)

Format = Literal["text", "csv", "binary"]
Source = str | PathLike[str] | AsyncIterable[bytes] | Any  # Any: an object with read(), as open() returns
Output = str | PathLike[str] | Callable[[bytes], Awaitable[None]] | Any  # Any: an object with write()


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
        types of SQLAlchemy convert them. With a ``format`` it is a file: a path, an object with
        ``read()``, or an async iterable of bytes; ``options`` are then those of COPY (``delimiter
        null header quote escape encoding``). ``table`` is a table or its name, with its schema before
        a dot. Defaults and triggers work as for INSERT; rules do not.
        """
        schema, name = _name(table)
        plan = _plan(f"COPY {_shown(schema, name)} FROM STDIN", reading=False)
        self._refuse_change(plan)

        if format is not None:
            given = {"format": format, **options}
            return await self._session.run(
                plan,
                plan.sql,
                lambda to: _copying(to).load_file(plan.sql, name, schema, source, columns, given),
            )

        if options:
            message = f"copy_from(): {', '.join(options)} belong to a file: say its format"
            raise UsageError(message)

        records, names = _records(cast("Iterable[Any]", source), columns)
        return await self._session.run(
            plan, plan.sql, lambda to: _copying(to).load_records(plan.sql, name, schema, records, names)
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
        as they come. ``options`` are those of COPY, such as ``{"header": True}``. ``args`` is one
        mapping, or values by position; ``params`` are parameters by name.
        """
        statement = what.select() if isinstance(what, Table) else what
        inner, sql, values = await self._bind(statement, args, params)
        plan = _plan(f"COPY ({sql}) TO STDOUT", reading=inner.reading)
        given = {"format": format, **(options or {})}
        return await self._session.run(
            plan, plan.sql, lambda to: _copying(to).dump(sql, values or (), output, given)
        )

    def _refuse_change(self, plan: TextPlan) -> None:
        if self.read_only:
            message = "this client only reads, and COPY FROM changes data: take one without read_only"
            raise UsageError(message, sql=plan.sql)


def _copying(connection: object) -> PostgresConnection:
    return cast("PostgresConnection", connection)


def _plan(sql: str, *, reading: bool) -> TextPlan:
    """Return the plan of a COPY, which changes nothing of its session."""
    plan = TextPlan(sql, statement_text)
    plan.clean, plan.reading = True, reading
    return plan


def _name(table: Table | str) -> tuple[str | None, str]:
    if isinstance(table, Table):
        return table.schema, table.name

    schema, _, name = table.rpartition(".")
    return schema or None, name


def _shown(schema: str | None, name: str) -> str:
    quoted = ['"' + part.replace('"', '""') + '"' for part in (schema, name) if part]
    return ".".join(quoted)


def _records(
    source: Iterable[Any], columns: Sequence[str] | None
) -> tuple[Iterable[Sequence[Any]], Sequence[str] | None]:
    """Return rows as sequences, with the names of their columns; mappings must all have the same keys."""
    rows = list(source)

    if not rows or not isinstance(rows[0], Mapping):
        return rows, columns

    names = list(columns or rows[0])

    for number, row in enumerate(rows):
        if row.keys() != set(names):
            differ = ", ".join(map(repr, sorted(row.keys() ^ set(names))))
            message = f"copy_from(): row {number} has other keys than the columns: {differ}"
            raise UsageError(message)

    return [[row[name] for name in names] for row in rows], names
