"""redis-py's typed client on a connection of its own."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Monitor, PubSub
from redis.asyncio.connection import AbstractConnection

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.round_trip import PATIENCE, cancel_in_background, round_trip
from ws_pool._redis.commands.table import Route, canonical, routing_of
from ws_pool._redis.dedicated.connection import lost_session, state_of
from ws_pool._redis.dedicated.pool import DedicatedConnections, SingleConnectionPool

__all__ = (
    "DedicatedPubSub",
    "DedicatedRedis",
)

_QUEUEING: Final = {"MULTI": True, "EXEC": False, "DISCARD": False, "RESET": False}


class DedicatedRedis(Redis):
    """
    A `redis.asyncio.Redis` with a connection of its own: its session is yours.

    Made by ``RedisPool.get_client(alone=True)``. What changes the session (SELECT, CLIENT TRACKING
    and the like) is fine here; such a connection is closed afterwards, others are kept. When the
    connection is lost, or closed because a command on it was cancelled, the session is over: every
    command then raises `ws_pool.errors.UnavailableError`. A blocking command that is cancelled is
    ended at the server, and the session goes on.
    """

    def __init__(
        self,
        core: ClientContext,
        *,
        connection_pool: DedicatedConnections | SingleConnectionPool,
        callbacks: MutableMapping[Any, Any],
    ) -> None:
        super().__init__(
            connection_pool=connection_pool,
            single_connection_client=isinstance(connection_pool, DedicatedConnections),
        )
        self._core = core
        self.response_callbacks = callbacks
        self._queueing = False  # between MULTI and EXEC, where nothing blocks

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command on this client's connection; see `SharedRedis.execute_command` for errors."""
        if self.single_connection_client:
            await self.initialize()
            assert self.connection is not None  # noqa: S101 - initialize() has taken one

            async with self._single_conn_lock:
                state_of(self.connection).alone = True

                if not self.connection.is_connected:
                    raise lost_session()

                return await self._exchange(self.connection, args, options)

        connection = await self.connection_pool.get_connection()

        try:
            return await self._exchange(connection, args, options)
        finally:
            await self.connection_pool.release(connection)

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub; it takes another connection, for a subscribed one can do nothing else."""
        return DedicatedPubSub(self._core.leases, **options)

    def monitor(self) -> Monitor:
        """Make a Monitor; it takes another connection, for a monitoring one can do nothing else."""
        return Monitor(self._core.leases)

    async def _exchange(
        self, connection: AbstractConnection, args: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        route, state = routing_of(args), state_of(connection)
        self._queueing = _QUEUEING.get(canonical(args), self._queueing)

        if route is Route.SESSION:
            state.spoiled = True

        try:
            return await round_trip(self, self._core, connection, args, options)
        except asyncio.CancelledError:
            state.clean = False

            try:
                if route is Route.BLOCKING and connection.is_connected and not self._queueing:
                    await asyncio.wait(
                        [cancel_in_background(self._core, self._core.pick(args), connection, args)],
                        timeout=PATIENCE,
                    )
            finally:
                if not state.clean:
                    await connection.disconnect(nowait=True)

            raise


class DedicatedPubSub(PubSub):
    """
    A PubSub whose connection comes back even when it was forgotten.

    Args:
        leases: Lends the connection, at the first subscription.
        **options: Of redis-py's PubSub.
    """

    def __init__(self, leases: DedicatedConnections, **options: Any) -> None:  # Any: redis-py's own signature
        super().__init__(leases, **options)
        self._leases = leases

    def __del__(self) -> None:
        """Warn of a connection that was kept; the loop takes it back."""
        connection = getattr(self, "connection", None)

        if connection is None:
            return

        super().__del__()  # type: ignore[no-untyped-call]  # redis-py's

        if self._leases.abandon(connection):
            message = (
                "a PubSub was not closed and kept its connection: await its aclose(), or use `async with`"
            )
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)
