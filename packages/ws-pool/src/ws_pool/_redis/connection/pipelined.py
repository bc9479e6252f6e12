"""One socket, shared: commands go out in order, and replies come back in the same order.

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

from ws_core.errors import describe
from ws_pool._redis.connection.credentials import Login
from ws_pool._redis.connection.queue import HEAVY, Limits
from ws_pool._redis.connection.replies import PendingReply
from ws_pool._redis.connection.stall import StallDetector, unacknowledged
from ws_pool._redis.errors import ConnectionLost

_READ_SIZE: Final = 64 * 1024
_MISSING: Final = object()
_Push: Final[type[list[Any]]] = hiredis.PushNotification


class ConnectionOwner(Protocol):
    """What opens connections, and is notified of what happens to them."""

    def on_room(self, connection: PipelinedConnection) -> None:
        """Called when a connection that was full may take commands again."""

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None:
        """Called once, after a connection was lost and its pending replies have failed."""

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None:
        """Called with each RESP3 push message."""


class PipelinedConnection(asyncio.BufferedProtocol):
    """One socket with its pending replies."""

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
        self.limit: int = 0  # 0 sends new commands to the queue: not ready, full, or others are queued
        self.raw: set[int] = set()  # numbers of the replies that must stay bytes
        self.dropped: int = 0
        self.answered: int = 0
        self.closed: bool = False
        self.protocol = 2  # the RESP version, set by the handshake
        self.login: Login | None = None  # set by the handshake, and when the credentials have changed
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
        self._heavy = 0  # bytes of pending heavy commands
        self._heavy_out = 0  # those of them that were not written yet
        self._written = 0
        self._writes: deque[tuple[int, float, int]] = deque()  # of each write: last number, time, heavy bytes
        self._received = 0.0
        self._bytes_written = 0  # to the transport, so far
        self._stall = StallDetector(limits.command_timeout)
        self._pending_at_read = 0  # pending replies when the present bytes arrived

        self._buffer = bytearray(_READ_SIZE)
        self._errors: list[None] = []  # not empty after a reply that is or holds an error
        options: dict[str, Any] = {"encoding": encoding, "errors": errors} if encoding else {}
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=self._reply_error, notEnoughData=_MISSING, **options
        )
        self._gets: Callable[..., Any] = self._reader.gets

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<PipelinedConnection {state}, {len(self.pending)} pending, {self._in_flight} in flight>"

    # What senders call ------------------------------------------------------------------------

    def send(self, reply: PendingReply, data: bytes) -> None:
        """Append one command; it is written with all others of this turn of the loop."""
        self.pending.append(reply)
        self._out.append(data)

        if len(data) > HEAVY:
            self._weigh(len(data))

        if not self._scheduled:
            if self._eager and not self._in_flight:
                # Nothing is in flight, and the last write held a single command: a lone caller. Waiting
                # for the end of this turn would only add latency.
                self._flush()
            else:
                self._scheduled = True
                self._call_soon(self._flush)

    def send_many(self, reply: PendingReply, count: int, data: bytes) -> None:
        """Append several commands, next to each other."""
        self.pending.extend([reply] * (count - 1))
        self.send(reply, data)

    def send_raw(self, reply: PendingReply, data: bytes, count: int = 1) -> None:
        """Append commands of which the last one's reply must stay bytes."""
        self.raw.add(self.answered + len(self.pending) + count - 1)
        self.send_many(reply, count, data)

    def open(self, *, full: bool = False) -> None:
        """Take commands as far as there is room; none when others are queued already."""
        if not self.closed:
            self.limit = 0 if full or self._heavy >= self._max_bytes else self._max_pending

    def has_room(self, count: int = 1) -> bool:
        """Return whether so many more commands fit; any number fits when nothing is pending."""
        line = len(self.pending)
        return not self.closed and (
            not line or (line + count <= self._max_pending and self._heavy < self._max_bytes)
        )

    def unread(self) -> bool:
        """Return whether something has arrived that was not read yet."""
        return self._poll is not None and bool(self._poll.poll(0))

    def amid_reply(self) -> bool:
        """Return whether a reply has arrived in part."""
        return self._reader.has_data()

    @property
    def heavy(self) -> int:
        """Bytes of pending heavy commands."""
        return self._heavy

    @property
    def in_flight(self) -> int:
        """Commands that were written and have no reply yet."""
        return self._in_flight

    def kill(self, reason: str) -> None:
        """Close the socket at once; all pending replies fail with `ConnectionLost`."""
        if self._transport is not None:
            self._transport.abort()

        self._lose(reason)

    # What the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not a subclass of it

        if self.closed:
            self._transport.abort()

        if self.tracking and (sock := transport.get_extra_info("socket")) is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer to receive into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand out the replies that have arrived."""
        if self.closed:
            return

        pending = self.pending
        self._pending_at_read = line = len(pending)
        self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # any buffer is fine
        self._received = self._time()

        try:
            while not self._hand_out_some():
                pass
        except InvalidResponse as error:
            self.kill(f"the server broke the protocol: {error}")
            return
        except IndexError:
            self.kill("the server sent a reply to no command")
            return

        # Counted once for each read, not for each reply: this is the hot path of 100,000 replies a second.
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
            self._owner.on_room(self)

    def eof_received(self) -> bool:
        """Close when the server does."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all pending replies."""
        self._lose("the server closed the connection" if exc is None else describe(exc))

    def pause_writing(self) -> None:
        """Keep commands here while the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Write what was kept."""
        self._paused = False
        self._stall.progressed = self._time()
        self._flush()

    # Inside -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write all commands of this turn of the loop in one piece."""
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
            self._timer = self._call_at(self._time() + self._timeout, self._check_timeout)

        assert self._transport is not None
        self._bytes_written += len(data)
        self._transport.write(data)

    def _weigh(self, size: int) -> None:
        self._heavy += size
        self._heavy_out += size

        if self._heavy >= self._max_bytes:
            self.limit = 0

    def _hand_out_some(self) -> bool:
        """Hand out replies up to one that cannot be decoded; return whether all were handed out."""
        try:
            if self.raw:
                self._hand_out_raw()
            else:
                self._hand_out()
        except UnicodeDecodeError as error:
            # With tracking on it may have been an invalidation push instead of a reply. The two cannot be
            # told apart here, and one caller too many or too few would shift all replies: give up.
            if self.tracking:
                raise InvalidResponse("a key's name cannot be decoded") from error

            self._fail_undecodable(error)
            return False

        return True

    def _hand_out(self) -> None:
        # Local names, and no call but these three for each reply. That a caller was cancelled is found
        # out by the error of set_result, which is cheaper than asking each future first.
        gets, popleft, errors = self._gets, self.pending.popleft, self._errors

        while (value := gets()) is not _MISSING:
            if value.__class__ is _Push:
                self._owner.on_push(self, value)
                continue

            reply = popleft()

            try:
                if errors:
                    errors.clear()

                    if isinstance(value, Exception):
                        reply.set_exception(value)
                        continue

                reply.set_result(value)
            except asyncio.InvalidStateError:
                self.dropped += 1  # a tombstone: its caller was cancelled

    def _fail_undecodable(self, error: Exception) -> None:
        """Fail the command whose reply cannot be decoded; the reader has consumed that reply."""
        number = self.answered + self._pending_at_read - len(self.pending)
        reply = self.pending.popleft()
        self.raw.discard(number)

        if reply.done():
            self.dropped += 1
        else:
            reply.set_exception(error)

    def _hand_out_raw(self) -> None:
        """Hand out replies while some of them must stay bytes."""
        while True:
            number = self.answered + self._pending_at_read - len(self.pending)
            keep = number in self.raw
            value = self._gets(False) if keep else self._gets()

            if value is _MISSING:
                return

            if value.__class__ is _Push:
                self._owner.on_push(self, value)
                continue

            reply = self.pending.popleft()
            self.raw.discard(number)
            self._errors.clear()

            try:
                if isinstance(value, Exception):
                    reply.set_exception(value)
                else:
                    reply.set_result(value)
            except asyncio.InvalidStateError:
                self.dropped += 1

    def _reply_error(self, text: str) -> Exception:
        self._errors.append(None)
        error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]  # redis-py's
        return error

    def _check_timeout(self) -> None:
        """Close the connection when the oldest reply is overdue; check again when it would be."""
        # One timer for the connection, not one for each command: it runs at most once per timeout, so a
        # command costs nothing for it. The oldest reply is overdue only when the server was silent for
        # the whole timeout: any received byte, and any byte taken of a large upload, starts it anew. A
        # single reply cannot be given up, because the next one would then be taken for it: without
        # request ids, a late reply and the reply of the next command look alike.
        self._timer = None

        if not self._in_flight or self.closed:
            return

        assert self._transport is not None
        now = self._time()
        due = self._stall.due(
            now,
            sent=self._writes[0][1],
            received=self._received,
            written=self._bytes_written,
            unsent=self._transport.get_write_buffer_size() + unacknowledged(self._transport),
        )

        if due <= now:
            self.kill(f"silent for {self._timeout:g} s with {self._in_flight} commands in flight")
        else:
            self._timer = self._call_at(due, self._check_timeout)

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

        # Commands beyond those in flight were never written: they can be repeated on another connection.
        for index, reply in enumerate(pending):
            if not reply.done():
                reply.set_exception(ConnectionLost(reason, sent=index < in_flight))

        self._owner.on_loss(self, reason)
