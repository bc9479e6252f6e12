"""What the clients of one pool share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ws_pool._core.background import TaskSet
from ws_pool._redis.client.cache import CachePolicy, ClientCache
from ws_pool._redis.client.subscriptions import Subscriptions
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.pool import DedicatedConnections
from ws_pool._redis.errors import MaybeExecuted, UnavailableError


@dataclass(slots=True)
class ClientContext:
    """What all clients of a pool share."""

    name: str  # the pool's name, for messages
    loop: asyncio.AbstractEventLoop
    encoder: CommandEncoder
    shared: ReconnectingConnection | None  # the only shared connection; None when there are several
    pick: Callable[..., ReconnectingConnection]  # chooses one of several for a command
    dedicated: DedicatedConnections
    subscriptions: Subscriptions
    options: dict[str, Any]  # of redis-py's connections
    decodes: bool  # whether replies are text
    command_timeout: float  # seconds; the time that a blocking command may block is added
    follow_master: bool = False  # whether a READONLY error means that the master has moved
    shared_connections: Sequence[ReconnectingConnection] = ()
    cache: ClientCache | None = None
    cache_policy: CachePolicy | None = None
    prefix: KeyPrefix | None = None
    on_command: Callable[[str, float, BaseException | None], object] | None = None
    pick_reader: Callable[..., ReconnectingConnection] | None = None  # where replicas may be read from
    cancelling: TaskSet = field(default_factory=TaskSet)  # cancelled blocking commands

    def lost(self, command: Command, reason: str) -> MaybeExecuted:
        """Build the error for a command whose reply never came."""
        return MaybeExecuted(
            f"redis pool {self.name!r} lost its connection before the reply to {command.name} ({reason}):"
            " it may or may not have been executed; repeat it only if that does no harm, or ask for"
            ' retry="at_least_once"',
            pool=self.name,
            command=command.name,
            reason=reason,
        )

    def unsent(self, command: Command, reason: str) -> UnavailableError:
        """Build the error for a command that could not be sent."""
        return UnavailableError(
            f"redis pool {self.name!r} could not send {command.name}: {reason}",
            pool=self.name,
            command=command.name,
            reason=reason,
        )


class BatchSender(Protocol):
    """What a pipeline needs of its `SharedRedis`, so that the two modules do not import each other."""

    @property
    def decodes(self) -> bool: ...
    @property
    def on_command(self) -> Callable[[str, float, BaseException | None], object] | None: ...
    @property
    def key_prefix(self) -> KeyPrefix | None: ...
    async def send_batch(self, commands: Sequence[Command], /) -> list[Any]: ...
    def script_exists(self, *args: str) -> Awaitable[list[bool]]: ...
    def script_load(self, script: Any, /) -> Awaitable[str]: ...
    def forget(self, commands: Sequence[Command], /) -> None: ...
    def lost(self, command: Command, reason: str, /) -> MaybeExecuted: ...
