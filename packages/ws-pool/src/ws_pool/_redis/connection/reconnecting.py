"""A shared connection that outlives its sockets: the queue in front of it, outages, reconnects.

All decisions are synchronous: a command either goes to the present `PipelinedConnection` at once, or
into a FIFO queue in front of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import AuthenticationError, RedisError

from ws_core import backoff
from ws_core.errors import describe
from ws_pool._core.background import cancel_and_wait
from ws_pool._core.statistics import HistogramBuilder
from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.credentials import Login
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, connect
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import CommandQueue, Limits, QueuedCommand, QueuePressure
from ws_pool._redis.connection.replies import PendingReply
from ws_pool._redis.errors import AcquireTimeout, ConnectionLost, UnavailableError
from ws_pool._redis.statistics import ConnectionStatistics
from ws_pool.errors import ClosedError, WsError

_logger: Final = logging.getLogger("ws_pool.redis")
_REMOVAL_PAUSE: Final = 0.01  # seconds between two searches of a full queue for cancelled commands


class ReconnectingConnection:
    """A shared connection that comes back by itself."""

    def __init__(
        self,
        name: str,
        resolve: Callable[[], Awaitable[Endpoint]],
        encoder: CommandEncoder,
        limits: Limits,
        *,
        encoding: str | None = None,
        errors: str = "strict",
        on_push: Callable[[list[Any]], None] = lambda _: None,
        on_up: Callable[[PipelinedConnection], None] = lambda _: None,
        on_down: Callable[[PipelinedConnection], None] = lambda _: None,
        several: bool = False,
    ) -> None:
        self._name = name
        self._resolve = resolve
        self._encoder = encoder
        self._limits = limits
        self._encoding = encoding
        self._errors = errors
        self._on_push = on_push
        self._on_up = on_up
        self._on_down = on_down
        self._cancelled_keys = CancelledKeys(encoder.encode) if several else None

        self._loop = asyncio.get_running_loop()
        # Never None: a connection that is not open has a limit of 0, which sends commands to the queue.
        # So the hot path needs no test for an outage.
        self.connection: PipelinedConnection = self._new_connection()
        self.connection.closed = True
        self._up = False
        self._closed = False
        self._down_since = self._up_since = self._loop.time()
        self._handshake_replies = 0  # replies to the handshake of the present connection
        self._fruitless = 0  # connections in a row that were lost before they served a command
        self._reason = "not connected yet"
        self._queue = CommandQueue(limits.max_queue, limits.max_bytes)
        self._pressure = QueuePressure(limits.max_queue)
        self._next_removal = 0.0  # a time, not before: removing takes as long as the queue
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None
        self._connects = self._losses = self._past_commands = self._past_dropped = self._timeouts = 0
        self._create_times, self._wait_times = HistogramBuilder(), HistogramBuilder()
        self._idle: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<ReconnectingConnection {self._name!r} {self._endpoint}: {self.connection!r}>"

    @property
    def connected(self) -> bool:
        """Whether there is an open connection."""
        return self._up

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the last connection went to."""
        return self._endpoint

    async def start(self) -> None:
        """Open the first connection."""
        try:
            await self._connect()
        except (OSError, TimeoutError, RedisError, ConnectionLost, WsError) as error:
            raise self._unavailable(_why(error)) from error

    def start_soon(self) -> None:
        """Open the first connection in the background; commands wait for it as in an outage."""
        self._down_since = self._loop.time()
        self._reconnect()

    async def close(self, *, timeout: float = 5.0) -> None:
        """Refuse new commands, fail queued ones, wait for pending replies, and close."""
        if self._closed:
            return

        self._closed = True
        self._fail_queue(lambda: ClosedError(f"redis pool {self._name!r} was closed", pool=self._name))

        if self._connecting is not None:
            await cancel_and_wait(self._connecting)

        connection = self.connection
        connection.limit = 0

        try:
            if connection.pending and not connection.closed:
                self._idle = self._loop.create_future()

                async with asyncio.timeout(timeout):
                    await self._idle
        except TimeoutError:
            _logger.warning(
                "redis pool %r closed with %d commands still in flight", self._name, len(connection.pending)
            )
        finally:
            connection.kill("the pool was closed")

    # What senders call ------------------------------------------------------------------------

    def check_reachable(self) -> None:
        """Raise when the pool was closed, or the server was away for more than ``outage_timeout``."""
        if self._closed:
            raise ClosedError(f"redis pool {self._name!r} is closed", pool=self._name)

        if not self._up and self._down_since + self._limits.outage_timeout <= self._loop.time():
            raise self._unavailable(self._reason)

    def check(self) -> None:
        """Raise when another command could not even be queued."""
        self.check_reachable()

        if self._queue.full and not self.connection.limit:
            now = self._loop.time()

            if now >= self._next_removal:
                self._queue.remove_cancelled()
                self._next_removal = now + _REMOVAL_PAUSE

            if self._queue.full:
                self._timeouts += 1
                raise self._no_room("its queue is full")

    def submit(self, reply: PendingReply, data: bytes, *, count: int = 1, raw: bool = False) -> None:
        """Send commands, or queue them when the connection is full or lost."""
        connection = self.connection

        if len(connection.pending) + count <= connection.limit or (
            connection.limit and not connection.pending
        ):
            self._send(connection, reply, data, count, raw=raw)
        else:
            self._enqueue(reply, data, count, raw=raw)

    async def request(self, *words: Any) -> Any:  # Any: arguments of a command; a reply
        """Send a command of the pool's own, and return its reply."""
        reply = self._loop.create_future()
        self.submit(reply, self._encoder.pack(words))
        return await reply

    def note_cancelled(self, *commands: Sequence[Any]) -> None:
        """Note that commands were cancelled which may be in flight; see `must_follow`."""
        if self._cancelled_keys is not None:
            self._cancelled_keys.add(self.connection, commands)

    def must_follow(self, *commands: Sequence[Any]) -> bool:
        """Return whether commands must use this connection in order not to overtake a cancelled one."""
        return self._cancelled_keys is not None and self._cancelled_keys.cover(self.connection, commands)

    def drop_unless_at(self, host: str, port: int) -> bool:
        """Close the present connection unless it goes to this address; return whether it was closed."""
        endpoint = self._endpoint

        if endpoint is None or not self._up or (endpoint.host, endpoint.port) == (host, port):
            return False

        self.drop(f"the master is {host}:{port} now")
        return True

    def drop(self, reason: str) -> None:
        """Close the present connection, so that another is opened."""
        if self._up:
            self.connection.kill(reason)

    async def log_in(self, login: Login) -> None:
        """Log the present connection in again, between the commands in flight; raise when that is refused."""
        connection = self.connection

        if not self._up or (connection.login is not None and connection.login.number >= login.number):
            return  # it will log in with the handshake, or has done so

        before, connection.login = connection.login, login
        reply: asyncio.Future[Any] = self._loop.create_future()
        connection.send(reply, self._encoder.pack(("AUTH", *login.words)))

        try:
            await reply
        except ConnectionLost:
            pass  # the next one logs in by itself
        except BaseException:
            connection.login = before
            raise

    def return_queued(self, reason: str) -> None:
        """Fail all queued commands as unsent, so that their senders try another node."""
        self._fail_queue(lambda: ConnectionLost(reason, sent=False))

    # What the connection calls ----------------------------------------------------------------

    def on_room(self, connection: PipelinedConnection) -> None:
        """Send queued commands as far as there is room, first in, first out."""
        if connection is not self.connection or not self._up:
            return

        if self._closed:
            if not connection.pending and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return

        # As long as a command is queued, the connection's limit stays 0: a new command then goes to the
        # queue as well, even if there is room by now, and does not overtake those that came before.
        queue = self._queue

        while (queued := queue.head()) is not None and connection.has_room(queued.count):
            queue.popleft()
            self._wait_times.record(max(0.0, self._loop.time() - queued.since))
            self._send(connection, queued.reply, queued.data, queued.count, raw=queued.raw)

        connection.open(full=len(queue) > 0)

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None:
        """Reconnect, and let queued commands wait for that."""
        if connection is not self.connection or not self._up:
            return

        self._up = False
        self._losses += 1
        self._past_commands += connection.answered
        self._past_dropped += connection.dropped
        self._on_down(connection)

        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

        if self._closed:
            return

        self._down_since = self._loop.time()
        # A server that accepts and closes at once (a proxy without a backend, maxclients) is not hammered:
        # only a connection that has served a command, or lived for a while, is replaced without a pause.
        served = (
            connection.answered > self._handshake_replies
            or self._down_since - self._up_since >= self._limits.backoff[1]
        )
        self._fruitless = 0 if served else self._fruitless + 1
        self._reason = reason
        _logger.warning("redis pool %r lost its connection to %s: %s", self._name, self._endpoint, reason)
        self._queue.shorten_deadlines(self._down_since + self._limits.outage_timeout)
        self._set_timer()
        self._reconnect()

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None:
        """Pass a push message on."""
        if connection is self.connection:
            self._on_push(message)

    # Inside -----------------------------------------------------------------------------------

    @staticmethod
    def _send(
        connection: PipelinedConnection, reply: PendingReply, data: bytes, count: int, *, raw: bool
    ) -> None:
        if raw:
            connection.send_raw(reply, data, count)
        elif count == 1:
            connection.send(reply, data)
        else:
            connection.send_many(reply, count, data)

    def _enqueue(self, reply: PendingReply, data: bytes, count: int, *, raw: bool) -> None:
        # One queue for two reasons to wait, so that both look the same to a caller: the connection is
        # full (the command waits for room, at most queue_timeout), or there is none (it waits for a
        # reconnect, until outage_timeout has passed since the loss). A queued command was never sent: it
        # may be cancelled, fail or go to another node without any doubt about its execution.
        self.check()
        limits, now = self._limits, self._loop.time()
        deadline = now + limits.queue_timeout if self._up else self._down_since + limits.outage_timeout
        self._queue.append(QueuedCommand(reply, data, count, raw, now, deadline))
        self.connection.limit = 0

        if self._timer is None:
            self._set_timer()

        if self._pressure.due(len(self._queue), now=now):
            _logger.warning(
                "redis pool %r is nearly exhausted: %d of %d commands queued before its shared connection",
                self._name,
                len(self._queue),
                limits.max_queue,
            )

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

        deadline = self._queue.next_deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fail the queued commands whose deadline has come."""
        self._timer = None

        for queued in self._queue.expire(self._loop.time()):
            if self._up:
                self._timeouts += 1
                queued.reply.set_exception(self._no_room(f"waited {self._limits.queue_timeout:g} s"))
            else:
                queued.reply.set_exception(self._unavailable(self._reason))

        self._set_timer()

        if self._up and not len(self._queue):
            self.connection.open()

    def _fail_queue(self, error: Callable[[], Exception]) -> None:
        for queued in self._queue.drain():
            queued.reply.set_exception(error())

        self._set_timer()

    def _new_connection(self) -> PipelinedConnection:
        return PipelinedConnection(self, self._limits, encoding=self._encoding, errors=self._errors)

    async def _connect(self) -> None:
        connection, began = self._new_connection(), self._loop.time()
        self._endpoint = await self._resolve()
        await connect(self._endpoint, connection, self._encoder, timeout=self._limits.connect_timeout)

        if connection.closed:
            raise ConnectionLost("the connection was lost right after the handshake", sent=False)

        if self._closed:
            connection.kill("the pool was closed")
            raise ConnectionLost("the pool was closed meanwhile", sent=False)

        self._on_up(connection)
        self.connection = connection
        self._up = True
        self._up_since = self._loop.time()
        self._handshake_replies = connection.answered
        self._connects += 1
        self._create_times.record(self._up_since - began)
        self._reason = ""
        self.on_room(connection)
        self._queue.extend_deadlines(self._up_since + self._limits.queue_timeout)  # the others wait for room

    def _reconnect(self) -> None:
        self._connecting = self._loop.create_task(self._keep_connecting(), name=f"ws-pool redis {self._name}")

    async def _keep_connecting(self) -> None:
        failures = self._fruitless

        while not self._closed:
            if failures:
                await asyncio.sleep(backoff.delay(failures, *self._limits.backoff))

            try:
                await self._connect()
            except (OSError, TimeoutError, RedisError, ConnectionLost, WsError) as error:
                self._reason = _why(error)
            except Exception as error:  # a failing resolver or credentials callable must not end the attempts
                self._reason = _why(error)
                _logger.exception("redis pool %r cannot connect", self._name)
            else:
                _logger.info("redis pool %r is connected to %s again", self._name, self._endpoint)
                return

            failures += 1

    def _unavailable(self, reason: str) -> UnavailableError:
        where = f" at {self._endpoint}" if self._endpoint is not None else ""
        return UnavailableError(
            f"redis pool {self._name!r} cannot reach its server{where}: {reason}",
            pool=self._name,
            reason=reason,
        )

    def _no_room(self, what: str) -> AcquireTimeout:
        pending, queued = len(self.connection.pending), len(self._queue)
        return AcquireTimeout(
            f"redis pool {self._name!r} has no room for another command"
            f" ({what}; {pending} pending, {queued} queued): call less at once, or raise max_pending",
            pool=self._name,
            pending=pending,
            queued=queued,
        )

    def statistics(self) -> ConnectionStatistics:
        """Return a frozen snapshot."""
        connection = self.connection
        live = 0 if connection.closed else 1
        return ConnectionStatistics(
            endpoint=str(self._endpoint or ""),
            connected=self._up,
            in_line=len(connection.pending),
            in_flight=connection.in_flight,
            queued=len(self._queue),
            bytes_in_line=connection.heavy + self._queue.bytes,
            commands=self._past_commands + connection.answered * live,
            dropped=self._past_dropped + connection.dropped * live,
            connects=self._connects,
            losses=self._losses,
            down="" if self._up else self._reason,
            timeouts=self._timeouts,
            create_time=self._create_times.snapshot(),
            wait_time=self._wait_times.snapshot(),
        )


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"

    if isinstance(error, AuthenticationError):
        return f"the server refused the credentials ({error})"

    return describe(error)
