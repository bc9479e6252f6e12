"""One socket, shared: commands go out in order, replies are given back in the same order.

RESP has no request ids, so the whole safety of sharing rests on the order: a pending reply is appended
to `PipelinedConnection.pending` and its bytes to `PipelinedConnection.out` in one synchronous step, and
the n-th reply belongs to the n-th entry. The entry of a cancelled caller stays in its place as a
tombstone, and its reply is dropped. A broken connection is never repaired: `ReconnectingConnection`
opens another.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import InvalidResponse

from ws_pool._redis.connection.queue import HEAVY, Limits
from ws_pool._redis.connection.replies import PendingReply
from ws_pool._redis.connection.stall import StallDetector, unacknowledged
from ws_pool._redis.errors import ConnectionLost

__all__ = ("ConnectionOwner", "PipelinedConnection")

_READ_SIZE: Final = 64 * 1024
_MISSING: Final = object()
_Push: Final[type[list[Any]]] = hiredis.PushNotification


class ConnectionOwner(Protocol):
    """Who opens links and hears of what happens to them."""

    def link_has_room(self, link: PipelinedConnection) -> None:
        """Hear that a link which was full may take commands again."""

    def link_lost(self, link: PipelinedConnection, reason: str) -> None:
        """Hear, once, that a link is gone; its slots were told already."""

    def link_pushed(self, link: PipelinedConnection, message: list[Any]) -> None:
        """Hear of a RESP3 push message."""


class PipelinedConnection(asyncio.BufferedProtocol):
    """
    One socket with its line of waiting slots.

    Args:
        owner: Hears of room, loss and push messages.
        limits: How much may be in line, and how long a reply may take.
        encoding: To decode replies with, or None to leave them bytes.
        errors: What to do with bytes that can't be decoded.
    """

    def __init__(
        self,
        owner: ConnectionOwner,
        limits: Limits,
        *,
        encoding: str | None = None,
        errors: str = "strict",
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pending: deque[PendingReply] = deque()
        self.limit: int = 0  # 0 refuses newcomers: not ready, full, or others wait already
        self.raw: set[int] = set()  # numbers of the replies that must stay bytes
        self.dropped: int = 0
        self.answered: int = 0
        self.closed: bool = False
        self.protocol = 2  # the RESP version, set by the handshake
        self.tracking = False  # whether the server pushes names of keys

        self._owner = owner
        self._call_soon = loop.call_soon
        self._call_at = loop.call_at
        self._time = loop.time
        self._max_pending = limits.max_pending
        self._max_bytes = limits.max_bytes
        self._timeout = limits.command_timeout
        self._timer: asyncio.TimerHandle | None = None

        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._paused = False
        self._out: list[bytes] = []
        self._scheduled = False
        self._eager = True
        self._in_flight = 0
        self._heavy = 0  # bytes of heavy commands in line
        self._heavy_out = 0  # those of them that were not written yet
        self._written = 0
        self._writes: deque[tuple[int, float, int]] = deque()  # of each write: last number, time, heavy bytes
        self._received = 0.0
        self._handed = 0  # bytes given to the transport so far
        self._progress = StallDetector(limits.command_timeout)
        self._line = 0  # how many were in line when the present bytes arrived

        self._buffer = bytearray(_READ_SIZE)
        self._errors: list[None] = []  # not empty after a reply that is or holds an error
        options: dict[str, Any] = {"encoding": encoding, "errors": errors} if encoding else {}
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=self._reply_error, notEnoughData=_MISSING, **options
        )
        self._gets: Callable[..., Any] = self._reader.gets

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<PipelinedConnection {state}, {len(self.pending)} in line, {self._in_flight} in flight>"

    # What senders call ------------------------------------------------------------------------

    def send(self, slot: PendingReply, data: bytes) -> None:
        """
        Put one command in line.

        Args:
            slot: Gets the reply.
            data: The command's bytes.
        """
        self.pending.append(slot)
        self._out.append(data)

        if len(data) > HEAVY:
            self._weigh(len(data))

        if not self._scheduled:
            if self._eager and not self._in_flight:
                self._flush()  # nothing is in flight and no company came last time: don't wait for any
            else:
                self._scheduled = True
                self._call_soon(self._flush)

    def send_many(self, slot: PendingReply, count: int, data: bytes) -> None:
        """
        Put several commands in line, next to each other.

        Args:
            slot: Gets all replies.
            count: How many commands there are.
            data: The bytes of all.
        """
        self.pending.extend([slot] * (count - 1))
        self.send(slot, data)

    def send_raw(self, slot: PendingReply, data: bytes) -> None:
        """
        Put one command in line whose reply must stay bytes.

        Args:
            slot: Gets the reply.
            data: The command's bytes.
        """
        self.raw.add(self.answered + len(self.pending))
        self.send(slot, data)

    def open(self, *, full: bool = False) -> None:
        """
        Let newcomers in, as far as there is room.

        Args:
            full: Keep them out, because others wait already.
        """
        if not self.closed:
            self.limit = 0 if full or self._heavy >= self._max_bytes else self._max_pending

    def has_room(self, count: int = 1) -> bool:
        """
        Tell whether more commands may be put in line, whoever waits.

        Args:
            count: How many.

        Returns:
            Whether they fit; any number fits when nothing is in line.
        """
        line = len(self.pending)
        return not self.closed and (
            not line or (line + count <= self._max_pending and self._heavy < self._max_bytes)
        )

    def unread(self) -> bool:
        """Tell, by a look at the socket, whether something has arrived that was not read yet."""
        return self._poll is not None and bool(self._poll.poll(0))

    def amid_reply(self) -> bool:
        """Tell whether a reply has arrived in part."""
        return self._reader.has_data()

    @property
    def heavy(self) -> int:
        """Bytes of heavy commands in line."""
        return self._heavy

    @property
    def in_flight(self) -> int:
        """Commands that were written and not answered."""
        return self._in_flight

    def kill(self, reason: str) -> None:
        """
        Drop the connection at once; all slots get `ConnectionLost`.

        Args:
            reason: Why, for people.
        """
        if self._transport is not None:
            self._transport.abort()

        self._lose(reason)

    # What the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

        if self.closed:
            self._transport.abort()

        if self.tracking and (sock := transport.get_extra_info("socket")) is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Give the place to receive into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand out the replies that have arrived."""
        if self.closed:
            return

        pending = self.pending
        self._line = line = len(pending)
        self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # any buffer is fine
        self._received = self._time()

        try:
            while not self._hand_out_some():
                pass
        except InvalidResponse as error:
            self.kill(f"the server broke the protocol: {error}")
            return
        except IndexError:
            self.kill("the server sent a reply that nobody asked for")
            return

        answered = line - len(pending)
        self._in_flight -= answered
        self.answered += answered

        if self._in_flight < 0:
            self.kill("the server sent a reply before the command")
            return

        writes = self._writes

        while writes and writes[0][0] <= self.answered:
            self._heavy -= writes.popleft()[2]

        if not self.limit:
            self._owner.link_has_room(self)

    def eof_received(self) -> bool:
        """Close when the server does."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all slots."""
        self._lose("the server closed the connection" if exc is None else str(exc) or type(exc).__name__)

    def pause_writing(self) -> None:
        """Keep commands here while the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Write what was kept."""
        self._paused = False
        self._progress.left = self._time()
        self._flush()

    # Inside -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        out = self._out

        if not out or self._paused or self.closed:
            return

        line = len(self.pending)
        fresh = line - self._in_flight
        self._in_flight = line
        self._written += fresh
        self._writes.append((self._written, self._time(), self._heavy_out))
        self._eager = fresh == 1
        data = out[0] if len(out) == 1 else b"".join(out)
        self._heavy_out = 0
        out.clear()

        if self._timer is None:
            self._timer = self._call_at(self._time() + self._timeout, self._watch)

        assert self._transport is not None  # noqa: S101 - nobody sends before the connection is made
        self._handed += len(data)
        self._transport.write(data)

    def _weigh(self, size: int) -> None:
        self._heavy += size
        self._heavy_out += size

        if self._heavy >= self._max_bytes:
            self.limit = 0

    def _hand_out_some(self) -> bool:
        """Hand out replies up to one that cannot be decoded, and tell whether that were all."""
        try:
            if self.raw:
                self._hand_out_raw()
            else:
                self._hand_out()
        except UnicodeDecodeError as error:
            if self.tracking:  # it may have been a key's name, and no reply at all
                raise InvalidResponse("a key's name that is no text") from error

            self._give_error(error)
            return False

        return True

    def _hand_out(self) -> None:
        gets, popleft, errors = self._gets, self.pending.popleft, self._errors

        while (reply := gets()) is not _MISSING:
            if reply.__class__ is _Push:
                self._owner.link_pushed(self, reply)
                continue

            slot = popleft()

            try:
                if errors:
                    errors.clear()

                    if isinstance(reply, Exception):
                        slot.set_exception(reply)
                        continue

                slot.set_result(reply)
            except asyncio.InvalidStateError:
                self.dropped += 1  # a tombstone: its owner was cancelled

    def _give_error(self, error: Exception) -> None:
        """Give a reply that cannot be decoded to whom it belongs; the reader stays in step."""
        number = self.answered + self._line - len(self.pending)
        slot = self.pending.popleft()
        self.raw.discard(number)

        if slot.done():
            self.dropped += 1
        else:
            slot.set_exception(error)

    def _hand_out_raw(self) -> None:
        """Do the same while some of the replies must stay bytes."""
        while True:
            number = self.answered + self._line - len(self.pending)
            keep = number in self.raw
            reply = self._gets(False) if keep else self._gets()

            if reply is _MISSING:
                return

            if reply.__class__ is _Push:
                self._owner.link_pushed(self, reply)
                continue

            slot = self.pending.popleft()
            self.raw.discard(number)
            self._errors.clear()

            try:
                if isinstance(reply, Exception):
                    slot.set_exception(reply)
                else:
                    slot.set_result(reply)
            except asyncio.InvalidStateError:
                self.dropped += 1

    def _reply_error(self, text: str) -> Exception:
        self._errors.append(None)
        error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]  # redis-py's
        return error

    def _watch(self) -> None:
        """
        Kill the link when the oldest reply is overdue; look again when it would be.

        A server that still takes what is written to it is alive: a large upload may take its time.
        """
        self._timer = None

        if not self._in_flight or self.closed:
            return

        assert self._transport is not None  # noqa: S101 - something was written
        now = self._time()
        due = self._progress.due(
            now,
            sent=self._writes[0][1],
            received=self._received,
            handed=self._handed,
            waiting=self._transport.get_write_buffer_size() + unacknowledged(self._transport),
        )

        if due <= now:
            self.kill(
                f"the server sent nothing for {self._timeout:g} s while {self._in_flight} replies were due"
            )
        else:
            self._timer = self._call_at(due, self._watch)

    def _lose(self, reason: str) -> None:
        if self.closed:
            return

        self.closed = True
        self.limit = 0
        pending, in_flight = list(self.pending), self._in_flight
        self.pending.clear()
        self._out.clear()
        self._writes.clear()
        self.raw.clear()
        self._in_flight = 0
        self._heavy = self._heavy_out = 0

        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        for index, slot in enumerate(pending):
            if not slot.done():
                slot.set_exception(ConnectionLost(reason, sent=index < in_flight))

        self._owner.link_lost(self, reason)
