"""Statements over one connection to MySQL or MariaDB, by aiomysql or asyncmy.

Both drivers speak the same protocol with nearly the same names; what differs is how one sees that a
connection is gone. `ws_pool._sql.mysql.connector` makes them.
"""

from __future__ import annotations

import datetime as dt
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from ws_pool._sql.connection import Reply, busy, cut_short, trace_statements
from ws_pool._sql.mysql.batches import batches, split_values
from ws_pool._sql.mysql.errors import map_error
from ws_pool._sql.mysql.result_reader import ResultReader
from ws_pool.errors import UnavailableError, UnsupportedStatement, WsError

__all__ = ("AiomysqlConnection", "AsyncmyConnection", "MysqlConnection")

_WRITABLE = (str, float, Decimal, dt.date, dt.time, dt.timedelta)
_BINARY = frozenset({bytes, type(None)})  # what always means the same in text and in binary
_SOMETIMES = frozenset({int, str, Decimal})  # what mostly does
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what has a form in the binary protocol
_FLOAT = 4  # the type code of single-precision columns
_LIMIT = re.compile(r"\b(?:limit|offset)\b", re.IGNORECASE)  # where text refuses what binary takes
_SURROGATE = re.compile("[\ud800-\udfff]")
_COM_SET_OPTION = 0x1B
_IN_TRANSACTION, _AUTOCOMMIT = 1, 2  # server status flags


class MysqlConnection(ABC):
    """One connection; the driver's own is ``raw``."""

    __slots__ = (
        "cut",
        "dirty",
        "driver_error",
        "encoding",
        "in_exchange",
        "lost",
        "raw",
        "read_packet",
        "send",
        "streaming",
    )

    gathers: ClassVar[bool] = False
    """Whether `stream` is a good way to read a long result as a whole."""

    send: Callable[[bytes], Awaitable[Reply]]
    """Sends a statement, and reads all of its results; chosen by the driver's class."""

    read_packet: Callable[[], Awaitable[Any]]
    """Reads one packet; an error packet is raised."""

    def __init__(
        self, raw: Any, driver_error: type[Exception], encoding: str
    ) -> None:  # Any: the drivers are not typed
        self.raw = raw
        self.driver_error = driver_error
        self.encoding = encoding
        self.dirty = False
        self.in_exchange = False
        self.streaming = False
        self.cut = False
        self.lost = False  # by the server or the network, not by a user who went away

    def __repr__(self) -> str:
        return f"<MysqlConnection {id(self):#x}>"

    @property
    def in_transaction(self) -> bool:
        """Whether the server said that a transaction is open."""
        return bool(self.raw.server_status & _IN_TRANSACTION)

    @abstractmethod
    def forget_prepared(self) -> None:
        """Forget what the server has forgotten in a reset."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the driver still has its connection."""

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when an exchange was cut short."""
        return not (self.cut or self.in_exchange or self.streaming) and self.connected

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new."""
        return not (self.dirty or self.raw.server_status & _IN_TRANSACTION) and self.alive

    def literal(self, value: Any) -> str:
        """Write a value of a bound parameter as SQL."""
        kind = type(value)

        if kind is int:
            return str(value)

        if kind is str:
            return f"'{value}'" if value.isalnum() else f"'{self.raw.escape_string(value)}'"

        if value is None:
            return "NULL"

        return self._other_literal(value)

    def interpolate(self, sql: str, values: Sequence[Any] | None) -> str:
        """Put values into a statement."""
        if values is None:
            return sql

        literal = self.literal

        try:
            return sql % tuple([literal(value) for value in values])
        except UnsupportedStatement:
            raise
        except (TypeError, ValueError) as error:
            message = f"the values do not fit the statement's placeholders: {error}"
            raise UnsupportedStatement(message, sql=sql) from error
        except self.driver_error as error:
            message = f"a value has no form in SQL: {error}"
            raise UnsupportedStatement(message, sql=sql) from error

    def encode(self, sql: str, values: Sequence[Any] | None) -> bytes:
        """Write a statement as it is sent; what cannot be sent is refused before anything is."""
        query = sql if values is None else self.interpolate(sql, values)

        try:
            return query.encode(self.encoding)
        except UnicodeEncodeError as error:
            message = f"the statement or one of its values has no form in {self.encoding}: {error.reason}"
            raise UnsupportedStatement(message, sql=sql) from None

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement; of several results, the reply is the first that has rows."""
        if self.in_exchange or self.cut or self.streaming:
            raise self._unfit()

        query = self.encode(sql, values)
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
        """Run a query that will be run again and again; a driver may know a shorter way for it."""
        return await self.run(sql, values)

    def batches(
        self, sql: str, values: Sequence[Sequence[Any]], most_rows: int, most_bytes: int
    ) -> Iterator[str] | None:
        """Write an INSERT's rows into statements of many groups; None when its text has no such group."""
        split = split_values(sql)
        return None if split is None else batches(split, values, self.literal, most_rows, most_bytes)

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one statement once per row of values, and return the sum of rows matched."""
        total = 0

        for row in values:
            total += (await self.run(sql, row)).rowcount

        return total

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement, and yield its rows in blocks of up to ``size``, as the server sends them."""
        if self.in_exchange or self.cut or self.streaming:
            raise self._unfit()

        query = self.encode(sql, values)
        self.streaming = True
        ended = False

        try:
            raw = self.raw
            await raw.query(query, unbuffered=True)
            result = raw._result
            description = result.description
            rows: list[tuple[Any, ...]] = []

            while (row := await result._read_rowdata_packet_unbuffered()) is not None:
                rows.append(row)

                if self.gathers:
                    rows += result._take_pending_rows(size - len(rows))

                if len(rows) >= size:
                    yield Reply(rows, description, len(rows), 0)
                    rows = []

            ended = True

            if result.server_status:
                raw.server_status = result.server_status
            elif not raw.server_status & _AUTOCOMMIT:  # aiomysql does not look at the last packet's status
                raw.server_status |= _IN_TRANSACTION

            if rows:
                yield Reply(rows, description, len(rows), 0)
        except self.driver_error as error:
            failure = self._failed(error, sql)
            ended = True  # for the server; whether the connection was lost, `_failed` has told
            raise failure from error
        finally:
            self.streaming = False

            if not ended:
                self.cut = True

    async def command(self, code: int) -> None:
        """Send a command without arguments, and read its OK."""
        await self._commanded(code, b"", self.raw._read_ok_packet)

    async def allow_several(self, allowed: bool) -> None:  # noqa: FBT001 - it is all there is to say
        """Set whether one text may hold several statements; it outlasts a reset of the session."""
        await self._commanded(_COM_SET_OPTION, b"\0\0" if allowed else b"\1\0", self.read_packet)

    def terminate(self) -> None:
        """Close at once."""
        self.raw.close()

    def _other_literal(self, value: Any) -> str:
        if isinstance(value, int):
            return str(int(value))

        if isinstance(value, bytes | bytearray | memoryview):
            return f"_binary X'{value.hex()}'"  # aiomysql 0.3 cannot write bytes with PyMySQL 1.2

        if isinstance(value, _WRITABLE):
            return str(self.raw.escape(value))

        if isinstance(value, UUID):
            return f"'{value}'"

        if isinstance(value, list | tuple | set | frozenset):
            return f"({','.join([self.literal(item) for item in value])})"

        kind = type(value).__name__
        message = f"a value of type {kind} has no form in SQL: convert it, or give its column a type"
        raise UnsupportedStatement(message)

    async def _commanded(self, code: int, argument: bytes, answer: Callable[[], Awaitable[Any]]) -> None:
        self.in_exchange = True

        try:
            await self.raw._execute_command(code, argument)
            await answer()
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False

    def _unfit(self) -> WsError:
        return cut_short() if self.cut else busy()

    def _failed(self, error: Exception, sql: str) -> Exception:
        """Book an error of the driver, and translate it."""
        self.in_exchange = False
        failure = map_error(error, sql)
        self.lost = self.lost or isinstance(failure, UnavailableError)
        self.cut = self.cut or self.lost or not self.connected
        return failure


class AiomysqlConnection(MysqlConnection):
    """A connection of aiomysql, whose results are read by `ws_pool._sql.mysql.result_reader`."""

    __slots__ = ()

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Error, raw.encoding)
        self.read_packet = raw._read_packet
        reader = ResultReader(
            raw,
            lost=lambda text: driver.OperationalError(2013, text),
            fail=importlib.import_module("pymysql.err").raise_mysql_exception,
            converters=raw.decoders,
            text_types=frozenset(driver.TEXT_TYPES),
        )
        self.send = reader.query

    def forget_prepared(self) -> None:
        """Do nothing: all statements of this driver are text."""

    @property
    def connected(self) -> bool:
        """Whether neither side has closed the connection."""
        return self.raw._writer is not None and not self._ended()

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new; asked at each release."""
        raw = self.raw
        bad = self.dirty or self.cut or self.in_exchange or self.streaming or raw._writer is None
        return not (bad or raw.server_status & _IN_TRANSACTION or self._ended())

    def _ended(self) -> bool:
        """Tell whether the server has closed its end, or reset the connection."""
        reader = self.raw._reader
        return reader.eof_received or reader.exception() is not None


class AsyncmyConnection(MysqlConnection):
    """A connection of asyncmy, which reads results itself, and has prepared statements on the server."""

    __slots__ = ("_cursor", "_text_only")

    gathers: ClassVar[bool] = True  # it parses the rows that have come in one go

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Connection.Error, raw._encoding)
        self.read_packet = raw.read_packet
        self.send = self._send
        self._cursor = raw.cursor()
        self._text_only: set[str] = set()

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run a query as a prepared statement of the server, in the binary protocol.

        It costs the client about half of what text costs. What would not give exactly the same as
        text goes as text: FLOAT columns, which have more digits in binary, and values whose literal
        has another type than they have, such as dates.
        """
        if values is None or sql in self._text_only:
            return await self.run(sql, values)

        for value in values:
            kind = type(value)

            if kind not in _BINARY and not (kind in _SOMETIMES and _same_in_binary(value, sql)):
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
        rows, description = cursor._rows, cursor.description

        if description is None or any(column[1] == _FLOAT for column in description):
            self._text_only.add(sql)
            return await self.run(sql, values)

        return Reply(rows, description, len(rows), 0)

    def forget_prepared(self) -> None:
        """Forget the prepared statements, which a reset has ended on the server."""
        self.raw._stmt_cache.clear()

    @property
    def connected(self) -> bool:
        """Whether neither side has closed the connection."""
        return not self.raw._stream_broken

    @property
    def clean(self) -> bool:
        """Whether the connection can be used and its session is as new; asked at each release."""
        raw = self.raw
        bad = self.dirty or self.cut or self.in_exchange or self.streaming
        return not (bad or raw.server_status & _IN_TRANSACTION or raw._stream_broken)

    async def _send(self, query: bytes) -> Reply:
        """Send a statement, and read all of its results."""
        raw = self.raw
        await raw.query(query)
        result = raw._result
        reply = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

        while raw._result.has_next:
            await raw.next_result()

            if reply.rows is None:
                result = raw._result
                reply = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

        return reply


def _same_in_binary(value: int | str | Decimal, sql: str) -> bool:
    """Tell whether a value means the same in text and in binary."""
    if isinstance(value, int):
        return _INT_MIN <= value <= _INT_MAX and (value >= 0 or not _LIMIT.search(sql))

    if isinstance(value, str):
        return value.isascii() or not _SURROGATE.search(value)

    exponent = value.as_tuple().exponent  # a literal without a fraction would be an integer
    return isinstance(exponent, int) and exponent < 0


trace_statements(MysqlConnection, "mysql")
trace_statements(AsyncmyConnection, "mysql")
