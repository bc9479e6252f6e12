"""Reading results of MySQL's text protocol over asyncmy.

The driver parses rows in C, but makes several objects for the description of each column, at every
execution of a statement. Here a description is recognised by its bytes, and the rows behind it are parsed by
the driver's own function. What is not a whole, usual result of known columns is left in the driver's buffer,
untouched, and read by the driver.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ws_pool._sql.connection import Reply, remember

_COM_QUERY = 3
_SMALL = 8192  # bytes of a statement that are worth a copy behind the header
_EOF = 0xFE
_MORE_RESULTS = 8
_KNOWN = 256  # descriptions remembered per connection
_IN_TRANSACTION, _AUTOCOMMIT = 1, 2  # server status flags


class Columns(NamedTuple):
    """The columns of a result: how they are described to users, and how their values are read."""

    description: Any  # Any: the driver's
    converters: tuple[Any, ...]


class AsyncmyReader:
    """Runs statements over a connection of asyncmy, and reads their results."""

    __slots__ = ("_known", "_parse", "_raw")

    def __init__(self, raw: Any) -> None:  # Any: the driver is not typed
        self._raw = raw
        self._known: dict[bytes, Columns] = {}
        # Neither is public. Without the one, or with another form of results than ours, the driver reads all.
        parse = getattr(importlib.import_module("asyncmy.protocol"), "parse_rows_from_buffer", None)
        self._parse: Callable[..., tuple[int, int]] | None = (
            None if getattr(raw, "_deprecate_eof", True) else parse
        )

    async def query(self, payload: bytes) -> Reply:
        """Run a statement, and read all of its results; the reply is the first that has rows."""
        raw = self._raw
        length = len(payload) + 1

        if length < _SMALL and raw._result is None and raw._connected:
            raw._write_bytes(b"%c%c%c\0\3%b" % (length & 255, length >> 8, 0, payload))
            raw._next_seq_id = 1
        else:
            await raw._execute_command(_COM_QUERY, payload)

        if self._parse is not None:
            protocol = raw._proto

            # The driver's own way to wait, without its coroutines; errors are raised when it reads.
            if protocol.length - protocol.pos < 4 and not protocol.eof:
                protocol._read_waiter = waiter = raw._loop.create_future()

                try:
                    await waiter
                finally:
                    if protocol._read_waiter is waiter:
                        protocol._read_waiter = None

            reply = self._take(protocol)

            if reply is not None:
                return reply

        await raw._read_query_result()
        result = raw._result
        reply = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

        if result.description is None:
            raw.server_status = result.server_status  # the driver keeps the one before when this is 0
        else:
            note_transaction(raw)
            self._learn(result)

        while raw._result.has_next:
            await raw.next_result()
            result = raw._result
            following = Reply(result.rows, result.description, result.affected_rows, result.insert_id)

            if reply.rows is None:
                reply = following
            elif following.rows is not None:
                reply.more.append(following)

        return reply

    def _take(self, protocol: Any) -> Reply | None:
        """Take a result out of the driver's buffer, if it is there as a whole and its columns are known."""
        buffer, pos, end = protocol.buffer, protocol.pos, protocol.length

        # It begins with a number of columns, one byte as a rule, and ends with an EOF packet.
        if (
            end - pos < 20
            or buffer[pos : pos + 3] != b"\1\0\0"
            or buffer[end - 9 : end - 6] != b"\5\0\0"
            or buffer[end - 5] != _EOF
        ):
            return None

        status = buffer[end - 2] | buffer[end - 1] << 8

        if status & _MORE_RESULTS:
            return None

        at = pos + 5

        for _ in range(buffer[pos + 4]):
            at += 4 + (buffer[at] | buffer[at + 1] << 8)  # `_learn` knows none with a third byte of length

            if at >= end - 9:
                return None

        columns = self._known.get(bytes(buffer[pos:at]))

        if columns is None or buffer[at : at + 3] != b"\5\0\0" or buffer[at + 4] != _EOF:
            return None

        rows: list[tuple[Any, ...]] = []
        number = buffer[at + 3] + 1 & 255
        parse: Any = self._parse
        at, number = parse(buffer, at + 9, end, columns.converters, number, rows, False)

        if at != end - 9 or number != buffer[end - 6]:
            return None

        raw = self._raw
        protocol.pos = end
        raw._next_seq_id = number + 1 & 255
        raw._result = None
        raw.server_status = status
        return Reply(rows, columns.description, len(rows), 0)

    def _learn(self, result: Any) -> None:
        """Remember the columns of a result that the driver has read, by the bytes that describe them."""
        fields = [field.get_all_data() for field in result.fields]

        if self._parse is None or len(fields) > 250 or any(len(field) > 0xFFFF for field in fields):
            return

        packets = [bytes([len(fields)]), *fields]
        head = b"".join(
            len(packet).to_bytes(3, "little") + bytes([number + 1 & 255]) + packet
            for number, packet in enumerate(packets)
        )

        remember(self._known, head, Columns(result.description, tuple(result.converters)), _KNOWN)


def note_transaction(raw: Any) -> None:
    """Note that without autocommit a query has begun one: the drivers skip the status behind rows."""
    if not raw.server_status & (_AUTOCOMMIT | _IN_TRANSACTION):
        raw.server_status |= _IN_TRANSACTION
