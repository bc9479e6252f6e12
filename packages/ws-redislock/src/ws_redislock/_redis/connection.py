"""How commands reach Redis in time: over the client, or one connection of its pool that all calls share.

redis-py leases a connection for every command and waits for its reply before the next. Here all
callers write to one connection as they come, and replies are matched in order. The connection is
made, authenticated and closed by redis-py; this only sits in place of its stream protocol while
it is leased. A caller that is cancelled leaves a tombstone behind, whose reply is dropped.

Where the pool has no connection to spare, one is made beside it, and closed when nobody waits for a
reply.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeAlias, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.client import PubSub

from ws_redislock._lease.cancel_scope import cancels_so_far, raise_if_cancelled
from ws_redislock._lease.timers import Timers
from ws_redislock._redis.clients import CommandClient
from ws_redislock._redis.spare_connection import SpareConnections, has_room, is_small

__all__ = ("CommandSender", "SharedConnection")

IDLE = 10.0
"""Seconds after which an unused connection goes back to its pool."""

CONNECTING = 5.0
"""Seconds that connecting may take at first, with the driver's own repetitions; twice as long after each
time that was too short."""

LONGEST = 20.0
"""Seconds that connecting may take at most."""

MANY = 6
"""Commands after which the server gets work while the loop's turn still goes on."""


Argument: TypeAlias = str | bytes | int

_connections: weakref.WeakValueDictionary[tuple[int, int, int], SharedConnection] = (
    weakref.WeakValueDictionary()
)


class CommandSender:
    """Sends commands through one client; how it must be driven is found out once."""

    __slots__ = ("_client", "_pool", "_shared", "_small", "_timers", "cluster")

    def __init__(self, client: CommandClient, timers: Timers) -> None:
        self._client = client
        self._timers = timers
        self.cluster: bool = hasattr(client, "get_node_from_key")
        plain = (
            isinstance(client, redis.asyncio.Redis)
            and type(client).execute_command is redis.asyncio.Redis.execute_command
            and not client.single_connection_client
        )
        # Any: the driver's pool is typed for its own use only.
        pool: Any = cast("Any", client).connection_pool if plain else None
        self._pool: Any = pool if SharedConnection.fits(pool) else None
        self._small = self._pool is not None and is_small(pool)
        self._shared = None if self._pool is None else SharedConnection.to(pool)

    @property
    def pipelines(self) -> bool:
        """Whether commands that go together are best sent as a pipeline of the client."""
        # What is written to the shared connection in one turn of the loop goes together anyway; a cluster's
        # commands go to different nodes.
        return not self.cluster and (self._shared is None or self._small)

    def subscription(self) -> Any:  # Any: the driver's PubSub is untyped, a cluster's is another class
        """Return a new subscription, on a connection that the application does not miss."""
        client: Any = self._client  # Any: as above

        if self.cluster:
            node = client.get_random_node()  # a publication reaches every node of a cluster
            kwargs = {k: v for k, v in node.connection_kwargs.items() if k not in {"host", "port"}}
            pool = redis.asyncio.ConnectionPool(
                connection_class=node.connection_class, host=node.host, port=node.port, **kwargs
            )
            return PubSub(pool)

        # The scripts publish to channels as they are: a pool's prefix of keys and channels must not come in.
        pubsub = getattr(client, "unprefixed", client).pubsub()

        if self._small or not self._has_room():
            pubsub.connection_pool = SpareConnections(self._pool)

        return pubsub

    def send(self, command: tuple[Argument, ...], within: float) -> Awaitable[Any]:  # Any: any reply
        """Send a command and return its reply, within so many seconds."""
        # A small pool is used for the time of a call only, so that the application is not left without; when
        # it has no connection to spare, the shared connection is made beside it.
        if self._shared is None or (self._small and self._has_room()):
            return self._bounded(command, within)

        return self._shared.call(command, within)

    async def send_all(
        self, commands: Sequence[tuple[Argument, ...]], within: float, *, raise_errors: bool = True
    ) -> list[Any]:  # Any: as above
        """Send commands over one connection within so many seconds; raise or return error replies."""
        pipeline: Any = cast("Any", self._client).pipeline(transaction=False)

        if not self._has_room():
            pipeline.connection_pool = SpareConnections(self._pool)

        cancels = cancels_so_far()

        async with asyncio.timeout(within):
            for command in commands:
                pipeline.execute_command(*command)

            replies: list[Any] = await pipeline.execute(raise_on_error=raise_errors)

        raise_if_cancelled(cancels)
        return replies

    def _has_room(self) -> bool:
        """Return whether the client's pool could give a connection, as far as that is known."""
        return self._pool is None or has_room(self._pool)

    async def _bounded(self, command: tuple[Argument, ...], within: float) -> Any:
        """Do what asyncio.timeout does, at a third of its price."""
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        timer = self._timers.call_later(within, task.cancel)
        cancelled = uncancelled = False

        try:
            return await self._client.execute_command(*command)
        except asyncio.CancelledError:
            cancelled = True
            uncancelled = timer.function is None

            if uncancelled and task.uncancel() <= before:
                raise TimeoutError("no reply in time") from None

            raise
        except (AttributeError, TypeError) as error:
            if not from_driver(error):
                raise

            # Another task has closed the connection meanwhile: https://github.com/redis/redis-py/issues/3546
            raise exceptions.ConnectionError(f"the driver closed a connection in use: {error}") from error
        finally:
            if timer.function is None and not uncancelled:
                task.uncancel()  # the client made an error of its own of the cancel

            self._timers.cancel(timer)

            if not cancelled and task.cancelling() > before:
                raise_if_cancelled(before)


def from_driver(error: BaseException) -> bool:
    """Return whether an error was raised in redis-py or under it, and not in a user's client or callback."""
    trace = error.__traceback__

    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next

    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.startswith(("redis.", "asyncio."))


class SharedConnection:
    """
    Sends commands over one leased connection, and leases another when it breaks.

    All who work on one pool in one event loop share it, see `to`. It lives as long as one of
    them does, and as long as it has a connection: the timer that returns it refers to it.
    """

    def __init__(self, pool: Any) -> None:  # Any: the driver types its pool for its own use only
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._link: PipelinedProtocol | None = None
        self._connecting: asyncio.Task[PipelinedProtocol] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._used = False
        self._timeout_now = CONNECTING
        self._wanting = 0

    @staticmethod
    def fits(pool: Any) -> bool:  # Any: as above
        """Return whether a pool is one of redis-py's."""
        return all(
            hasattr(pool, name)
            for name in ("can_get_connection", "get_connection", "make_connection", "max_connections")
        )

    @staticmethod
    def to(pool: Any) -> SharedConnection:  # Any: as above
        """Return the one shared connection that a pool has in the running loop."""
        identity = (os.getpid(), id(asyncio.get_running_loop()), id(pool))
        shared = _connections.get(identity)

        if shared is None:
            shared = _connections[identity] = SharedConnection(pool)

        return shared

    async def call(self, command: tuple[str | bytes | int, ...], within: float) -> Any:  # Any: any reply
        """Send a command and wait for its reply."""
        link = self._link

        if link is None or link.closed:
            end = self._loop.time() + within
            link = await self._connect_until(end)
            within = max(0.001, end - self._loop.time())

        self._used = True
        reply = await link.call(command, within)

        if isinstance(reply, exceptions.RedisError):
            if isinstance(reply, exceptions.ReadOnlyError | exceptions.AuthenticationError):
                link.abort()  # a master that became a replica: ask anew who the master is

            raise reply

        return reply

    async def _connect_until(self, end: float) -> PipelinedProtocol:
        self._wanting += 1

        try:
            async with asyncio.timeout_at(end):
                link = await self._connect()
        except BaseException:
            self._wanting -= 1
            self._end_unwanted()
            raise

        self._wanting -= 1
        return link

    async def _connect(self) -> PipelinedProtocol:
        """Lease one connection for all who want one now; a cancelled caller does not stop it."""
        if self._connecting is None or self._connecting.done():
            self._connecting = self._loop.create_task(self._lease())
            # Callers that gave up meanwhile do not ask for its error.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())

        return await asyncio.shield(self._connecting)

    async def _lease(self) -> PipelinedProtocol:
        brief = is_small(self._pool) or not has_room(self._pool)
        pool: Any = SpareConnections(self._pool) if brief else self._pool

        try:
            # A server that does not answer now may do so soon, but not on the connection that it ignored.
            async with asyncio.timeout(self._timeout_now):
                connection = await pool.get_connection()
        except TimeoutError:
            self._timeout_now = min(2 * self._timeout_now, LONGEST)
            raise

        self._timeout_now = CONNECTING

        try:
            self._link = link = PipelinedProtocol(pool, connection, brief=brief)
        except BaseException:
            await pool.release(connection)
            raise

        self._watch_idleness()
        self._end_unwanted()
        return link

    def _end_unwanted(self) -> None:
        """Close a brief connection that all have given up who waited for it."""
        if not self._wanting and self._link is not None:
            self._link.end_brief()

    def _watch_idleness(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()

        self._used = False
        self._idle_timer = self._loop.call_later(IDLE, self._check_idleness)

    def _check_idleness(self) -> None:
        link = self._link
        self._idle_timer = None

        if link is None or link.closed:
            self._link = None
        elif self._used or link.busy:
            self._watch_idleness()
        else:
            self._link = None
            link.give_back()


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
