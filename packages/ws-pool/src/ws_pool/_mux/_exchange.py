"""One command and its reply on a connection of one's own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._mux._commands import Route, block_seconds, canonical, route_of

if TYPE_CHECKING:
    from ws_pool._mux._core import Core

__all__ = ("exchange",)


async def exchange(
    client: Redis, core: Core, connection: AbstractConnection, args: Sequence[Any], options: dict[str, Any]
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
    route = route_of(args)
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
    """Do the same, but leave the connection open when cancelled, so that `settle` can read the reply."""
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
