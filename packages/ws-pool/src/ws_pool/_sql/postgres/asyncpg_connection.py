"""Statements over one connection of asyncpg."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from ws_pool._sql.connection import Reply, remember, trace_statements
from ws_pool._sql.files import Write
from ws_pool._sql.options import current_credential
from ws_pool._sql.postgres import statement_text
from ws_pool._sql.postgres.connection import (
    IDENTIFIER,
    CopyTarget,
    Fetch,
    PostgresConnection,
    Receive,
    check_end,
    count_of,
    inserted_id,
)
from ws_pool._sql.postgres.errors import map_error
from ws_pool._sql.postgres.options import Server
from ws_pool.errors import QueryError, UnavailableError

# What asyncpg's own reset leaves: temporary tables, sequences' last values, and another role.
_RESET = "SET SESSION AUTHORIZATION DEFAULT; DISCARD SEQUENCES; DISCARD TEMP"
_TABLE = re.compile(rf"INSERT INTO ((?:{IDENTIFIER}\.)?{IDENTIFIER}) ")
# Whether an INSERT into a table inserts each row or fails.
_INSERTS_EACH = """
SELECT c.relkind IN ('r', 'p') AND NOT c.relhasrules AND NOT EXISTS (
    SELECT FROM pg_trigger t
    WHERE (t.tgrelid = c.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid)))
    AND t.tgtype & 7 = 7  -- before, for each row, on INSERT
) FROM pg_class c WHERE c.oid = to_regclass($1)
"""
# The types that asyncpg can send in COPY's binary form, also in arrays and domains; enums are others.
_BINARY = """
SELECT NOT EXISTS (
    SELECT FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    JOIN pg_type e ON e.oid = CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE b.oid END
    WHERE a.attrelid = to_regclass($1) AND a.attname = ANY ($2) AND e.typtype <> 'e' AND NOT (
        e.typnamespace = 'pg_catalog'::regnamespace AND e.typname IN (
            'bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'text', 'varchar', 'bpchar',
            'name', 'bytea', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'uuid',
            'json', 'jsonb', 'inet', 'cidr', 'bit', 'varbit', 'int4range', 'int8range', 'numrange',
            'tsrange', 'tstzrange', 'daterange', 'int4multirange', 'int8multirange', 'nummultirange',
            'tsmultirange', 'tstzmultirange', 'datemultirange'
        )
    )
)
"""
_REMEMBERED = 1_000  # statements
_NOT_BINARY = "no binary format encoder"
_CLOSE = 2.0  # seconds that the server has to answer a goodbye


class AsyncpgConnection(PostgresConnection):
    """One connection of asyncpg, whose own part it is to stop a cancelled statement on the server."""

    __slots__ = ("_descriptions", "_driver_errors", "_out_of_step")

    def __init__(self, raw: Any, driver: Any) -> None:  # Any: what it takes of asyncpg is not public
        super().__init__(raw)
        self._driver_errors = (
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
        # asyncpg keeps a statement prepared, and with it this: its columns do not change.
        self._descriptions: dict[Any, list[tuple[Any, ...]]] = {}

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that has failed; that of a stream left early is not."""
        return bool(self._left is None and not self.raw.is_closed() and self.raw.is_in_transaction())

    @property
    def alive(self) -> bool:
        """Whether the connection can be used."""
        return not (self.cut or self.lost or self.raw.is_closed())

    @property
    def clean(self) -> bool:
        """Whether the session is as it was at the beginning."""
        return self.alive and not self.dirty and not self.raw.is_in_transaction()

    async def make_new(self) -> None:
        """Make the session as new, when the server has let go of a statement that was cancelled."""
        raw = self.raw

        if raw.recoded:
            self.lost = True  # no statement brings asyncpg's own codecs back: the connection is replaced
            return

        # Twice when a BEGIN was cancelled: that a transaction is open is known after the first exchange, and
        # what was reset inside of it would come back with its end.
        while True:
            if raw.is_in_transaction():  # asyncpg's own reset would log an error
                await raw.execute("ROLLBACK")

            await raw.reset()
            await raw.execute(_RESET)

            if not raw.is_in_transaction():
                break

        self.forget()

    async def close(self) -> None:
        """End the session and close."""
        await self.raw.close(timeout=_CLOSE)

    def terminate(self) -> None:
        """Close at once."""
        self.lost = True
        self.raw.terminate()

    def forget(self) -> None:
        """Note that the session was made as new; columns may be others with another search path."""
        self._descriptions.clear()
        super().forget()

    async def load_records(self, sql: str, target: CopyTarget, records: Iterable[Sequence[Any]]) -> int:
        """Load rows with COPY, and return how many; ``sql`` is what errors show."""
        return await self._load(sql, target, self.raw.copy_records_to_table, records=records)

    async def load_file(
        self, sql: str, target: CopyTarget, source: AsyncIterable[bytes], options: Mapping[str, Any]
    ) -> int:
        """Load a file with COPY, and return how many rows; ``sql`` is what errors show."""
        return await self._load(sql, target, self.raw.copy_to_table, source=source, **options)

    async def _load(
        self, sql: str, target: CopyTarget, copy: Callable[..., Awaitable[str]], **options: Any
    ) -> int:
        await self._ready()

        with self._mapped(sql):
            return count_of(
                await copy(target.name, schema_name=target.schema, columns=target.columns, **options)
            )

    async def dump(self, sql: str, values: Sequence[Any], output: Write, options: Mapping[str, Any]) -> int:
        """Write the rows of a query with COPY, and return how many."""
        await self._ready()
        failure: Exception | None = None
        writing = False

        async def take(data: bytes) -> None:
            nonlocal failure, writing

            # When its writer fails over the last rows, the driver asks the server to stop what has ended,
            # and waits for that at the next statement, for ever. So it sees no failure: the rest is read.
            if failure is None:
                writing = True

                try:
                    await output(data)
                except Exception as error:  # noqa: BLE001 - it is raised below
                    failure = error

                writing = False

        try:
            with self._mapped(sql):
                query = statement_text.fill(sql, await self._literals(sql, values)) if values else sql
                status = await self.raw.copy_from_query(query, output=take, **options)
        finally:
            if writing:  # cancelled meanwhile, for which the same is true
                self.terminate()

        if failure is not None:
            raise failure

        return count_of(status)

    async def _literals(self, sql: str, values: Sequence[Any]) -> list[str]:
        """Return the values of a statement as the server writes them, each with its type."""
        # COPY takes no values, and the driver writes them into strings of the query too.
        types = [
            f'"{kind.schema}"."{"_" + kind.name[:-2] if kind.name.endswith("[]") else kind.name}"'
            for kind in (await self.raw.prepare(sql)).get_parameters()
        ]
        written = ", ".join(f"quote_nullable(${n}::{kind}::text)" for n, kind in enumerate(types, 1))
        found = await self.raw.fetchrow(f"SELECT {written}", *values)
        return [f"({value}::{kind})" for value, kind in zip(found, types, strict=True)]

    async def _copies(self, target: CopyTarget, values: Sequence[Sequence[Any]]) -> bool:
        """Return whether COPY, whose binary form not all types have here, does what INSERT does."""
        if not await super()._copies(target, values):
            return False

        reply = await self.run(_BINARY, [target.table, target.columns])
        return bool(reply.rows and reply.rows[0][0])

    async def _execute(self, sql: str, values: Sequence[Any], *, prepare: bool | None) -> Reply:
        raw: Any = self.raw

        def execute(statement: Any, timeout: float | None) -> Any:
            return raw._protocol.bind_execute(
                state=statement,
                args=values,
                portal_name="",
                limit=0,
                return_extra=True,
                timeout=timeout,
            )

        try:
            with raw._stmt_exclusive_section:
                # What `fetch` does, beside which it keeps the statement, for the columns of no rows, and the
                # command tag, for the number of rows. It prepares all statements, whatever `prepare` says.
                (rows, status, _), statement = await raw._do_execute(sql, execute, None)
        except AttributeError as error:
            if not raw.is_closed():
                raise

            # Closed meanwhile, it has no protocol any more, which the driver does not look at before use.
            message = "the connection was closed"
            raise ConnectionError(message) from error

        description = self._describe(statement)
        tag = status.decode() if status else ""
        check_end(tag, sql)
        return Reply(
            rows if description else None, description or None, count_of(tag), inserted_id(tag, rows)
        )

    async def _command(self, sql: str) -> str:
        return str(await self.raw.execute(sql))

    async def _insert_each(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        # `executemany` does not count, and a trigger or a rule may leave rows out.
        table = _TABLE.match(sql)
        reply = await self.run(_INSERTS_EACH, [table[1]]) if table is not None else None

        if reply is None or not reply.rows or not reply.rows[0][0]:
            return await self._run_one_by_one(sql, values)

        await self.raw.executemany(sql, values)
        return len(values)

    async def _open_cursor(self, sql: str, values: Sequence[Any], size: int) -> Fetch:
        statement = await self.raw.prepare(sql)
        description = [_column(attribute) for attribute in statement.get_attributes()]
        cursor = await statement.cursor(*values)

        async def fetch() -> Reply:
            rows = await cursor.fetch(size)
            return Reply(rows, description, len(rows), 0)

        return fetch

    def _describe(self, statement: Any) -> list[tuple[Any, ...]]:
        description = self._descriptions.get(statement)

        if description is None:
            description = [_column(attribute) for attribute in statement._get_attributes() or ()]

            if statement.name:  # kept prepared: it comes again
                remember(self._descriptions, statement, description, _REMEMBERED)

        return description

    def _map(self, error: Exception, sql: str) -> Exception:
        if _NOT_BINARY in str(error):
            message = (
                f"asyncpg cannot copy such rows: {error}; use insert_many(), or a file with format='text'"
            )
            return QueryError(message, sql=sql)

        if self.raw.is_closed() or isinstance(error, self._out_of_step):
            self.lost = True

        if isinstance(error, self._out_of_step):
            return UnavailableError(f"the connection to the server was lost: {error}", sql=sql)

        return map_error(error, sql)


def _column(attribute: Any) -> tuple[Any, ...]:
    """Return the description of a column as the DB-API has it; its type is the number of the server's."""
    return (attribute.name, attribute.type.oid, None, None, None, None, None)


class _Listener:
    """A connection that listens."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._lost = asyncio.Event()
        raw.add_termination_listener(lambda _: self._lost.set())

    async def watch(self, every: float, seen: Callable[[], None]) -> None:
        """Receive until the connection is lost; it has to answer every few seconds."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._lost.wait()
                    return

            try:
                async with asyncio.timeout(every):
                    await self._raw.execute("SELECT 1")
            except Exception:  # noqa: BLE001 - whatever it is, another connection is needed
                return

            seen()

    def terminate(self) -> None:
        """Close at once."""
        self._raw.terminate()


async def open_listener(server: Server, channels: Sequence[str], receive: Receive) -> _Listener:
    """Connect, and listen to channels."""
    driver: Any = importlib.import_module("asyncpg")

    def take(_: object, pid: int, channel: str, payload: str) -> None:
        receive(channel, payload, pid)

    try:
        raw = await open_driver_connection(server, driver)
    except driver.PostgresError as error:
        raise map_error(error, "LISTEN") from error

    try:
        for channel in channels:
            await raw.add_listener(channel, take)
    except BaseException:
        raw.terminate()
        raise

    return _Listener(raw)


async def open_connection(server: Server) -> AsyncpgConnection:
    """Connect, authenticate, and set the session up."""
    driver: Any = importlib.import_module("asyncpg")  # not before it is needed
    return AsyncpgConnection(await open_driver_connection(server, driver), driver)


async def open_driver_connection(server: Server, driver: Any) -> Any:  # Any: asyncpg is loaded on use
    """Open a connection of asyncpg, which reads and writes JSON as SQLAlchemy's engine has it."""
    raw = await driver.connect(
        connection_class=_watched_class(driver),
        host=list(server.hosts) or server.host,
        port=server.port,
        user=await current_credential(server.user) or None,
        password=server.password,
        database=server.db,
        ssl=server.ssl,
        passfile=server.passfile,
        timeout=server.connect_timeout,
        server_settings={"application_name": server.application_name, **server.server_settings},
        target_session_attrs=server.target_session_attrs,
        # Without, each statement is parsed anew and unnamed, which a pooler in transaction mode needs.
        statement_cache_size=server.statement_cache_size if server.prepared else 0,
    )

    try:
        for name, prefix in (("json", b""), ("jsonb", b"\x01")):
            await raw.set_type_codec(
                name,
                schema="pg_catalog",
                format="binary",
                encoder=_encoder(prefix),
                decoder=_decoder(len(prefix)),
            )
    except BaseException:
        raw.terminate()
        raise

    raw.recoded = False
    return raw


@cache
def _watched_class(driver: Any) -> type[Any]:  # Any: asyncpg is loaded on use
    """Return asyncpg's connection, with a note of codecs that were set: its own reset leaves them."""

    def noting(change: Any) -> Any:
        async def noted(self: Any, *arguments: Any, **options: Any) -> None:
            self.recoded = True
            await change(self, *arguments, **options)

        return noted

    base = driver.Connection
    changes = ("set_type_codec", "set_builtin_type_codec", "reset_type_codec")
    members = {name: noting(getattr(base, name)) for name in changes}
    made: type[Any] = type(base)("WatchedConnection", (base,), {"__slots__": ("recoded",), **members})
    return made


def _encoder(prefix: bytes) -> Callable[[str], bytes]:
    """Return what writes JSON that SQLAlchemy's type has made text; jsonb begins with its version."""
    return lambda value: prefix + value.encode()


def _decoder(length: int) -> Callable[[bytes], Any]:
    return lambda value: json.loads(value[length:])


trace_statements(AsyncpgConnection, "postgresql")
