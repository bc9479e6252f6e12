"""redis-py's typed client on a dedicated connection."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Monitor, Pipeline, PubSub
from redis.asyncio.connection import AbstractConnection

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.instrumented import execute_instrumented, observed, original_method
from ws_pool._redis.client.pipeline import PrefixedPipeline
from ws_pool._redis.client.round_trip import CANCEL_TIMEOUT, cancel_in_background, round_trip
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.commands.table import Route
from ws_pool._redis.dedicated.connection import prepare_session, state_of
from ws_pool._redis.dedicated.pool import DedicatedConnections, SingleConnectionPool

_QUEUEING: Final = {"MULTI": True, "EXEC": False, "DISCARD": False, "RESET": False}


class DedicatedRedis(Redis):
    """
    A `redis.asyncio.Redis` with a dedicated connection, whose session only this client uses.

    Made by ``RedisPool.get_client(alone=True)``. What changes the session (SELECT, CLIENT TRACKING
    and the like) is fine here; such a connection is closed afterwards, others are kept. When the
    connection is lost, or closed because a command on it was cancelled, the session is over: every
    command then raises `ws_pool.errors.UnavailableError`. A blocking command that is cancelled is
    ended at the server, and the session goes on.
    """

    def __init__(
        self,
        context: ClientContext,
        *,
        connection_pool: DedicatedConnections | SingleConnectionPool,
        callbacks: MutableMapping[Any, Any],
    ) -> None:
        super().__init__(
            connection_pool=connection_pool,
            single_connection_client=isinstance(connection_pool, DedicatedConnections),
        )
        self._context = context
        self.response_callbacks = callbacks
        self._method = original_method() if context.on_command is None else None

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command on this client's connection; errors as of `SharedRedis.execute_command`."""
        if self._context.prefix is not None:
            args = tuple(self._context.prefix.apply(args))

        if Redis.execute_command is not self._method:
            execution = execute_instrumented(self.connection_pool, self._execute, args, options)
            return await observed(self._context.on_command, Command(args).name, execution)

        return await self._execute(*args, **options)

    async def _execute(self, *args: Any, **options: Any) -> Any:
        if self.single_connection_client:
            await self.initialize()
            assert self.connection is not None

            async with self._single_conn_lock:
                state = state_of(self.connection)
                state.exclusive, state.session_lock = True, self._single_conn_lock
                await prepare_session(self.connection, self._context.command_timeout)
                return await self._round_trip(self.connection, args, options)

        connection = await self.connection_pool.get_connection()

        try:
            return await self._round_trip(connection, args, options)
        finally:
            await self.connection_pool.release(connection)

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub, on another dedicated connection: a subscribed one can do nothing else."""
        return DedicatedPubSub(self._context.dedicated, self._context.prefix, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Make redis-py's own pipeline on this client's connection."""
        pipeline = PrefixedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.prefix = self._context.prefix
        return pipeline

    def monitor(self) -> Monitor:
        """Make a Monitor, on another dedicated connection: a monitoring one can do nothing else."""
        return Monitor(self._context.dedicated)

    async def _round_trip(
        self, connection: AbstractConnection, args: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        command, state = Command(args), state_of(connection)
        state.queueing = _QUEUEING.get(command.name, state.queueing)  # nothing blocks in between

        if command.route is Route.SESSION:
            state.session_changed = True

        try:
            return await round_trip(self, self._context, connection, command, options)
        except asyncio.CancelledError:
            state.clean = False

            if command.route is Route.BLOCKING and connection.is_connected and not state.queueing:
                # It goes on in the background when the server is busy; the next command waits for it.
                cancel_in_background(self._context, self._context.pick(args), connection, command)
                await state.wait_for_cancellation(CANCEL_TIMEOUT)
            else:
                await connection.disconnect(nowait=True)

            raise


class DedicatedPubSub(PubSub):
    """A PubSub whose connection is released even when it was never closed."""

    def __init__(
        self, dedicated: DedicatedConnections, prefix: KeyPrefix | None, **options: Any
    ) -> None:  # Any: redis-py's own signature
        super().__init__(dedicated, **options)
        self._dedicated = dedicated
        self._prefix = prefix

    async def execute_command(self, *args: Any) -> Any:  # Any: redis-py's own signature
        """Subscribe, unsubscribe or ping."""
        return await super().execute_command(
            *(args if self._prefix is None else self._prefix.subscription(args))
        )

    async def parse_response(self, block: bool = True, timeout: float = 0) -> Any:  # Any: as of redis-py
        """Return the next response."""
        response = await super().parse_response(block, timeout)
        return response if self._prefix is None else self._prefix.strip_message(response)

    def __del__(self) -> None:
        """Warn that the connection was not released, and let the loop release it."""
        connection = getattr(self, "connection", None)

        if connection is None:
            return

        super().__del__()  # type: ignore[no-untyped-call]  # redis-py's

        if self._dedicated.release_later(connection):
            message = (
                "a PubSub was not closed and kept its connection: await its aclose(), or use `async with`"
            )
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)
