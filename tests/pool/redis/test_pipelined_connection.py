"""The connection itself, without a socket: order, one write a turn, tombstones, and what kills it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits
from ws_pool._redis.connection.replies import BatchReply
from ws_pool._redis.errors import AcquireTimeout, ConnectionLost, UnavailableError
from ws_pool.errors import ClosedError


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False
        self.buffered = 0

    def get_write_buffer_size(self) -> int:
        """Return what the test says."""
        return self.buffered

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written.append(data)

    def abort(self) -> None:
        """Note it."""
        self.aborted = True

    def get_extra_info(self, _: str) -> None:
        """Have no socket."""


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_at(self, when: float, action: Callable[[], None]) -> Any:
        """Remember a timer."""
        self.timers.append((when, action))
        return self

    def cancel(self) -> None:
        """Forget the timers."""
        self.timers.clear()

    def advance(self, seconds: float) -> None:
        """Let time pass, and timers with it."""
        self.now += seconds
        due = [action for when, action in self.timers if when <= self.now]
        self.timers = [(when, action) for when, action in self.timers if when > self.now]

        for action in due:
            action()


class Owner:
    """Records what a connection reports."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.pushed: list[list[Any]] = []
        self.room = 0

    def on_room(self, connection: PipelinedConnection) -> None:
        """Count."""
        self.room += 1

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None:
        """Keep the reason."""
        self.lost.append(reason)

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None:
        """Keep the message."""
        self.pushed.append(message)


class Rig:
    """A connection between all of these."""

    def __init__(self, *, encoding: str | None = None, **limits: Any) -> None:
        self.owner, self.wire, self.clock = Owner(), Wire(), Clock()
        self.connection = PipelinedConnection(
            self.owner, Limits(**{"command_timeout": 5.0, **limits}), encoding=encoding
        )
        self.connection._time = lambda: self.clock.now
        self.connection._call_at = self.clock.call_at  # type: ignore[assignment]  # of another loop's type
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]  # all that it needs
        self.connection.open()

    def send(self, data: bytes = b"C") -> asyncio.Future[Any]:
        """Send a command."""
        future = asyncio.get_running_loop().create_future()
        self.connection.send(future, data)
        return future

    def receive(self, data: bytes) -> None:
        """Let bytes arrive."""
        buffer = self.connection.get_buffer(-1)
        buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))


async def test_one_write_a_turn() -> None:
    """Commands of one turn go out together, and a lone one at once."""
    rig = Rig()
    first = rig.send(b"1")
    assert rig.wire.written == [b"1"]
    rest = [rig.send(data) for data in (b"2", b"3", b"4")]
    assert rig.wire.written == [b"1"]
    await asyncio.sleep(0)
    assert rig.wire.written == [b"1", b"234"]
    rig.receive(b":1\r\n:2\r\n:3\r\n:4\r\n")
    assert [future.result() for future in (first, *rest)] == [1, 2, 3, 4]
    rig.send(b"5")
    assert rig.wire.written == [b"1", b"234"]  # there was company last time, so it waits for the turn's end
    await asyncio.sleep(0)
    assert rig.wire.written == [b"1", b"234", b"5"]
    assert "open" in repr(rig.connection)


async def test_a_tombstone_keeps_its_place() -> None:
    """The reply to a cancelled command is dropped, and the next one is the next command's."""
    rig = Rig()
    first, second = rig.send(), rig.send()
    await asyncio.sleep(0)
    first.cancel()
    rig.receive(b"+first\r\n+second\r\n")
    assert (second.result(), rig.connection.dropped) == (b"second", 1)


async def test_replies_in_pieces() -> None:
    """Replies may arrive byte by byte."""
    rig = Rig(encoding="utf-8")
    future = rig.send()

    for byte in b"*2\r\n$1\r\na\r\n:5\r\n":
        assert not future.done()
        rig.receive(bytes([byte]))

    assert future.result() == ["a", 5]


async def test_errors_are_exceptions() -> None:
    """An error reply is its caller's exception; one within an array stays a value."""
    rig = Rig()
    one, two, three = rig.send(), rig.send(), rig.send()
    await asyncio.sleep(0)
    rig.receive(b"-ERR bad\r\n*2\r\n-ERR inner\r\n+OK\r\n+fine\r\n")
    assert str(one.exception()) == "bad"
    assert [type(item).__name__ for item in two.result()] == ["ResponseError", "bytes"]
    assert three.result() == b"fine"


async def test_raw_replies_among_text() -> None:
    """A reply that was asked for raw stays bytes; its neighbours are text; tombstones count."""
    rig = Rig(encoding="utf-8")
    loop = asyncio.get_running_loop()
    before = rig.send()
    raw, gone, bad = loop.create_future(), loop.create_future(), loop.create_future()
    rig.connection.send_raw(raw, b"C")
    rig.connection.send_raw(gone, b"C")
    rig.connection.send(bad, b"C")
    after = rig.send()
    await asyncio.sleep(0)
    gone.cancel()
    rig.receive(b"+a\r\n>2\r\n+push\r\n+x\r\n$1\r\n\xff\r\n$1\r\n\xfe\r\n$1\r\n\xfd\r\n-ERR no\r\n")
    assert before.result() == "a"
    assert raw.result() == b"\xff"
    assert isinstance(bad.exception(), UnicodeDecodeError)
    assert str(after.exception()) == "no"
    assert rig.owner.pushed == [[b"push", b"x"]]
    assert (rig.connection.dropped, rig.connection.in_flight, rig.connection.answered) == (1, 0, 5)


async def test_a_batch() -> None:
    """A batch gets all its replies as one list; errors are items of it."""
    rig = Rig()
    future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    rig.connection.send_many(BatchReply(future, 3), 3, b"CCC")
    rig.receive(b":1\r\n-ERR no\r\n")
    assert not future.done()
    rig.receive(b":3\r\n")
    assert [str(item) for item in future.result()] == ["1", "no", "3"]

    gone: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    rig.connection.send_many(BatchReply(gone, 2), 2, b"CC")
    await asyncio.sleep(0)
    gone.cancel()
    rig.receive(b":1\r\n:2\r\n")
    assert rig.connection.dropped == 1


async def test_a_loss_tells_what_was_sent() -> None:
    """After a loss each pending reply knows whether its command was sent; the owner is notified once."""
    rig = Rig()
    sent = rig.send()
    batch: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    rig.connection.send_many(BatchReply(batch, 2), 2, b"CC")
    unsent, gone = rig.send(), rig.send()
    gone.cancel()
    rig.connection.connection_lost(OSError("reset"))
    rig.connection.connection_lost(None)
    rig.connection.kill("again")
    flags = []

    for future in (sent, batch, unsent):
        error = future.exception()
        assert isinstance(error, ConnectionLost)
        flags.append(error.sent)

    assert flags == [True, False, False]
    assert rig.owner.lost == ["reset"]
    assert "closed" in repr(rig.connection)
    rig.receive(b"+late\r\n")
    rig.connection.open()
    assert rig.connection.limit == 0
    assert not rig.connection.has_room()


async def test_silence_kills() -> None:
    """When a reply is due and nothing comes for the command timeout, the connection is killed."""
    rig = Rig()
    future = rig.send()
    rig.clock.advance(4.9)
    assert not rig.owner.lost
    rig.clock.advance(0.2)
    assert rig.wire.aborted
    assert rig.owner.lost == ["silent for 5 s with 1 commands in flight"]
    assert isinstance(future.exception(), ConnectionLost)


async def test_progress_keeps_alive() -> None:
    """As long as something arrives, a reply is not overdue; an idle connection expects none."""
    rig = Rig()
    rig.send()
    last = rig.send()
    await asyncio.sleep(0)

    for _ in range(3):
        rig.clock.advance(4)
        rig.receive(b"$" if _ == 0 else b"3" if _ == 1 else b"\r\nabc\r\n")

    rig.clock.advance(4)
    rig.receive(b"+last\r\n")
    assert last.result() == b"last"
    rig.clock.advance(100)
    assert not rig.owner.lost
    rig.send()
    await asyncio.sleep(0)
    rig.clock.advance(4)
    assert not rig.owner.lost
    rig.clock.advance(2)
    assert rig.owner.lost


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"+one\r\n+two\r\n", "reply to no command"),
        (b"nonsense\r\n", "broke the protocol"),
    ],
)
async def test_a_server_that_is_out_of_step(data: bytes, reason: str) -> None:
    """Replies to no command, and bytes that are not a reply, close the connection."""
    rig = Rig()
    rig.send()
    rig.receive(data)
    assert rig.wire.aborted
    assert reason in rig.owner.lost[0]


async def test_a_reply_before_its_command() -> None:
    """A reply that comes before the command was written cannot be its own."""
    rig = Rig()
    rig.send()
    await asyncio.sleep(0)
    rig.send()
    rig.receive(b"+one\r\n+two\r\n")
    assert rig.owner.lost == ["the server sent a reply before the command"]


async def test_back_pressure_of_the_transport() -> None:
    """While the transport says stop, commands are kept; then they go out together."""
    rig = Rig()
    rig.connection.pause_writing()
    rig.send(b"1")
    rig.send(b"2")
    await asyncio.sleep(0)
    assert rig.wire.written == []
    rig.connection.resume_writing()
    assert rig.wire.written == [b"12"]
    rig.connection.resume_writing()
    assert rig.wire.written == [b"12"]


async def test_heavy_commands_are_weighed() -> None:
    """Heavy commands fill the connection by their bytes, and replies make room."""
    rig = Rig(max_bytes=5_000)
    rig.send(b"x" * 3_000)
    assert rig.connection.limit
    rig.send(b"x" * 3_000)
    await asyncio.sleep(0)
    assert (rig.connection.limit, rig.connection.heavy) == (0, 6_000)
    assert not rig.connection.has_room()
    rig.receive(b"+OK\r\n")
    assert (rig.connection.heavy, rig.owner.room) == (3_000, 1)
    assert rig.connection.has_room()
    rig.connection.open()
    assert rig.connection.limit


async def test_killed_before_it_was_connected() -> None:
    """A connection that is killed while it connects drops the transport it gets."""
    connection = PipelinedConnection(Owner(), Limits())
    connection.kill("no need")
    wire = Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]  # all that it needs
    assert wire.aborted
    assert not connection.eof_received()


async def test_an_upload_that_goes_on_is_no_silence() -> None:
    """A connection whose bytes still leave is alive, however long they take; then it is not."""
    rig = Rig()
    rig.wire.buffered = 3_000
    future = rig.send(b"x" * 4_000)

    for left in (2_000, 1_000, 500, 500):
        rig.wire.buffered = left
        rig.clock.advance(5)
        assert not future.done() or left == 500

    assert isinstance(future.exception(), ConnectionLost)


@pytest.mark.parametrize("error", [UnavailableError("gone"), AcquireTimeout("full"), ClosedError("closed")])
async def test_what_is_no_reply_ends_a_batch(error: Exception) -> None:
    """An error of ours stands for all replies of a batch, because none will come."""
    future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    batch = BatchReply(future, 3)
    batch.set_result(b"a reply")
    batch.set_exception(error)
    batch.set_exception(error)
    assert future.exception() is error
