"""One shared connection over its whole life: the present link, the queue in front of it, reconnects.

Everything that decides is synchronous: a command either goes to the link at once, or into a FIFO
queue in front of it. The queue is what makes back-pressure (the link is full) and short outages
(there is no link) look the same to the caller: the command waits its turn, with a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import AuthenticationError, RedisError

from ws_pool._core.background import cancel_and_wait
from ws_pool._core.statistics import HistogramBuilder
from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, connect
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import CommandQueue, Limits, QueuedCommand, QueuePressure
from ws_pool._redis.connection.replies import PendingReply
from ws_pool._redis.errors import AcquireTimeout, ConnectionLost, UnavailableError
from ws_pool._redis.statistics import ConnectionStatistics
from ws_pool.errors import ClosedError, WsError

__all__ = ("ReconnectingConnection",)

_logger: Final = logging.getLogger("ws_pool.redis")
_SWEEP_PAUSE: Final = 0.01  # seconds between two searches of a full queue for those who have gone


class ReconnectingConnection:
    """
    A shared connection that comes back by itself.

    Args:
        name: The pool's name, for messages.
        resolve: Gives the endpoint for the next connect.
        packer: Packs greetings.
        limits: Bounds.
        encoding: To decode replies with, or None to leave them bytes.
        errors: What to do with bytes that can't be decoded.
        on_push: Gets RESP3 push messages.
        on_up: Called with each new link before anybody may use it.
        on_down: Called with each lost link.
        jitter: Gives random numbers between 0 and 1.
        several: Whether there are other lanes to the same server.
    """

    def __init__(  # noqa: PLR0913 - made in two places only, always by name
        self,
        name: str,
        resolve: Callable[[], Awaitable[Endpoint]],
        packer: CommandEncoder,
        limits: Limits,
        *,
        encoding: str | None = None,
        errors: str = "strict",
        on_push: Callable[[list[Any]], None] = lambda _: None,
        on_up: Callable[[PipelinedConnection], None] = lambda _: None,
        on_down: Callable[[PipelinedConnection], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
        several: bool = False,
    ) -> None:
        self._name = name
        self._resolve = resolve
        self._packer = packer
        self._limits = limits
        self._encoding = encoding
        self._errors = errors
        self._on_push = on_push
        self._on_up = on_up
        self._on_down = on_down
        self._jitter = jitter
        self._abandoned = CancelledKeys(packer.encode) if several else None

        self._loop = asyncio.get_running_loop()
        self.link: PipelinedConnection = (
            self._new_link()
        )  # never None: a link that is not open refuses by its limit of 0
        self.link.closed = True
        self._up = False
        self._closed = False
        self._down_since = self._up_since = self._loop.time()
        self._greeted = 0  # replies to the greeting of the present link
        self._fruitless = 0  # links in a row that were lost at once, and had served nobody
        self._reason = "not connected yet"
        self._queue = CommandQueue(limits.max_queue, limits.max_bytes)
        self._low_water = QueuePressure(limits.max_queue)
        self._sweep_at = 0.0  # not before, because it takes as long as the queue is
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None
        self._connects = self._losses = self._past_commands = self._past_dropped = self._timeouts = 0
        self._create_times, self._wait_times = HistogramBuilder(), HistogramBuilder()
        self._idle: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<ReconnectingConnection {self._name!r} {self._endpoint}: {self.link!r}>"

    @property
    def connected(self) -> bool:
        """Whether there is a link."""
        return self._up

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the last link went to."""
        return self._endpoint

    async def start(self) -> None:
        """
        Open the first link.

        Raises:
            UnavailableError: The server can't be reached or refused the greeting.
        """
        try:
            await self._connect()
        except (OSError, TimeoutError, RedisError, ConnectionLost, WsError) as error:
            raise self._unavailable(_why(error)) from error

    def start_soon(self) -> None:
        """Open the first link in the background; commands wait for it as in an outage."""
        self._down_since = self._loop.time()
        self._reconnect()

    async def close(self, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Take no more commands, wait for the replies that are due, and close.

        Args:
            timeout: Seconds to wait for replies; what is still due then gets `MaybeExecuted`.
        """
        if self._closed:
            return

        self._closed = True
        self._fail_queue(lambda: ClosedError(f"redis pool {self._name!r} was closed", pool=self._name))

        if self._connecting is not None:
            await cancel_and_wait(self._connecting)

        link = self.link
        link.limit = 0

        if link.pending and not link.closed:
            self._idle = self._loop.create_future()

            try:
                async with asyncio.timeout(timeout):
                    await self._idle
            except TimeoutError:
                _logger.warning("redis pool %r closed with %d replies due", self._name, len(link.pending))
            finally:
                link.kill("the pool was closed")
        else:
            link.kill("the pool was closed")

    # What senders call ------------------------------------------------------------------------

    def check_reachable(self) -> None:
        """
        Make sure that it is worth waiting for the server.

        Raises:
            ClosedError: The lane was closed.
            UnavailableError: The server has been gone for too long.
        """
        if self._closed:
            raise ClosedError(f"redis pool {self._name!r} is closed", pool=self._name)

        if not self._up and self._down_since + self._limits.outage_timeout <= self._loop.time():
            raise self._unavailable(self._reason)

    def check(self) -> None:
        """
        Make sure that another command may at least be queued.

        Raises:
            ClosedError: The lane was closed.
            UnavailableError: The server has been gone for too long.
            AcquireTimeout: The queue is full.
        """
        self.check_reachable()

        if self._queue.full and not self.link.limit:
            now = self._loop.time()

            if now >= self._sweep_at:
                self._queue.sweep()
                self._sweep_at = now + _SWEEP_PAUSE

            if self._queue.full:
                self._timeouts += 1
                raise self._no_room("its queue is full")

    def submit(self, slot: PendingReply, data: bytes, *, count: int = 1, raw: bool = False) -> None:
        """
        Send commands, or queue them when the link is full or gone.

        Args:
            slot: Gets the replies, or the error.
            data: Bytes of the commands.
            count: How many commands the bytes hold.
            raw: Leave the reply bytes.
        """
        link = self.link

        if len(link.pending) + count <= link.limit or (link.limit and not link.pending):
            self._send(link, slot, data, count, raw=raw)
        else:
            self._enqueue(slot, data, count, raw=raw)

    def abandon(self, *commands: Sequence[Any]) -> None:
        """
        Hear that commands were cancelled that may be under way; see `must_follow`.

        Args:
            *commands: The commands.
        """
        if self._abandoned is not None:
            self._abandoned.add(self.link, commands)

    def must_follow(self, *commands: Sequence[Any]) -> bool:
        """
        Tell whether commands must take this lane, so that they don't overtake a cancelled one.

        Args:
            *commands: The commands.

        Returns:
            Whether they must; never when there is only one lane.
        """
        return self._abandoned is not None and self._abandoned.concern(self.link, commands)

    def leave(self, host: str, port: int) -> bool:
        """
        Drop the present link unless it goes to an address.

        Args:
            host: Where it should go to.
            port: Where it should go to.

        Returns:
            Whether it was dropped.
        """
        endpoint = self._endpoint

        if endpoint is None or not self._up or (endpoint.host, endpoint.port) == (host, port):
            return False

        self.drop_link(f"the master is {host}:{port} now")
        return True

    def drop_link(self, reason: str) -> None:
        """
        Drop the present link, so that another is opened.

        Args:
            reason: Why, for people.
        """
        if self._up:
            self.link.kill(reason)

    def send_back(self, reason: str) -> None:
        """
        Give up what is queued as unsent, so that its senders take it elsewhere.

        Args:
            reason: Why, for people.
        """
        self._fail_queue(lambda: ConnectionLost(reason, sent=False))

    # What the link calls ----------------------------------------------------------------------

    def link_has_room(self, link: PipelinedConnection) -> None:
        """Let the queue on, first come first served."""
        if link is not self.link or not self._up:
            return

        if self._closed:
            if not link.pending and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return

        queue = self._queue

        while (waiting := queue.head()) is not None and link.has_room(waiting.count):
            queue.popleft()
            self._wait_times.record(max(0.0, self._loop.time() - waiting.since))
            self._send(link, waiting.slot, waiting.data, waiting.count, raw=waiting.raw)

        link.open(full=len(queue) > 0)

    def link_lost(self, link: PipelinedConnection, reason: str) -> None:
        """Open another link."""
        if link is not self.link or not self._up:
            return

        self._up = False
        self._losses += 1
        self._past_commands += link.answered
        self._past_dropped += link.dropped
        self._on_down(link)

        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

        if self._closed:
            return

        self._down_since = self._loop.time()
        served = link.answered > self._greeted or self._down_since - self._up_since >= self._limits.backoff[1]
        self._fruitless = 0 if served else self._fruitless + 1
        self._reason = reason
        _logger.warning("redis pool %r lost its connection to %s: %s", self._name, self._endpoint, reason)
        self._queue.hasten(self._down_since + self._limits.outage_timeout)
        self._set_timer()
        self._reconnect()

    def link_pushed(self, link: PipelinedConnection, message: list[Any]) -> None:
        """Hand a push message on."""
        if link is self.link:
            self._on_push(message)

    # Inside -----------------------------------------------------------------------------------

    @staticmethod
    def _send(link: PipelinedConnection, slot: PendingReply, data: bytes, count: int, *, raw: bool) -> None:
        if raw:
            link.send_raw(slot, data)
        elif count == 1:
            link.send(slot, data)
        else:
            link.send_many(slot, count, data)

    def _enqueue(self, slot: PendingReply, data: bytes, count: int, *, raw: bool) -> None:
        self.check()
        limits, now = self._limits, self._loop.time()
        deadline = now + limits.queue_timeout if self._up else self._down_since + limits.outage_timeout
        self._queue.append(QueuedCommand(slot, data, count, raw, now, deadline))
        self.link.limit = 0

        if self._timer is None:
            self._set_timer()

        if self._low_water.due(len(self._queue), now=now):
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
        """Fail those whose deadline has come."""
        self._timer = None

        for waiting in self._queue.expire(self._loop.time()):
            if self._up:
                self._timeouts += 1
                waiting.slot.set_exception(self._no_room(f"waited {self._limits.queue_timeout:g} s"))
            else:
                waiting.slot.set_exception(self._unavailable(self._reason))

        self._set_timer()

        if self._up and not len(self._queue):
            self.link.open()

    def _fail_queue(self, error: Callable[[], Exception]) -> None:
        for waiting in self._queue.drain():
            waiting.slot.set_exception(error())

        self._set_timer()

    def _new_link(self) -> PipelinedConnection:
        return PipelinedConnection(self, self._limits, encoding=self._encoding, errors=self._errors)

    async def _connect(self) -> None:
        link, began = self._new_link(), self._loop.time()
        self._endpoint = await self._resolve()
        await connect(self._endpoint, link, self._packer, timeout=self._limits.connect_timeout)

        if link.closed:
            raise ConnectionLost("the connection was lost right after the greeting", sent=False)

        if self._closed:
            link.kill("the pool was closed")
            raise ConnectionLost("the pool was closed meanwhile", sent=False)

        self._on_up(link)
        self.link = link
        self._up = True
        self._up_since = self._loop.time()
        self._greeted = link.answered
        self._connects += 1
        self._create_times.record(self._up_since - began)
        self._reason = ""
        self.link_has_room(link)
        self._queue.postpone(self._up_since + self._limits.queue_timeout)  # the rest waits for room

    def _reconnect(self) -> None:
        self._connecting = self._loop.create_task(self._keep_connecting(), name=f"ws-pool redis {self._name}")

    async def _keep_connecting(self) -> None:
        failures = self._fruitless

        while not self._closed:
            if failures:
                await asyncio.sleep(self._pause(failures))

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

    def _pause(self, failures: int) -> float:
        """Give the seconds until the next attempt: doubled with each, with up to half of them left out."""
        shortest, longest = self._limits.backoff
        return min(longest, shortest * 2.0 ** min(failures - 1, 30)) * (0.5 + 0.5 * self._jitter())

    def _unavailable(self, reason: str) -> UnavailableError:
        where = f" at {self._endpoint}" if self._endpoint is not None else ""
        return UnavailableError(
            f"redis pool {self._name!r} cannot reach its server{where}: {reason}",
            pool=self._name,
            reason=reason,
        )

    def _no_room(self, what: str) -> AcquireTimeout:
        line, queued = len(self.link.pending), len(self._queue)
        return AcquireTimeout(
            f"redis pool {self._name!r} has no room for another command"
            f" ({what}; {line} in line, {queued} queued): call less at once, or raise max_pending",
            pool=self._name,
            in_line=line,
            queued=queued,
        )

    def statistics(self) -> ConnectionStatistics:
        """Freeze the present state."""
        link = self.link
        live = 0 if link.closed else 1
        return ConnectionStatistics(
            endpoint=str(self._endpoint or ""),
            connected=self._up,
            in_line=len(link.pending),
            in_flight=link.in_flight,
            queued=len(self._queue),
            bytes_in_line=link.heavy + self._queue.bytes,
            commands=self._past_commands + link.answered * live,
            dropped=self._past_dropped + link.dropped * live,
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

    return str(error) or type(error).__name__
