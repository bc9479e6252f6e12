"""Reading MySQL's text protocol: however it is cut, the result is the same; nonsense is never one."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql.converters import decoders
from pymysql.err import ProgrammingError, raise_mysql_exception

from ws_pool._sql.connection import Reply
from ws_pool._sql.mysql.result_reader import ResultReader

TEXT, BLOB, LONG, JSON = 253, 252, 3, 245
MAX = 0xFFFFFF


class LostError(Exception):
    """Stands for the driver's error of a lost connection."""


class Reader:
    """Returns bytes in the chunks of the test."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        self.chunks = [data[a:b] for a, b in pairwise(edges)]

    async def read(self, _limit: int) -> bytes:
        """Return the next chunk; nothing at the end."""
        return self.chunks.pop(0) if self.chunks else b""

    async def readexactly(self, count: int) -> bytes:
        """Return so many bytes, or raise."""
        data = b"".join(self.chunks)
        self.chunks = [data[count:]] if data[count:] else []

        if len(data) < count:
            raise asyncio.IncompleteReadError(data, count)

        return data[:count]


class Raw:
    """The parts of aiomysql's connection that are used."""

    encoding = "utf8"
    server_status = 0

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self._reader = Reader(data, cuts)
        self._writer: Any = self
        self.sent = b""

    def write(self, data: bytes) -> None:
        """Take what is sent."""
        self.sent += data

    async def _execute_command(self, command: int, payload: bytes) -> None:
        self.sent += bytes([command]) + payload


def number(value: int) -> bytes:
    """Encode an integer with its length."""
    if value < 251:
        return bytes([value])

    for mark, width in ((0xFC, 2), (0xFD, 3), (0xFE, 8)):
        if value < 1 << 8 * width:
            return bytes([mark]) + value.to_bytes(width, "little")

    raise AssertionError


def string(value: bytes | None) -> bytes:
    """Encode a string with its length; None is NULL."""
    return b"\xfb" if value is None else number(len(value)) + value


def packets(*payloads: bytes) -> bytes:
    """Put payloads into packets with running numbers, those that are too long into several."""
    out = bytearray()
    sequence = 1

    for payload in payloads:
        rest = payload

        while True:
            part, rest = rest[:MAX], rest[MAX:]
            out += len(part).to_bytes(3, "little") + bytes([sequence % 256]) + part
            sequence += 1

            if len(part) < MAX:
                break

    return bytes(out)


def column(name: str, kind: int, charset: int = 45) -> bytes:
    """Describe a column."""
    parts = [string(part) for part in (b"def", b"s", b"t", b"t", name.encode(), name.encode())]
    return b"".join(parts) + b"\x0c" + charset.to_bytes(2, "little") + bytes(4) + bytes([kind]) + bytes(5)


def eof(status: int = 2) -> bytes:
    """End the columns or the rows."""
    return b"\xfe\0\0" + status.to_bytes(2, "little")


def table(rows: list[list[bytes | None]], status: int = 2) -> list[bytes]:
    """Return the payloads of a result with three columns."""
    columns = [column("id", LONG), column("word", TEXT), column("raw", BLOB, 63)]
    return [number(3), *columns, eof(), *(b"".join(map(string, row)) for row in rows), eof(status)]


def read(data: bytes, cuts: list[int], raw: Raw | None = None) -> Reply:
    """Read a reply."""
    raw = raw or Raw(data, cuts)
    reader = ResultReader(
        raw,
        lost=LostError,
        fail=raise_mysql_exception,
        converters=decoders,
        text_types=frozenset({TEXT, BLOB, 254}),
    )
    return asyncio.run(reader.query(b"SELECT 1"))


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1)),
        st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=300)),
        st.one_of(st.none(), st.binary(max_size=300)),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 100_000), max_size=12))
def test_rows_are_read_from_any_chunks(
    rows: list[tuple[int | None, str | None, bytes | None]], cuts: list[int]
):
    """However the bytes are cut, the rows are those that were sent."""
    encoded: list[list[bytes | None]] = [
        [None if a is None else str(a).encode(), None if b is None else b.encode(), c] for a, b, c in rows
    ]
    reply = read(packets(*table(encoded, status=3)), cuts)
    assert reply.rows == rows
    assert [name for name, _ in reply.description or ()] == ["id", "word", "raw"]
    assert reply.rowcount == len(rows)


def test_one_reader_reads_results_of_all_kinds_in_any_order():
    """Columns that were described before are recognised; an OK of any length is not taken for them."""
    raw = Raw(b"", [])
    reader = ResultReader(
        raw,
        lost=LostError,
        fail=raise_mysql_exception,
        converters=decoders,
        text_types=frozenset({TEXT, BLOB, 254}),
    )
    one = packets(number(1), column("n", LONG), eof(), string(b"5"), eof())
    longer = packets(number(1), column("n", LONG), eof(), string(b"5"), string(b"6"), eof())
    other = packets(number(1), column("m", LONG), eof(), string(b"7"), eof())
    done = [packets(b"\0\3\0" + b"\2\0\0\0" + bytes(size - 7)) for size in (7, 256, 65_536)]

    for data, name, wanted in (
        *((ok, None, None) for ok in done),
        *((one, "n", [(5,)]), (one, "n", [(5,)]), (longer, "n", [(5,), (6,)]), (other, "m", [(7,)])),
        *((one, "n", [(5,)]), (done[1], None, None), (other, "m", [(7,)]), (other, "m", [(7,)])),
    ):
        for cuts in ([], [4], [len(data) - 1], list(range(len(data)))[:300]):
            raw._reader = Reader(data, cuts)
            reply = asyncio.run(reader.query(b"x"))
            assert reply.rows == wanted
            assert (reply.description or ((None,),))[0][0] == name
            assert reply.rowcount == (3 if wanted is None else len(wanted))


def test_every_single_cut_is_harmless():
    """A reply with several results is read from two chunks, cut anywhere, and byte by byte."""
    rows: list[list[bytes | None]] = [[b"1", b"a" * 260, None], [b"2", None, b"\0"]]
    ok = b"\0" + number(3) + number(70_000) + b"\x02\0\0\0"
    data = packets(b"\0\0\0\x0a\0\0\0", *table(rows, status=10), *table([], status=10), ok)
    expected = [(1, "a" * 260, None), (2, None, b"\0")]

    for cut in range(1, len(data)):
        assert read(data, [cut]).rows == expected

    raw = Raw(data, list(range(len(data))))
    assert read(data, [], raw).rows == expected
    assert raw.server_status == 2
    assert raw.sent == b"\x09\0\0\0\x03SELECT 1"


def test_counts_and_ids_are_read():
    """An OK packet holds the rows matched and the last id, of any width."""
    reply = read(packets(b"\0" + number(300) + number(2**40) + b"\x03\0\0\0"), [2])
    assert (reply.rows, reply.rowcount, reply.last_id) == (None, 300, 2**40)


@pytest.mark.parametrize("size", [MAX - 20, MAX - 4, MAX, MAX + 1])
def test_packets_of_16_megabytes_go_on_in_the_next(size: int):
    """A row that fills its packet is put together from those that follow."""
    big = b"x" * size
    reply = read(packets(*table([[b"1", big, b"end"], [b"2", b"b", None]])), [5, 70, MAX, MAX + 50, MAX + 90])
    assert reply.rows is not None
    assert [row[0] for row in reply.rows] == [1, 2]
    assert reply.rows[0][1] == big.decode()
    assert reply.rows[0][2] == b"end"


def test_an_error_is_raised_wherever_it_comes():
    """An error packet is the driver's error, at once or behind rows."""
    error = b"\xff\x28\x04#42000bad"

    for payloads in ([error], [*table([[b"1", b"a", None]])[:-1], error]):
        with pytest.raises(ProgrammingError, match="bad"):
            read(packets(*payloads), [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        packets(*table([[b"1", b"a", None]]))[:-3],
        packets(*table([[b"1", b"a" * 400_000, None]]))[:1000],
        packets(b"\0\0\0\x02\0\0\0", b"\0\0\0\x02\0\0\0"),
        b"\x07\0\0\x09\0\0\0\x02\0\0\0",
    ],
)
def test_nonsense_is_a_lost_connection(data: bytes):
    """An early end, a reply too many and packets out of order are never results."""
    with pytest.raises(LostError):
        read(data, [])


def test_a_request_for_a_file_is_refused():
    """A server may name any file; the reader sends none."""
    with pytest.raises(RuntimeError, match="LOAD_LOCAL is refused"):
        read(packets(b"\xfb/etc/passwd"), [])


def test_statements_of_any_size_are_sent_and_a_closed_connection_says_so():
    """A long statement goes through the driver, which splits it."""
    reply = packets(b"\0\0\0\x02\0\0\0")
    raw = Raw(reply[:3] + b"\2" + reply[4:], [])  # the statement takes two packets, 0 and 1
    reader = ResultReader(
        raw, lost=LostError, fail=raise_mysql_exception, converters={}, text_types=frozenset()
    )
    asyncio.run(reader.query(b"y" * MAX))
    assert raw.sent == b"\x03" + b"y" * MAX
    raw._writer = None

    with pytest.raises(LostError, match="closed"):
        asyncio.run(reader.query(b"SELECT 1"))


def test_descriptions_are_remembered_but_not_for_ever():
    """The same columns are described once; after many different ones the memory is emptied."""
    raw = Raw(b"", [])
    reader = ResultReader(
        raw, lost=LostError, fail=raise_mysql_exception, converters=decoders, text_types=frozenset({TEXT})
    )

    async def run() -> None:
        for n in range(300):
            raw._reader = Reader(packets(number(1), column(f"c{n}", JSON), eof(), eof()), [])
            reply = await reader.query(b"x")
            assert reply.description == ((f"c{n}", JSON),)

        assert len(reader._known) < 256

    asyncio.run(run())
