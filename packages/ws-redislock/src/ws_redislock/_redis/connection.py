"""How commands reach Redis in time: over the client, or one connection of its pool that all calls share.

redis-py leases a connection for every command and waits for its reply before the next. Here all
callers write to one connection as they come. The connection is made, authenticated and closed by
redis-py; `PipelinedProtocol` only sits in place of its stream protocol while it is leased.

Where the pool has no connection to spare, one is made beside it, and closed when nobody waits for a
reply.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Sequence
from typing import Any, TypeAlias, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.client import PubSub

from ws_redislock._lease.cancel_scope import cancels_so_far, raise_if_cancelled
from ws_redislock._lease.timers import Timers
from ws_redislock._redis.clients import CommandClient
from ws_redislock._redis.pipelined_protocol import PipelinedProtocol
from ws_redislock._redis.spare_connection import SpareConnections, has_room, is_small

IDLE = 10.0
"""Seconds after which an unused connection goes back to its pool."""

CONNECTING = 5.0
"""Seconds that connecting may take at first, with the driver's own repetitions; twice as long after each
time that was too short."""

LONGEST = 20.0
"""Seconds that connecting may take at most."""

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
