"""One command on a connection of its own, and what is to be done when it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from ws_pool._mux._blocking import settle
from ws_pool._mux._commands import Route, canonical, route_of
from ws_pool._mux._connections import state_of
from ws_pool._mux._core import Core
from ws_pool._mux._errors import LinkLost
from ws_pool._mux._exchange import exchange
from ws_pool._mux._lane import Lane
from ws_pool._mux._leases import LeasePool
from ws_pool.errors import WsError

__all__ = ("PATIENCE", "begin_to_end", "execute_leased")

_logger: Final = logging.getLogger("ws_pool.redis")
PATIENCE: Final = 0.25  # seconds that a cancellation may be held up to end a blocking command
_WAITS: Final = frozenset({"WAIT", "WAITAOF"})
_WRITE: Final = ("PUBLISH", "ws-pool:wait", "")
"""WAIT waits for what its own connection has written; this comes after all that was answered on others."""


async def execute_leased(  # noqa: PLR0913, PLR0917 - two call sites' whole state
    client: Redis,
    core: Core,
    leases: LeasePool,
    lane: Lane,
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
    route = route_of(args)
    connection = await leases.get_connection()
    state = state_of(connection)
    ending: asyncio.Task[None] | None = None

    try:
        if canonical(args) in _WAITS:
            await exchange(client, core, connection, _WRITE, {})

        if asking:
            await exchange(client, core, connection, ("ASKING",), {})

        reply = await exchange(client, core, connection, args, options)
        state.clean = True
    except driver.ResponseError:
        state.clean = True
        raise
    except asyncio.CancelledError:
        if route is Route.BLOCKING and connection.is_connected:
            ending = begin_to_end(core, lane, connection, args)
            ending.add_done_callback(lambda _: leases.take_back(connection))
            await asyncio.wait([ending], timeout=PATIENCE)

        raise
    else:
        return reply
    finally:
        state.spoiled |= route is Route.SESSION

        if ending is None:
            leases.take_back(connection)


def begin_to_end(
    core: Core, lane: Lane, connection: AbstractConnection, args: Sequence[Any]
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
                state.clean = await settle(connection, args, state.client_id, ask, first)
        except (driver.RedisError, WsError, LinkLost, OSError, TimeoutError) as error:
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
