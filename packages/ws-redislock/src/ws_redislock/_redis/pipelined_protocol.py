"""One leased connection of redis-py that all calls share: encoding, matching replies, timeouts.

Commands are written as they come, and replies are matched in order. A caller that is cancelled leaves its
place behind, whose reply is dropped when it comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

from redis import exceptions

MANY = 6
"""Commands after which the server gets work while the loop's turn still goes on."""


def encode(command: Sequence[str | bytes | int]) -> bytes:
    """Encode one command; redis-py's own packer takes twice as long."""
    data = [a if type(a) is bytes else str(a).encode() for a in command]
    return b"*%d\r\n" % len(data) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in data])


class Replies(Protocol):
    """An incremental parser of replies."""

    def feed(self, data: bytes, /) -> object:
        """Take bytes from the server."""
        ...

    def gets(self) -> Any:  # Any: a reply is whatever the script returned
        """Return the next whole reply, an exception for an error, or False when there is none."""
        ...


class DriverReplies:
    """redis-py's own parser in Python, fed by hand: it reads a stream that never makes it wait."""

    __slots__ = ("_data", "_parser", "_position")

    def __init__(self, parser: Any) -> None:  # Any: redis-py's parsers have no public type
        self._parser = parser
        self._data = b""
        self._position = 0
        parser._stream = self

    def feed(self, data: bytes, /) -> None:
        """Take bytes from the server."""
        self._data = self._data[self._position :] + data
        self._position = 0

    def gets(self) -> Any:  # Any: a reply is whatever the script returned
        """Return the next whole reply, an exception for an error, or False when there is none."""
        if self._position == len(self._data):
            return False

        try:
            self._parser.read_response(disable_decoding=True).send(None)
        except StopIteration as done:
            return done.value
        except _Incomplete:
            return False  # the parser keeps what it has read, and begins over with it
        except exceptions.ConnectionError as error:
            return error  # LOADING and the like: such a reply is raised at once

        raise AssertionError("redis-py's parser waited for something other than its stream")

    async def readline(self) -> bytes:
        """Return one line, as a stream does."""
        return self._take(self._data.find(b"\n", self._position) + 1)

    async def readexactly(self, size: int) -> bytes:
        """Return so many bytes, as a stream does."""
        return self._take(self._position + size)

    def _take(self, end: int) -> bytes:
        if not 0 < end <= len(self._data):
            raise _Incomplete

        data = self._data[self._position : end]
        self._position = end
        return data


class _Incomplete(Exception):
    """The reply goes on in bytes that have not come yet."""


def replies_of(parser: Any) -> tuple[Replies, type | None]:  # Any: as above
    """Return hiredis's parser of replies and its type of pushes, or else the connection's own parser."""
    try:
        import hiredis  # noqa: PLC0415 - an optional accelerator
    except ImportError:
        return DriverReplies(parser), None  # it takes out pushes by itself

    reader: Replies = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=parser.parse_error)
    return reader, hiredis.PushNotification


class _Call:
    """One command in flight."""

    # One is made for each command: with slots that is cheaper than a tuple by name, and than a dictionary.
    __slots__ = ("deadline", "future", "sent")

    def __init__(self, future: asyncio.Future[Any], sent: float, deadline: float) -> None:
        self.future = future
        self.sent = sent
        self.deadline = deadline


class PipelinedProtocol(asyncio.Protocol):
    """A leased connection: the protocol of its transport until it is given back."""

    def __init__(self, pool: Any, connection: Any, *, brief: bool = False) -> None:  # Any: as above
        self._brief = brief
        self._pool = pool
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._parser_stream = connection._parser._stream
        self._replies, self._push = replies_of(connection._parser)
        self._heard = self._loop.time()
        self._release: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        # The stream's transport, protocol and parser have no public name in redis-py.
        self._transport = cast("asyncio.Transport", connection._writer.transport)
        self._before = cast("asyncio.Protocol", self._transport.get_protocol())
        self._transport.set_protocol(self)

    @property
    def busy(self) -> bool:
        """Whether any reply is still to come."""
        return bool(self._calls)

    def call(self, command: tuple[str | bytes | int, ...], within: float) -> asyncio.Future[Any]:
        """Write a command; the future gets its reply."""
        if self.closed:
            raise exceptions.ConnectionError("the connection was lost before the call")

        future: asyncio.Future[Any] = self._loop.create_future()
        now = self._loop.time()
        deadline = now + within
        self._calls.append(_Call(future, now, deadline))

        if self._timer is None or deadline < self._timer.when():
            self._set_timer(deadline)

        if self._brief:
            future.add_done_callback(self.end_brief)

        self._unsent.append(encode(command))

        if len(self._unsent) == 1:
            self._loop.call_soon(self._flush)
        elif len(self._unsent) >= MANY:
            self._flush()

        return future

    def _flush(self) -> None:
        """Write what came in this turn of the loop, at once."""
        unsent, self._unsent = self._unsent, []

        if unsent and not self.closed:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def abort(self) -> None:
        """Close the connection at once; calls on their way fail."""
        if not self.closed:
            self._transport.abort()
            self._close(exceptions.ConnectionError("the connection was given up"))

    def end_brief(self, _: object = None) -> None:
        """Close a brief connection whose replies nobody awaits any more."""
        if self._brief and all(call.future.done() for call in self._calls):
            self._close(exceptions.ConnectionError("the connection was closed after its last reply"))

    def give_back(self) -> None:
        """Let redis-py have the connection again."""
        self.closed = True

        if self._timer is not None:
            self._timer.cancel()

        self._connection._parser._stream = self._parser_stream
        self._transport.set_protocol(self._before)
        self._release = self._loop.create_task(self._pool.release(self._connection))

    def data_received(self, data: bytes) -> None:
        """Match replies to calls, in order."""
        self._heard = self._loop.time()
        self._replies.feed(data)
        gets = self._replies.gets

        try:
            while (reply := gets()) is not False:
                if not self._calls or type(reply) is self._push:
                    continue

                future = self._calls.popleft().future

                if not future.done():
                    future.set_result(reply)
        except exceptions.RedisError as error:
            self._transport.abort()
            self._close(exceptions.ConnectionError(f"the server does not speak Redis's protocol: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls in flight, and notify redis-py, which may wait for the end."""
        self._close(
            exceptions.ConnectionError(f"the connection to Redis was lost: {exc or 'closed by the server'}")
        )
        self._before.connection_lost(exc)

    def eof_received(self) -> bool:
        """Close when the server does."""
        return False

    def pause_writing(self) -> None:
        """Do nothing: calls are short, and their number is bounded by the tasks that wait."""

    def resume_writing(self) -> None:
        """Do nothing, as above."""

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()

        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        """End the calls that are overdue. One timer serves all calls, and is late for none."""
        self._timer = None
        now = self._loop.time()
        dead = False
        following = float("inf")

        for call in self._calls:
            if call.deadline > now:
                following = min(following, call.deadline)
                continue

            # Two cases: other calls were answered since, so that this one is only slow, and its reply is
            # dropped when it comes; or nothing was heard at all, and the connection is dead.
            dead = dead or self._heard <= call.sent

            if not call.future.done():
                call.future.set_exception(TimeoutError("no reply in time"))

        if dead:
            self.abort()
        elif following < float("inf"):
            self._set_timer(following)

    def _close(self, error: Exception) -> None:
        if self.closed:
            return

        self.closed = True
        calls, self._calls = self._calls, deque()

        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)

        # Whether the task below still runs or the loop ends first, the streams are closed.
        self._connection._close()  # disconnect() needs a running task
        self._release = self._loop.create_task(self._clean_up())

    async def _clean_up(self) -> None:
        try:
            await self._connection.disconnect(nowait=True)
        finally:
            await self._pool.release(self._connection)
