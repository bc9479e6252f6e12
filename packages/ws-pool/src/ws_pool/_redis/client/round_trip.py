"""One command on a dedicated connection, and what is to be done when it is cancelled."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import Route
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.blocking import UNDO_TIMEOUT, cancel_blocking, takes_items
from ws_pool._redis.dedicated.connection import address_of, state_of
from ws_pool._redis.dedicated.pool import DedicatedConnections
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import ClosedError, WsError

_logger: Final = logging.getLogger("ws_pool.redis")
CANCEL_TIMEOUT: Final = 0.25
"""Seconds that a cancellation is delayed while a blocking command is ended, which may then go on."""

_ASKING: Final = Command(("ASKING",))
_WAITS: Final = frozenset({"WAIT", "WAITAOF"})
_WRITE: Final = Command(("PUBLISH", "ws-pool:wait", ""))
"""WAIT waits for what its own connection has written; this comes after all that was answered on others."""


class Unblocked(Exception):
    """A blocking command was ended by the server, or for us: it was not executed."""

    def __init__(self, error: driver.ResponseError, seconds: float, *, for_us: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.seconds = seconds  # since it was sent
        self.for_us = for_us  # because its connection leaves a server, or has to log in again


async def execute_on_dedicated(
    client: Redis,
    context: ClientContext,
    dedicated: DedicatedConnections,
    shared: ReconnectingConnection,
    command: Command,
    options: dict[str, Any],
    *,
    asking: bool = False,
) -> Any:
    """
    Execute a command on a dedicated connection, acquired for it.

    A blocking command that is cancelled is ended over the shared connection to the same server.
    ``asking`` says that the key's hash slot is being imported by this node.
    """
    connection = await dedicated.get_connection()
    state = state_of(connection)
    state.blocking = command.route is Route.BLOCKING
    began = context.loop.time()

    try:
        if command.name in _WAITS:
            await round_trip(client, context, connection, _WRITE, {})

        if asking:
            await round_trip(client, context, connection, _ASKING, {})

        reply = await round_trip(client, context, connection, command, options)
        state.clean = True
    except driver.ResponseError as error:
        state.clean = True

        if state.blocking and _was_unblocked(error, moving=state.moving):
            if dedicated.closed:
                message = f"redis pool {context.name!r} was closed: {command.name} was not executed"
                raise ClosedError(message, pool=context.name) from None

            raise Unblocked(error, context.loop.time() - began, for_us=state.moving) from None

        raise
    except asyncio.CancelledError:
        if command.route is Route.BLOCKING and connection.is_connected:
            cancel_in_background(context, shared, connection, command)
            await state.wait_for_cancellation(CANCEL_TIMEOUT)

        raise
    else:
        return reply
    finally:
        state.session_changed |= command.route is Route.SESSION
        state.blocking = False
        dedicated.release_now(connection)


def cancel_in_background(
    context: ClientContext,
    shared: ReconnectingConnection,
    connection: AbstractConnection,
    command: Command,
) -> None:
    """End a cancelled blocking command at the server, and undo what it did; in the background."""
    state = state_of(connection)

    async def request(args: Sequence[Any]) -> Any:
        # After a fail-over the same id is another client's, at another server.
        if args[0] == "CLIENT" and _leads_elsewhere(shared, connection):
            raise driver.ConnectionError("the master has moved meanwhile")

        return await shared.request(*args)

    async def end() -> None:
        try:
            if first is None:
                raise driver.NoPermissionError("CLIENT ID is forbidden, so it cannot be unblocked")

            # Not command_timeout: a server that is busy for longer may have popped an item already.
            async with asyncio.timeout(UNDO_TIMEOUT):
                state.clean = await cancel_blocking(connection, command, state.client_id, request, first)
        except (driver.RedisError, WsError, ConnectionLost, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            _logger.warning(
                "redis pool %r closes the connection of a cancelled %s: %s%s",
                context.name,
                command.name,
                str(error) or f"not ended within {UNDO_TIMEOUT:g} s",
                f"; an item may be lost of {command.arguments!r}" if takes_items(command) else "",
            )
        finally:
            state.session_changed |= not state.clean

    # Sent before anything that the cancelled task sends next, so that this finds the waiter gone.
    first = (
        asyncio.ensure_future(request(("CLIENT", "UNBLOCK", state.client_id))) if state.client_id else None
    )
    state.cancelling = context.cancelling.spawn(end())


async def round_trip(
    client: Redis,
    context: ClientContext,
    connection: AbstractConnection,
    command: Command,
    options: dict[str, Any],
) -> Any:
    """Send a command over a connection of redis-py and parse its reply; it is closed at a timeout."""
    blocks = command.route is Route.BLOCKING
    waits = command.block_seconds if blocks else 0.0
    limit = None if waits is None or command.name == "MONITOR" else waits + context.command_timeout

    try:
        async with asyncio.timeout(limit):
            if blocks:
                return await _round_trip_blocking(client, connection, command, options)

            args = command.args
            return await client._send_command_parse_response(connection, args[0], *args, **options)
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise context.lost(command, f"no reply within {limit:g} s") from None
    except (driver.BusyLoadingError, driver.AuthenticationError):
        raise  # these are replies, although redis-py takes them for lost connections
    except (driver.ConnectionError, driver.TimeoutError) as error:
        raise context.lost(command, str(error)) from error


async def _round_trip_blocking(
    client: Redis, connection: AbstractConnection, command: Command, options: dict[str, Any]
) -> Any:
    """Do the same, but keep the connection open on cancellation: `cancel_blocking` reads the reply."""
    await connection.send_packed_command(connection.pack_command(*command.args))
    raw = options.pop(NEVER_DECODE, None) is not None
    reading = connection.read_response(disable_decoding=raw, disconnect_on_error=False)
    return await parsed(reading, client.response_callbacks.get(command.args[0]), options)


async def parsed(
    reading: Awaitable[Any], callback: Callable[..., Any] | None, options: dict[str, Any]
) -> Any:  # Any: replies, and redis-py's options of a command
    """Return a reply as its callback parses it; for a refusal, what the option EMPTY_RESPONSE has."""
    options.pop("keys", None)

    try:
        reply = await reading
    except driver.ResponseError:
        if EMPTY_RESPONSE in options:
            return options[EMPTY_RESPONSE]
        raise

    options.pop(EMPTY_RESPONSE, None)
    result = reply if callback is None else callback(reply, **options)
    return await result if inspect.isawaitable(result) else result


def _was_unblocked(error: driver.ResponseError, *, moving: bool) -> bool:
    """Return whether a blocked command was ended: for us, or because its server is a replica now."""
    text = str(error)
    return text.startswith("UNBLOCKED") and (moving or "instance state changed" in text)


def _leads_elsewhere(shared: ReconnectingConnection, connection: AbstractConnection) -> bool:
    endpoint, address = shared.endpoint, address_of(connection)
    return endpoint is not None and address is not None and (endpoint.host, endpoint.port) != address
