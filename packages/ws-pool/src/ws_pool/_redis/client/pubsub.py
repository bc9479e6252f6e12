"""redis-py's PubSub over connections that all subscribers of a pool share."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio.client import PubSub
from redis.asyncio.connection import ConnectionPool

from ws_pool._redis.client.mailbox import Kind, Mailbox, Topic
from ws_pool._redis.client.subscriptions import Subscriptions
from ws_pool._redis.commands.prefix import KeyPrefix

_KINDS: Final[dict[str, Kind]] = {"SUBSCRIBE": "", "PSUBSCRIBE": "p", "SSUBSCRIBE": "s"}


class _Connected:
    """Takes the place of the connection, which is not this PubSub's own."""

    is_connected = True
    health_check_interval = 0


class _Sharded:
    """Sharded channels for redis-py 7, whose PubSub has none; redis-py 8's own methods come first."""

    shard_channels: dict[Any, Any]  # Any: as redis-py declares its others

    async def ssubscribe(self, *channels: Any) -> None:
        self.shard_channels.update(dict.fromkeys(channels))
        await cast("PubSub", self).execute_command("SSUBSCRIBE", *channels)

    async def sunsubscribe(self, *channels: Any) -> None:
        left = self.shard_channels.keys() - channels if channels else ()
        self.shard_channels = dict.fromkeys(left)
        await cast("PubSub", self).execute_command("SUNSUBSCRIBE", *channels)


class SharedPubSub(PubSub, _Sharded):  # type: ignore[misc]  # redis-py 8's signatures differ
    """
    A PubSub whose connection is shared with others; made by ``pool.redis.pubsub()``.

    After a loss it raises one error, because messages may have been missed, and then has the
    confirmation of its new subscription as its next message. The same error comes when more than
    `MAX_UNREAD` messages were not read.
    """

    PUBLISH_MESSAGE_TYPES = ("message", "pmessage", "smessage")  # redis-py 7 does not know the last one

    def __init__(
        self,
        subscriptions: Subscriptions,
        pool: ConnectionPool,
        prefix: KeyPrefix | None,
        **options: Any,  # Any: redis-py's own signature
    ) -> None:
        super().__init__(pool, **options)
        self.shard_channels = getattr(self, "shard_channels", {})
        self._subscriptions = subscriptions
        self._prefix = prefix
        self._mailbox = Mailbox()
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Warn that it was not closed, and let the loop end its subscriptions."""
        mailbox = getattr(self, "_mailbox", None)

        if mailbox is None or not mailbox.topics:
            return

        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self._subscriptions.leave, mailbox)

            message = "a PubSub was not closed and is subscribed: await its aclose(), or use `async with`"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    @property
    def subscribed(self) -> bool:
        """Whether there are subscriptions."""
        return bool(self.channels or self.patterns or self.shard_channels)

    async def aclose(self) -> None:
        """End all subscriptions."""
        self.connection = None
        self.channels, self.patterns, self.shard_channels = {}, {}, {}
        self.pending_unsubscribe_channels, self.pending_unsubscribe_patterns = set(), set()
        self.pending_unsubscribe_shard_channels = set()
        mailbox, self._mailbox = self._mailbox, Mailbox()
        self._subscriptions.leave(mailbox)

    async def connect(self) -> None:
        """Do nothing: a connection is opened for the first subscription."""
        self.connection: Any = _Connected  # Any: as redis-py declares it

    async def execute_command(self, *args: Any) -> None:  # Any: redis-py's own signature
        """Subscribe, unsubscribe or ping."""
        await self.connect()
        name = str(args[0]).upper()

        if self._prefix is not None:
            args = tuple(self._prefix.subscription(args))

        names = [self._encoded(arg) for arg in args[1:]]

        if name == "PING":
            await self._subscriptions.ping(self._mailbox, names[0] if names else b"")
        elif name in _KINDS:
            await self._subscriptions.subscribe(
                self._mailbox, [Topic(_KINDS[name], channel) for channel in names]
            )
        else:
            kind = _KINDS[name.replace("UNSUBSCRIBE", "SUBSCRIBE")]
            chosen = names or [topic.name for topic in self._mailbox.topics if topic.kind == kind]
            self._subscriptions.unsubscribe(self._mailbox, [Topic(kind, channel) for channel in chosen])

    async def parse_response(self, block: bool = True, timeout: float = 0) -> Any:  # Any: as of redis-py
        """Return the next response, waiting for it at most ``timeout`` seconds unless ``block``."""
        if self.connection is None:
            raise RuntimeError(
                "pubsub connection not set: did you forget to call subscribe() or psubscribe()?"
            )

        response = await self._mailbox.get(None if block else timeout or 0)
        return None if response is None else self._decoded(response)

    def replace_connections(self) -> None:
        """Have the connections replaced whose messages come here, since they are silent."""
        self._subscriptions.replace_connections(self._mailbox)

    def _encoded(self, name: Any) -> bytes:
        return bytes(self.encoder.encode(name))

    def _decoded(self, response: Sequence[Any]) -> list[Any]:
        if self._prefix is not None:
            response = self._prefix.strip_message(response)

        decode = self.encoder.decode
        return [decode(part) if isinstance(part, bytes) else part for part in response]
