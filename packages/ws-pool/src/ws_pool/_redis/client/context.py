"""What the clients of one pool share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ws_pool._redis.commands.table import canonical
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.pool import DedicatedConnections
from ws_pool._redis.errors import MaybeExecuted, UnavailableError

__all__ = ("BatchSender", "ClientContext")


@dataclass(slots=True)
class ClientContext:
    """
    What all clients of a pool share.

    Args:
        name: The pool's name, for messages.
        loop: The loop the pool belongs to.
        packer: Packs commands.
        lane: The shared connection, when there is just one.
        pick: Chooses the shared connection for a command, when there are several.
        leases: Lends connections of their own.
        options: redis-py's connection options.
        decodes: Whether replies are text.
        command_timeout: Seconds a server may take over a command, its own waiting not counted.
        follow_master: Whether a READONLY error means that the master has moved.
        lanes: All shared connections to the server.
        settling: Tasks that end cancelled blocking commands.
    """

    name: str
    loop: asyncio.AbstractEventLoop
    packer: CommandEncoder
    lane: ReconnectingConnection | None
    pick: Callable[..., ReconnectingConnection]
    leases: DedicatedConnections
    options: dict[str, Any]
    decodes: bool
    command_timeout: float
    follow_master: bool = False
    lanes: Sequence[ReconnectingConnection] = ()
    settling: set[asyncio.Task[None]] = field(default_factory=set)

    def lost(self, args: Sequence[object], reason: str) -> MaybeExecuted:
        """Build the error for a command whose reply never came."""
        command = canonical(args)
        return MaybeExecuted(
            f"redis pool {self.name!r} lost its connection before the reply to {command} ({reason}): it may"
            " or may not have been executed; repeat it only if that does no harm, or ask for"
            ' retry="at_least_once"',
            pool=self.name,
            command=command,
            reason=reason,
        )

    def unsent(self, args: Sequence[object], reason: str) -> UnavailableError:
        """Build the error for a command that could not be sent."""
        command = canonical(args)
        return UnavailableError(
            f"redis pool {self.name!r} could not send {command}: {reason}",
            pool=self.name,
            command=command,
            reason=reason,
        )


class BatchSender(Protocol):
    """What a pipeline needs of its client, so that the two modules do not import each other."""

    @property
    def decodes(self) -> bool:
        """Whether replies are text."""
        ...

    async def send_batch(self, commands: Sequence[Sequence[Any]], /) -> list[Any]:
        """Send commands as one piece and return their raw replies, errors among them."""
        ...

    def script_exists(self, *args: str) -> Awaitable[list[bool]]:
        """Return for each SHA whether the server knows the script."""
        ...

    def script_load(self, script: Any, /) -> Awaitable[str]:
        """Load a script and return its SHA."""
        ...

    def forget(self, commands: Sequence[Sequence[Any]], /) -> None:
        """Drop cached replies that commands may change."""

    def lost(self, args: Sequence[object], reason: str, /) -> MaybeExecuted:
        """Build the error for a command whose reply never came."""
        ...
