"""Statements over one connection to MySQL or MariaDB, by aiomysql or asyncmy.

Both drivers speak the same protocol with nearly the same names; what differs is how one sees that a
connection is gone. `ws_pool._sql.mysql.connector` makes them.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, TypeVar
from uuid import UUID

from ws_pool._sql.connection import Reply, busy, cut_short, remember, trace_statements
from ws_pool._sql.mysql.asyncmy_reader import AsyncmyReader, note_transaction
from ws_pool._sql.mysql.batches import batches, split_values
from ws_pool._sql.mysql.binary import has_dates, read_as_text, same_as_text
from ws_pool._sql.mysql.errors import ends_connection, map_error
from ws_pool._sql.mysql.result_reader import ResultReader, read_number
from ws_pool.errors import TransactionConflict, UnavailableError, UnsupportedStatement

T = TypeVar("T")

_WRITABLE = (str, float, Decimal, dt.date, dt.time, dt.timedelta)
_COM_QUERY, _COM_SET_OPTION = 0x03, 0x1B
_WANTS_FILE = 0xFB  # the first byte of a reply
_REMEMBERED = 1_000  # statements
_IN_TRANSACTION = 1  # server status


class Loaded(NamedTuple):
    """What became of a file: rows, how many warnings, and the first of these."""

    rows: int
    warnings: int
    shown: str


class MysqlConnection(ABC):
    """One connection; the driver's own is ``raw``."""

    __slots__ = (
        "cut",
        "dirty",
        "drain",
        "driver_error",
        "encoding",
        "in_exchange",
        "left",
        "local_infile",
        "lost",
        "port",
        "raw",
        "read_packet",
        "send",
        "stop",
        "streaming",
    )

    gathers: ClassVar[bool] = False
    """Whether `stream` is a good way to read a long result as a whole."""

    send: Callable[[bytes], Awaitable[Reply]]
    """Sends a statement, and reads all of its results; chosen by the driver's class."""

    read_packet: Callable[[], Awaitable[Any]]
    """Reads one packet; an error packet is raised."""

    drain: Callable[[], Awaitable[None]]
    """Waits until what was written has left, but for a little."""

    def __init__(
        self, raw: Any, driver_error: type[Exception], encoding: str, transport: Any
    ) -> None:  # Any: the drivers are not typed
        self.raw = raw
        self.driver_error = driver_error, RuntimeError  # which they raise when a server asks for a file
        self.port = _port(transport)  # now: after a cancellation the driver may have closed it
        self.encoding = encoding
        self.dirty = False
        self.in_exchange = False
        self.streaming = False
        self.left: Any = None  # the driver's result of an iteration that was left early
        self.cut = False
        self.local_infile = False
        self.stop: Callable[[MysqlConnection], None] | None = None  # stops on the server what was cut short
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
        """Whether the connection can be used and its session is as new; asked at each release."""
        bad = self.dirty or self.cut or self.in_exchange or self.streaming
        return not (bad or self.raw.server_status & _IN_TRANSACTION) and self.connected

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
            await self._make_ready()

        return await self._exchange(sql, self.send(self.encode(sql, values)))

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query of a handle; a driver may know a shorter way for it."""
        return await self.run(sql, values)

    def batches(
        self, sql: str, values: Sequence[Sequence[Any]], most_rows: int, most_bytes: int
    ) -> Iterator[str] | None:
        """Write an INSERT's rows into statements of many groups; None when its text has no such group."""
        split = split_values(sql)
        return None if split is None else batches(split, values, self.literal, most_rows, most_bytes)

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one statement once per row of values, and return the sum of rows matched."""
        return sum([(await self.run(sql, row)).rowcount for row in values])

    async def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement, and yield its rows in blocks of up to ``size``, as the server sends them."""
        if self.in_exchange or self.cut or self.streaming:
            await self._make_ready()

        query = self.encode(sql, values)
        self.streaming = True
        ended = yielding = False
        raw = self.raw
        result: Any = None

        try:
            await raw.query(query, unbuffered=True)
            result = raw._result
            description = result.description
            rows: list[tuple[Any, ...]] = []

            while (row := await result._read_rowdata_packet_unbuffered()) is not None:
                rows.append(row)

                if self.gathers:
                    rows += result._take_pending_rows(size - len(rows))

                if len(rows) >= size:
                    yielding = True
                    yield Reply(rows, description, len(rows), 0)
                    yielding = False
                    rows = []

            await self._finish(result)
            ended = True

            if rows:
                yield Reply(rows, description, len(rows), 0)
        except self.driver_error as error:
            failure = self._failed(error, sql)
            ended = True  # for the server; whether the connection can be used, `_failed` has noted
            raise failure from error
        except asyncio.CancelledError as error:
            self._cut_short(error, sql)
            raise
        finally:
            # Left early between two blocks, nothing is in flight, and what the server still sends can
            # be read when the next statement comes; until then the connection is not released as
            # alive. Left inside a read, a part of a packet may be gone: nothing more can be read.
            if ended:
                self.streaming = False
            elif yielding:
                self.left = result
            else:
                self.streaming = False
                self.cut = True

    async def load_file(self, sql: str, values: Sequence[Any] | None, chunks: AsyncIterator[bytes]) -> Loaded:
        """Run a LOAD DATA LOCAL INFILE, and send the chunks, whatever file the server asks for."""
        if self.in_exchange or self.cut or self.streaming:
            await self._make_ready()

        query = self.encode(sql, values)
        self.in_exchange = True
        failure: Exception | None = None

        try:
            await self._begin_file(query, sql)
            failure = await self._send_file(chunks)
            reply = (await self.read_packet()).get_all_data()
        except self.driver_error as error:
            raise self._failed(error, sql) from (failure or error)
        except BaseException as error:
            self._cut_short(error, sql)
            raise

        self.in_exchange = False
        rows, at = read_number(reply, 1)
        _, at = read_number(reply, at)
        self.raw.server_status = reply[at] | reply[at + 1] << 8
        warnings = reply[at + 2] | reply[at + 3] << 8

        if failure is not None:
            raise failure

        found = (await self.run("SHOW WARNINGS LIMIT 3", None)).rows if warnings else ()
        return Loaded(rows, warnings, "; ".join(f"({number}) {text}" for _, number, text in found or ()))

    async def _begin_file(self, query: bytes, sql: str) -> None:
        """Send a statement to which the server must answer that it wants a file."""
        await self.raw._execute_command(_COM_QUERY, query)
        reply = (await self.read_packet()).get_all_data()

        if reply[0] != _WANTS_FILE:
            message = "the server does not ask for a file: this is not a LOAD DATA LOCAL INFILE"
            raise UnsupportedStatement(message, sql=sql)

    async def _send_file(self, chunks: AsyncIterator[bytes]) -> Exception | None:
        """Send a file; an error of its source is returned, since the server waits for the end of it."""
        failure = None

        try:
            async for chunk in chunks:
                self.raw.write_packet(chunk)
                await self.drain()
        except Exception as error:  # noqa: BLE001 - it is raised when the connection is ready for it
            failure = error

        self.raw.write_packet(b"")  # the end; a lost connection is found by reading the answer
        return failure

    async def command(self, code: int) -> None:
        """Send a command without arguments, and read its OK."""
        await self._commanded(code, b"", self.raw._read_ok_packet)

    async def allow_several(self, *, allowed: bool) -> None:
        """Set whether one text may hold several statements; it outlasts a reset of the session."""
        await self._commanded(_COM_SET_OPTION, b"\0\0" if allowed else b"\1\0", self.read_packet)

    def give_up(self) -> None:
        """Let nothing more run: somebody else's exchange on it was cut short."""
        self.cut = True

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

    async def _exchange(self, sql: str, exchange: Awaitable[T]) -> T:
        """Run the driver's part of a statement; cut short, nothing more can run."""
        self.in_exchange = True

        try:
            result = await exchange
        except self.driver_error as error:
            raise self._failed(error, sql) from error
        except BaseException as error:
            self._cut_short(error, sql)
            raise

        self.in_exchange = False
        return result

    async def _commanded(self, code: int, argument: bytes, answer: Callable[[], Awaitable[Any]]) -> None:
        self.in_exchange = True

        try:
            await self.raw._execute_command(code, argument)
            await answer()
        except BaseException:
            self.cut = True
            raise

        self.in_exchange = False

    async def _make_ready(self) -> None:
        """Refuse a connection that is at work or cut short; read the rest of an iteration that was left."""
        if self.cut or self.in_exchange or self.left is None:
            raise cut_short() if self.cut else busy(iterating=self.streaming)

        result, self.left = self.left, None
        self.in_exchange = True

        try:
            await result._finish_unbuffered_query()  # there is no other way to stop the server from sending
            await self._finish(result)
        except self.driver_error as error:
            failure = self._failed(error, "")

            # The error belongs to the iteration, which nobody reads any more; but not its consequences.
            if ends_connection(error) or isinstance(failure, TransactionConflict | UnavailableError):
                raise failure from error
        except BaseException:
            self.cut = True
            raise
        finally:
            self.streaming = self.in_exchange = False

    async def _finish(self, result: Any) -> None:
        """Read what follows the rows: the status, and all further results, such as those of a CALL."""
        raw = self.raw

        if result.server_status:
            raw.server_status = result.server_status
        elif result.description is not None:
            note_transaction(self.raw)

        # Unread, an error in one of them would be raised by the next statement, or end the connection.
        while raw._result.has_next:
            await raw.next_result()

    def _cut_short(self, error: BaseException, sql: str) -> None:
        """Note that a reply was not read to its end; a statement whose task was cancelled is stopped."""
        self.cut = True

        # A COMMIT that is under way is better left alone: it may be done, and is not known to be.
        if self.stop is not None and isinstance(error, asyncio.CancelledError) and sql != "COMMIT":
            self.stop(self)

    def _failed(self, error: Exception, sql: str) -> Exception:
        """Note an error of the driver, and translate it."""
        self.in_exchange = False
        failure = map_error(error, sql)
        self.lost = self.lost or isinstance(failure, UnavailableError)
        self.cut = self.cut or self.lost or not self.connected or ends_connection(error)
        return failure


class AiomysqlConnection(MysqlConnection):
    """A connection of aiomysql, whose results are read by `ws_pool._sql.mysql.result_reader`."""

    __slots__ = ()

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Error, raw.encoding, raw._writer)
        self.read_packet = raw._read_packet
        self.drain = raw._writer.drain
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
        raw = self.raw
        # The reader knows of an end that the server has sent before anything is read from it.
        return raw._writer is not None and not raw._reader.eof_received and raw._reader.exception() is None


class AsyncmyConnection(MysqlConnection):
    """A connection of asyncmy, which reads results itself, and has prepared statements on the server."""

    __slots__ = ("_as_text", "_cursor", "_text_only")

    gathers: ClassVar[bool] = True  # it parses the rows that have come in one go

    def __init__(self, raw: Any, driver: Any) -> None:
        super().__init__(raw, driver.Connection.Error, raw._encoding, raw._transport)
        self.read_packet = raw.read_packet
        self.drain = raw._proto.drain
        self.send = AsyncmyReader(raw).query
        self._cursor = raw.cursor()
        self._text_only: set[str] = set()
        self._as_text: dict[str, Any] = {}  # by statement the columns whose values never differ from text

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """
        Run a query of a handle as a prepared statement of the server, in the binary protocol.

        It costs the client about half of what text costs. What would not return exactly the same as
        text goes as text: see `ws_pool._sql.mysql.binary`. So does all in a session that has been changed:
        a prepared statement keeps the database and the modes of the moment in which it was prepared.
        """
        if self.dirty or values is None or sql in self._text_only or not same_as_text(sql, values):
            return await self.run(sql, values)

        if self.in_exchange or self.cut or self.streaming:
            await self._make_ready()

        cursor = self._cursor
        await self._exchange(sql, cursor.execute(sql, values))
        rows, description = cursor._rows, cursor.description  # as they are: fetchall() would copy them

        if description is not None:
            note_transaction(self.raw)

        # The driver keeps one description for as long as a statement returns the same columns.
        if self._as_text.get(sql) is not description or description is None:
            if description is None or not read_as_text(rows, description):
                self._text_only.add(sql)  # it only reads: once more, as text, is safe
                return await self.run(sql, values)

            if not has_dates(description):
                remember(self._as_text, sql, description, _REMEMBERED)

        return Reply(rows, description, len(rows), 0)

    def forget_prepared(self) -> None:
        """Forget the prepared statements, which a reset has ended on the server."""
        self.raw._stmt_cache.clear()
        self._as_text.clear()

    @property
    def connected(self) -> bool:
        """Whether neither side has closed the connection."""
        return not self.raw._stream_broken


def _port(transport: Any) -> int:
    """Return the port of a socket's own end; 0 for a socket of the file system, or a closed one."""
    name = None if transport is None else transport.get_extra_info("sockname")
    return int(name[1]) if isinstance(name, tuple) else 0


trace_statements(MysqlConnection, "mysql")
trace_statements(AsyncmyConnection, "mysql")
