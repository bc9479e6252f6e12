"""Reading results of MySQL's text protocol, whole chunks at a time.

aiomysql awaits each packet twice, its header and its body; a result of one row takes eleven packets.
Here the bytes that have arrived are parsed in one go, and the description of the columns, which is
the same for each execution of a statement, is parsed once and recognised by its bytes afterwards.

Connecting, authentication and writing remain aiomysql's. The protocol is described at
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ws_pool._sql.connection import Reply, remember

Decoder = Callable[[bytes], Any]  # Any: a column's value

_CHUNK = 262_144
_MAX_PACKET = 0xFFFFFF
_MORE_RESULTS = 8
_BINARY = 63  # the number of the character set "binary"
_JSON = 245
_KNOWN = 256  # descriptions remembered per connection


class Columns(NamedTuple):
    """The columns of a result: how they are described to users, and how their values are read."""

    description: tuple[tuple[str, int], ...]
    decoders: tuple[Decoder, ...]


class Incomplete(Exception):
    """The packet has not arrived as a whole."""


class ResultReader:
    """Runs statements over a connection of aiomysql, and reads their results."""

    __slots__ = ("_converters", "_fail", "_known", "_last", "_lost", "_raw", "_text_types")

    def __init__(
        self,
        raw: Any,  # Any: the driver is not typed
        *,
        lost: Callable[[str], Exception],
        fail: Callable[[bytes], None],
        converters: Mapping[int, Any],
        text_types: frozenset[int],
    ) -> None:
        self._raw = raw
        self._lost = lost
        self._fail = fail
        self._converters = converters
        self._text_types = text_types
        self._known: dict[bytes, Columns] = {}
        self._last = bytes(4), Columns((), ())  # what no result begins with: packets of one count from 1

    async def query(self, payload: bytes) -> Reply:
        """Run a statement, and read all of its results; the reply is the first that has rows."""
        raw = self._raw
        length = len(payload) + 1

        if raw._writer is None:
            raise self._lost("the connection is closed")

        if length < _MAX_PACKET:  # a header (3 bytes of length, packet 0), COM_QUERY, and the text
            raw._writer.write(b"%c%c%c\0\3%b" % (length & 255, length >> 8 & 255, length >> 16, payload))
        else:
            await raw._execute_command(3, payload)

        data = await self._more()

        while len(data) < 4:
            data += await self._more()

        # The reply's first packet follows those of the statement in number.
        if data[3] != (1 if length < _MAX_PACKET else (length // _MAX_PACKET + 1) & 255):
            raise self._lost("the server's packets are out of order")

        reply, data, pos, status = await self._result(data)

        while status & _MORE_RESULTS:
            following, data, pos, status = await self._result(data[pos:])

            if reply.rows is None:
                reply = following
            elif following.rows is not None:
                reply.more.append(following)

        if pos != len(data):
            raise self._lost("the server sent more than one reply")

        raw.server_status = status
        return reply

    async def _more(self, missing: int = 0) -> bytes:
        reader = self._raw._reader

        try:
            data: bytes = await (reader.readexactly(missing) if missing > _CHUNK else reader.read(_CHUNK))
        except (OSError, EOFError) as error:
            raise self._lost(f"Lost connection to MySQL server during query ({error})") from error

        if not data:
            raise self._lost("Lost connection to MySQL server during query")

        return data

    async def _result(self, data: bytes) -> tuple[Reply, bytes, int, int]:
        """Read one result; give it with the bytes at hand, the position behind it, and the status."""
        while True:
            try:
                head, pos, status = self._head(data)
                break
            except Incomplete:
                data += await self._more()

        if isinstance(head, Reply):
            return head, data, pos, status

        rows: list[tuple[Any, ...]] = []
        decoders = head.decoders
        size = len(data)

        while True:
            if size - pos < 4:
                data = data[pos:] + await self._more()
                pos, size = 0, len(data)
                continue

            length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            end = pos + 4 + length

            if end > size:
                data = data[pos:] + await self._more(end - size)
                pos, size = 0, len(data)
                continue

            if length < 9 and data[pos + 4] == 0xFE:  # the end; in a longer packet it begins a long value
                status = data[pos + 7] | data[pos + 8] << 8
                return Reply(rows, head.description, len(rows), 0), data, end, status

            if data[pos + 4] == 0xFF:
                self._fail(data[pos + 4 : end])

            if length == _MAX_PACKET:
                body, data, end = await self._join(data, pos)
                rows.append(_row(body, 0, decoders))
                pos, size = end, len(data)
                continue

            rows.append(_row(data, pos + 4, decoders))
            pos = end

    async def _join(self, data: bytes, pos: int) -> tuple[bytes, bytes, int]:
        """Put a packet together that goes on in following ones; give what is behind it too."""
        body = bytearray()

        while True:
            while len(data) - pos < 4:
                data = data[pos:] + await self._more()
                pos = 0

            length = int.from_bytes(data[pos : pos + 3], "little")
            end = pos + 4 + length

            while end > len(data):
                data = data[pos:] + await self._more(end - len(data))
                pos, end = 0, 4 + length

            body += data[pos + 4 : end]
            pos = end

            if length < _MAX_PACKET:
                return bytes(body), data, pos

    def _head(self, data: bytes) -> tuple[Reply | Columns, int, int]:
        """Read an OK packet, or a description of columns."""
        key, columns = self._last

        if data.startswith(key):  # the same columns as before, as a rule: no need to look for their end
            return columns, _end(data, len(key)), 0

        end = _end(data, 0)
        kind = data[4]

        if kind == 0:
            affected, pos = read_number(data, 5)
            last_id, pos = read_number(data, pos)
            return Reply(None, None, affected, last_id), end, data[pos] | data[pos + 1] << 8

        if kind == 0xFF:
            self._fail(data[4:end])

        if kind == 0xFB:
            message = "LOAD_LOCAL is refused"  # as asyncmy says it
            raise RuntimeError(message)

        count, _ = read_number(data, 4)
        pos = end

        for _ in range(count):
            pos = _end(data, pos)

        key = data[:pos]
        known = self._known.get(key)

        if known is None:
            known = remember(self._known, key, self._describe(data, end, count), _KNOWN)

        self._last = key, known
        return known, _end(data, pos), 0

    def _describe(self, data: bytes, pos: int, count: int) -> Columns:
        description = []
        decoders = []

        for _ in range(count):
            end = _end(data, pos)
            at = pos + 4

            for _ in range(4):  # catalog, schema, table, original table
                length, at = read_number(data, at)
                at += length

            length, at = read_number(data, at)
            name = data[at : at + length].decode(self._raw.encoding)
            at += length
            length, at = read_number(data, at)  # original name
            at += length + 1
            charset = data[at] | data[at + 1] << 8
            kind = data[at + 6]
            description.append((name, kind))
            decoders.append(self._decoder(kind, charset))
            pos = end

        return Columns(tuple(description), tuple(decoders))

    def _decoder(self, kind: int, charset: int) -> Decoder:
        """Choose how to read a column, as aiomysql does."""
        convert = self._converters.get(kind)

        if kind == _JSON or (kind in self._text_types and charset != _BINARY):
            encoding = "utf-8" if self._raw.encoding == "utf8" else self._raw.encoding
        elif kind in self._text_types:
            encoding = ""
        else:
            encoding = "ascii"

        if convert is int or convert is float:
            return convert  # both read ASCII bytes themselves

        if convert is None or convert.__name__ == "through":  # PyMySQL's, which changes nothing
            if not encoding:
                return bytes

            return bytes.decode if encoding in {"utf-8", "ascii"} else lambda raw: raw.decode(encoding)

        return (lambda raw: convert(raw.decode(encoding))) if encoding else convert


def _row(data: bytes, pos: int, decoders: tuple[Decoder, ...]) -> tuple[Any, ...]:
    row: list[Any] = []

    for decode in decoders:
        length = data[pos]
        pos += 1

        if length > 250:
            if length == 251:
                row.append(None)
                continue

            width = (2, 3, 8)[length - 252]
            length = int.from_bytes(data[pos : pos + width], "little")
            pos += width

        end = pos + length
        row.append(decode(data[pos:end]))
        pos = end

    return tuple(row)


def _end(data: bytes, pos: int) -> int:
    """Return the position behind the packet that begins here."""
    if len(data) - pos < 4:
        raise Incomplete

    end = pos + 4 + (data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16)

    if end > len(data):
        raise Incomplete

    return end


def read_number(data: bytes, pos: int) -> tuple[int, int]:
    """Read a length-encoded integer, and give the position behind it."""
    first = data[pos]

    if first < 251:
        return first, pos + 1

    width = (2, 3, 8)[first - 252]
    return int.from_bytes(data[pos + 1 : pos + 1 + width], "little"), pos + 1 + width
