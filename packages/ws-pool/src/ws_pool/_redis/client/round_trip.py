"""One command on a connection of its own, and what is to be done when it is cancelled."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.commands.table import Route, block_seconds, canonical, routing_of
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.blocking import cancel_blocking
from ws_pool._redis.dedicated.connection import state_of
from ws_pool._redis.dedicated.pool import DedicatedConnections
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import WsError

__all__ = (
    "PATIENCE",
    "cancel_in_background",
    "execute_on_dedicated",
    "round_trip",
)

_logger: Final = logging.getLogger("ws_pool.redis")
PATIENCE: Final = 0.25  # seconds that a cancellation may be held up to end a blocking command
_WAITS: Final = frozenset({"WAIT", "WAITAOF"})
_WRITE: Final = ("PUBLISH", "ws-pool:wait", "")
"""WAIT waits for what its own connection has written; this comes after all that was answered on others."""


async def execute_on_dedicated(  # noqa: PLR0913, PLR0917 - two call sites' whole state
    client: Redis,
    core: ClientContext,
    leases: DedicatedConnections,
    lane: ReconnectingConnection,
    args: Sequence[Any],
    options: dict[str, Any],
    *,
    asking: bool = False,
) -> Any:
    """
    Execute a command on a connection that is lent for it.

    Args:
        client: Its response callbacks are used.
        core: What the pool's clients share.
        leases: Lends the connection.
        lane: The shared connection to the same server, over which a blocking command is ended.
        args: The command.
        options: Of the response callback.
        asking: Say first that the key's slot is on its way to this node.

    Returns:
        The parsed reply.

    Raises:
        MaybeExecuted: The connection was lost, or the reply did not come in time.
        UnavailableError: The server is gone.
        AcquireTimeout: No connection was free in time.
    """
    route = routing_of(args)
    connection = await leases.get_connection()
    state = state_of(connection)
    ending: asyncio.Task[None] | None = None

    try:
        if canonical(args) in _WAITS:
            await round_trip(client, core, connection, _WRITE, {})

        if asking:
            await round_trip(client, core, connection, ("ASKING",), {})

        reply = await round_trip(client, core, connection, args, options)
        state.clean = True
    except driver.ResponseError:
        state.clean = True
        raise
    except asyncio.CancelledError:
        if route is Route.BLOCKING and connection.is_connected:
            ending = cancel_in_background(core, lane, connection, args)
            ending.add_done_callback(lambda _: leases.take_back(connection))
            await asyncio.wait([ending], timeout=PATIENCE)

        raise
    else:
        return reply
    finally:
        state.spoiled |= route is Route.SESSION

        if ending is None:
            leases.take_back(connection)


def cancel_in_background(
    core: ClientContext, lane: ReconnectingConnection, connection: AbstractConnection, args: Sequence[Any]
) -> asyncio.Task[None]:
    """
    End a cancelled blocking command: at the server, and undo what it did.

    Args:
        core: What the pool's clients share.
        lane: The shared connection to the same server.
        connection: Where the command was sent; it is closed if that cannot be done.
        args: The command.

    Returns:
        The task that does it; it never raises.
    """
    pack, state = core.packer.pack, state_of(connection)

    async def ask(command: Sequence[Any]) -> Any:
        slot = core.loop.create_future()
        lane.submit(slot, pack(command))
        return await slot

    async def end() -> None:
        try:
            if first is None:
                raise driver.NoPermissionError("CLIENT ID is forbidden, so it cannot be unblocked")

            async with asyncio.timeout(core.command_timeout):
                state.clean = await cancel_blocking(connection, args, state.client_id, ask, first)
        except (driver.RedisError, WsError, ConnectionLost, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            _logger.warning("redis pool %r closes a blocked connection: %s", core.name, error)
        finally:
            state.spoiled |= not state.clean

    # Sent before anything that the cancelled task sends next, so that this finds the waiter gone.
    first = asyncio.ensure_future(ask(("CLIENT", "UNBLOCK", state.client_id))) if state.client_id else None
    task = core.loop.create_task(end())
    core.settling.add(task)
    task.add_done_callback(core.settling.discard)
    return task


async def round_trip(
    client: Redis,
    core: ClientContext,
    connection: AbstractConnection,
    args: Sequence[Any],
    options: dict[str, Any],
) -> Any:
    """
    Send a command over a connection of redis-py and parse its reply.

    Args:
        client: Its response callbacks are used.
        core: Names the pool in errors.
        connection: The connection; it is closed when the exchange is cut short.
        args: The command.
        options: Of the response callback.

    Returns:
        The parsed reply.

    Raises:
        MaybeExecuted: The connection was lost, or the reply did not come in time.
    """
    route = routing_of(args)
    waits = block_seconds(args) if route is Route.BLOCKING else 0.0
    limit = None if waits is None or canonical(args) == "MONITOR" else waits + core.command_timeout

    try:
        async with asyncio.timeout(limit):
            if route is Route.BLOCKING:
                return await _exchange_blocking(client, connection, args, options)

            return await client._send_command_parse_response(connection, args[0], *args, **options)  # noqa: SLF001 - redis-py's seam
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise core.lost(args, f"no reply within {limit:g} s") from None
    except (driver.BusyLoadingError, driver.AuthenticationError):
        raise  # these are replies, although redis-py takes them for lost connections
    except (driver.ConnectionError, driver.TimeoutError) as error:
        raise core.lost(args, str(error)) from error


async def _exchange_blocking(
    client: Redis, connection: AbstractConnection, args: Sequence[Any], options: dict[str, Any]
) -> Any:
    """Do the same, but keep the connection open on cancellation: `cancel_blocking` reads the reply."""
    await connection.send_command(*args)
    raw = options.pop(NEVER_DECODE, None) is not None
    options.pop("keys", None)

    try:
        reply = await connection.read_response(disable_decoding=raw, disconnect_on_error=False)
    except driver.ResponseError:
        if EMPTY_RESPONSE in options:
            return options[EMPTY_RESPONSE]
        raise

    options.pop(EMPTY_RESPONSE, None)
    callback = client.response_callbacks.get(args[0])
    result = reply if callback is None else callback(reply, **options)
    return await result if inspect.isawaitable(result) else result
