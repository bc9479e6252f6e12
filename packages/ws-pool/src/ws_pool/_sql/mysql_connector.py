"""Connections to MySQL and MariaDB over aiomysql or asyncmy.

Both drivers speak the same protocol with nearly the same names; what differs is how a connection is
made and how one sees that it is gone.
"""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

from ws_pool._sql.connection import Reply, busy, cut_short, mysql_error
from ws_pool._sql.mysql_options import Server
from ws_pool._sql.wire import ResultReader
from ws_pool.errors import UnavailableError, UnsupportedStatement, WsError

__all__ = ("MysqlConnection", "MysqlConnector")

_WRITABLE = (str, float, Decimal, dt.date, dt.time, dt.timedelta, list, tuple, set, frozenset, UUID)
_BINARY = frozenset({int, str, bytes, Decimal, type(None)})  # what means the same in text and in binary
_FLOAT = 4  # the type code of single-precision columns
_PREPARED = 64  # statements that asyncmy keeps prepared on the server, per connection
_COM_RESET_CONNECTION = 0x1F
_FOUND_ROWS = 2  # client flag: an UPDATE counts the rows it matched, as SQLAlchemy's engine does
_IN_TRANSACTION = 1  # server status flag


class MysqlConnection:
    """
    One connection; the driver's own is ``raw``.

    Args:
        raw: A connection of aiomysql or asyncmy, open.
        driver_error: The base of the driver's errors.
    """

    __slots__ = ("cut", "dirty", "driver_error", "in_exchange", "raw", "send", "streaming")

    send: Callable[[str], Awaitable[Reply]]
    """Sends a statement, and reads all of its results; chosen by the driver's class."""

    def __init__(self, raw: Any, driver_error: type[Exception]) -> None:  # Any: the drivers are not typed
        self.raw = raw
        self.driver_error = driver_error
        self.dirty = False
        self.in_exchange = False
        self.streaming = False
        self.cut = False

    def __repr__(self) -> str:
        return f"<MysqlConnection {id(self):#x}>"

    @property
    def in_transaction(self) -> bool:
        """Whether the server said that a transaction is open."""
        return bool(self.raw.server_status & _IN_TRANSACTION)

    def forget_prepared(self) -> None:
        """Forget what the server has forgotten in a reset."""

    @property
    def connected(self) -> bool:
        """Whether the driver still has its connection."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when an exchange was cut short."""
        return not (self.cut or self.in_exchange or self.streaming) and self.connected

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new."""
        return not (self.dirty or self.raw.server_status & _IN_TRANSACTION) and self.alive

    def literal(self, value: Any) -> str:
        """
        Write a value as SQL.

        Args:
            value: A value of a bound parameter.
        """
        kind = type(value)

        if kind is int:
            return str(value)

        if kind is str:
            return f"'{value}'" if value.isalnum() else f"'{self.raw.escape_string(value)}'"

        if value is None:
            return "NULL"

        if isinstance(value, int):
            return str(int(value))

        if isinstance(value, bytes | bytearray | memoryview):
            return f"_binary X'{value.hex()}'"  # aiomysql 0.3 cannot write bytes with PyMySQL 1.2

        if isinstance(value, _WRITABLE):
            return f"'{value}'" if isinstance(value, UUID) else str(self.raw.escape(value))

        message = f"a value of type {kind.__name__} has no form in SQL: convert it, or give its column a type"
        raise UnsupportedStatement(message)

    def interpolate(self, sql: str, values: Sequence[Any] | None) -> str:
        """
        Put values into a statement.

        Args:
            sql: The statement with ``%s`` placeholders.
            values: The values, or None when it has no placeholders.
        """
        if values is None:
            return sql

        literal = self.literal

        try:
            return sql % tuple([literal(value) for value in values])
        except TypeError as error:
            message = f"the values do not fit the statement's placeholders: {error}"
            raise UnsupportedStatement(message, sql=sql) from error

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run one statement.

        Args:
            sql: The statement with ``%s`` placeholders.
            values: The values, or None when it has no placeholders.

        Returns:
            The reply; of several results, the first that has rows.

        Raises:
            UnavailableError: The connection was lost.
            QueryError: The server refused the statement.
        """
        if self.in_exchange or self.cut or self.streaming:
            raise self._unfit()

        query = sql if values is None else self.interpolate(sql, values)
        self.in_exchange = True

        try:
            reply = await self.send(query)
        except self.driver_error as error:
            raise self._failed(error, sql) from error
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False
        return reply

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run a query that will be run again and again; a driver may know a shorter way for it.

        Args:
            sql: The query with ``%s`` placeholders; it changes nothing.
            values: The values, or None when it has no placeholders.

        Returns:
            The reply, as of `run`.
        """
        return await self.run(sql, values)

    async def run_written(self, query: str, sql: str) -> Reply:
        """
        Run one statement that has its values in it.

        Args:
            query: The statement.
            sql: The statement without values, for errors.

        Returns:
            The reply, as of `run`.
        """
        try:
            return await self.run(query, None)
        except WsError as error:
            error.context["sql"] = sql
            raise

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values.

        Args:
            sql: The statement with ``%s`` placeholders.
            values: The rows.

        Returns:
            The sum of rows matched.
        """
        total = 0

        for row in values:
            total += (await self.run(sql, row)).rowcount

        return total

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """
        Run one statement and give its rows in blocks, as the server sends them.

        Args:
            sql: The statement with ``%s`` placeholders.
            values: The values, or None when it has no placeholders.
            size: Rows per block.

        Yields:
            Replies with up to ``size`` rows each.
        """
        if self.in_exchange or self.cut or self.streaming:
            raise self._unfit()

        query = self.interpolate(sql, values)
        self.streaming = True
        ended = False

        try:
            raw = self.raw
            await raw.query(query, unbuffered=True)
            result = raw._result  # noqa: SLF001 - what an unbuffered cursor reads too
            rows: list[tuple[Any, ...]] = []

            while (row := await result._read_rowdata_packet_unbuffered()) is not None:  # noqa: SLF001 - as above
                rows.append(row)

                if len(rows) >= size:
                    yield Reply(rows, result.description, len(rows), 0)
                    rows = []

            ended = True

            if rows:
                yield Reply(rows, result.description, len(rows), 0)
        except self.driver_error as error:
            failure = self._failed(error, sql)
            ended = True  # for the server; whether the connection was lost, `_failed` has told
            raise failure from error
        finally:
            self.streaming = False

            if not ended:
                self.cut = True

    async def command(self, code: int) -> None:
        """
        Send a command without arguments, and read its OK.

        Args:
            code: The command's number in the protocol.
        """
        self.in_exchange = True

        try:
            await self.raw._execute_command(code, b"")  # noqa: SLF001 - the driver has no name for this command
            await self.raw._read_ok_packet()  # noqa: SLF001 - as above
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False

    def terminate(self) -> None:
        """Close at once."""
        self.raw.close()

    def _unfit(self) -> WsError:
        return cut_short() if self.cut else busy()

    def _failed(self, error: Exception, sql: str) -> Exception:
        """Book an error of the driver, and translate it."""
        self.in_exchange = False
        failure = mysql_error(error, sql)
        self.cut = self.cut or isinstance(failure, UnavailableError) or not self.connected
        return failure


class AiomysqlConnection(MysqlConnection):
    """A connection of aiomysql, whose results are read by `ws_pool._sql.wire`."""

    __slots__ = ()

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Error)
        reader = ResultReader(
            raw,
            lost=lambda text: driver.OperationalError(2013, text),
            fail=importlib.import_module("pymysql.err").raise_mysql_exception,
            converters=raw.decoders,
            text_types=frozenset(driver.TEXT_TYPES),
        )
        self.send = reader.query

    @property
    def connected(self) -> bool:
        """Whether neither side has closed the connection."""
        raw = self.raw
        return raw._writer is not None and not raw._reader.eof_received  # noqa: SLF001 - no public way to see it

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new; asked at each release."""
        raw = self.raw
        bad = self.dirty or self.cut or self.in_exchange or self.streaming or raw._writer is None  # noqa: SLF001 - as above
        return not (bad or raw.server_status & _IN_TRANSACTION or raw._reader.eof_received)  # noqa: SLF001 - as above


class AsyncmyConnection(MysqlConnection):
    """A connection of asyncmy, which reads results itself, and has prepared statements on the server."""

    __slots__ = ("_cursor", "_text_only")

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Connection.Error)
        self.send = self._send
        self._cursor = raw.cursor()
        self._text_only: set[str] = set()

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run a query as a prepared statement of the server, in the binary protocol.

        It costs the client about half of what text costs. What would not give exactly the same as
        text goes as text: FLOAT columns, which have more digits in binary, and values whose literal
        has another type than they have, such as dates.

        Args:
            sql: The query with ``%s`` placeholders; it changes nothing.
            values: The values, or None when it has no placeholders.

        Returns:
            The reply, as of `run`.
        """
        if values is None or sql in self._text_only:
            return await self.run(sql, values)

        for value in values:
            if type(value) not in _BINARY:
                return await self.run(sql, values)

        if self.in_exchange or self.cut or self.streaming:
            raise self._unfit()

        self.in_exchange = True
        cursor = self._cursor

        try:
            await cursor.execute(sql, values)
        except self.driver_error as error:
            raise self._failed(error, sql) from error
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False
        rows, description = cursor._rows, cursor.description  # noqa: SLF001 - fetchall() would copy them

        if description is None or any(column[1] == _FLOAT for column in description):
            self._text_only.add(sql)
            return await self.run(sql, values)

        return Reply(rows, description, len(rows), 0)

    def forget_prepared(self) -> None:
        """Forget the prepared statements, which a reset has ended on the server."""
        self.raw._stmt_cache.clear()  # noqa: SLF001 - the driver has no reset, and cannot know of one

    @property
    def connected(self) -> bool:
        """Whether neither side has closed the connection."""
        return not self.raw._stream_broken  # noqa: SLF001 - `connected` alone does not see the end

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new; asked at each release."""
        raw = self.raw
        bad = self.dirty or self.cut or self.in_exchange or self.streaming
        return not (bad or raw.server_status & _IN_TRANSACTION or raw._stream_broken)  # noqa: SLF001 - as above

    async def _send(self, query: str) -> Reply:
        """Send a statement, and read all of its results."""
        raw = self.raw
        await raw.query(query)
        result = raw._result  # noqa: SLF001 - what a cursor reads too
        reply = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

        while raw._result.has_next:  # noqa: SLF001 - as above
            await raw.next_result()

            if reply.rows is None:
                result = raw._result  # noqa: SLF001 - as above
                reply = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

        return reply


class MysqlConnector:
    """
    Opens, checks and closes connections to one server.

    Args:
        server: How to reach it.
        reset_always: Reset a session even when it is provably as new.
    """

    def __init__(self, server: Server, *, reset_always: bool = False) -> None:
        self.server = server
        self.is_alive: Callable[[MysqlConnection], bool] = attrgetter("alive")
        self.is_clean: Callable[[MysqlConnection], bool] = _never if reset_always else attrgetter("clean")

    def __str__(self) -> str:
        return str(self.server)

    async def open(self) -> MysqlConnection:
        """Connect, authenticate, and set the session up."""
        server = self.server
        options: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": await _current(server.user) or None,
            "password": await _current(server.password) or "",
            "unix_socket": server.unix_socket,
            "charset": server.charset,
            "autocommit": server.autocommit,
            "client_flag": _FOUND_ROWS,
            "ssl": server.ssl,
            "init_command": server.init_command,
            "connect_timeout": max(1.0, server.connect_timeout),
            "sql_mode": None if server.sql_mode is None else f"'{server.sql_mode}'",
        }

        if server.driver == "asyncmy":
            return await self._open_asyncmy(options)

        return await self._open_aiomysql(options)

    async def ping(self, conn: MysqlConnection) -> None:
        """Make sure that the server answers."""
        await conn.command(0x0E)

    async def reset(self, conn: MysqlConnection) -> None:
        """Make the session as new: variables, temporary tables, locks and transactions end."""
        server = self.server
        await conn.command(_COM_RESET_CONNECTION)
        conn.forget_prepared()
        await conn.run(f"SET NAMES {server.charset}", None)

        if server.sql_mode is not None:
            await conn.run(f"SET sql_mode = '{server.sql_mode}'", None)

        await conn.run(f"SET autocommit = {int(server.autocommit)}", None)

        if server.init_command is not None:
            await conn.run(server.init_command, None)

        if server.db is not None:
            await conn.run(f"USE `{server.db.replace('`', '``')}`", None)

        conn.dirty = False

    async def close(self, conn: MysqlConnection) -> None:
        """Say goodbye and close."""
        await conn.raw.ensure_closed()

    def terminate(self, conn: MysqlConnection) -> None:
        """Close at once."""
        conn.terminate()

    async def _open_aiomysql(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("aiomysql.connection")  # not before it is needed
        raw = driver.Connection(db=self.server.db, **options)

        try:
            await raw._connect()  # noqa: SLF001 - what aiomysql.connect() calls; here the half-open one can be closed
        except BaseException:
            raw.close()
            raise

        return AiomysqlConnection(raw, driver)

    async def _open_asyncmy(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("asyncmy.connection")  # not before it is needed
        raw = driver.Connection(database=self.server.db, stmt_cache_size=_PREPARED, **options)

        try:
            await raw.connect()
        except BaseException:
            raw.close()
            raise

        return AsyncmyConnection(raw, driver)


def _never(conn: MysqlConnection) -> bool:  # noqa: ARG001 - the signature of is_clean
    return False


async def _current(value: Any) -> str:
    """Give a credential, asking for it when it is a callable."""
    if callable(value):
        value = value()

        if inspect.isawaitable(value):
            value = await value

    return "" if value is None else str(value)
