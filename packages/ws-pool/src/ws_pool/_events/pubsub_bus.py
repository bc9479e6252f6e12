"""Events over Redis pub/sub: to all that listen now, at most once."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_core.metrics import Sample, register, sample
from ws_pool._core.background import cancel_and_wait
from ws_pool._core.startable import Startable
from ws_pool._events.listeners import (
    Event,
    Listener,
    Listeners,
    ListenerStatistics,
    OverflowPolicy,
    dump,
    load,
    undelivered,
)
from ws_pool._events.source import RedisManager, RedisSource, replace_connections, resolve_source
from ws_pool.errors import ClosedError, NotReadyError, UnavailableError, UsageError, WsError

_logger: Final = logging.getLogger("ws_pool.events")
_SUBSCRIBE_TIMEOUT: Final = 5.0  # seconds for a subscription to be confirmed
_PAUSES: Final = (0.02, 1.0)  # seconds between attempts to subscribe again: the first and the longest
_LOST: Final = (driver.RedisError, WsError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """
    The state of a bus.

    Args:
        channel: Its channel.
        subscribed: Whether messages arrive at the moment.
        received: Events received so far.
        unknown: Messages that were not events, or that no listener took.
        gaps: Times the subscription was interrupted, so that events may have been missed.
        listeners: The state of each listener.
    """

    channel: str
    subscribed: bool
    received: int
    unknown: int
    gaps: int
    listeners: tuple[ListenerStatistics, ...]

    def samples(self) -> tuple[Sample, ...]:
        """Return the counters as samples of the metrics in `ws_core.metrics`, with the channel's name."""
        bus = {"messaging.system": "redis", "messaging.destination.name": self.channel}
        return (
            sample("messaging.client.consumed.messages", self.received, attributes=bus),
            *undelivered(bus, {"unknown": self.unknown, "gap": self.gaps}),
        )


class RedisEventBus(Startable):
    """
    Events for all processes that listen on a channel, over Redis pub/sub.

    Pub/sub delivers at most once: a process that is not connected misses what is published. The bus connects
    again by itself and then emits the event `GAP`, so that listeners can look up what they need.
    Use `StreamEventBus` where nothing may be lost.

    Args:
        pool: A `RedisPool`; its manager, which stands for its default pool and may be started later; or a
            client of ``redis.asyncio``.
        channel: The channel.
        queue_size: Most events in the queue of one listener.
        overflow: What to drop when there are more.
        heartbeat: Seconds of silence after which the connection is checked.
        sharded: Use sharded pub/sub (Redis 7), which scales with a cluster.

    Example:
        ```python
        from ws_pool.events import RedisEventBus
        from ws_pool.redis import RedisPool

        async def on_sale(item, *, price):
            print(item, price)

        async with RedisPool(url="redis://localhost:6379/0") as pool:
            async with RedisEventBus(pool, "shop") as bus:
                bus.add_listener("sale", on_sale)
                await bus.publish("sale", "tea", price=3)
        ```
    """

    GAP: ClassVar[str] = "gap"
    """
    The tag of the event after an interruption, with ``seconds`` and ``reason``.

    The seconds count from the last sign of life of the old subscription to the new one, so that
    every event that was missed was published within them.
    """

    def __init__(
        self,
        pool: RedisSource | RedisManager | Redis,
        channel: str,
        *,
        queue_size: int = 1_000,
        overflow: OverflowPolicy = "drop_oldest",
        heartbeat: float = 5.0,
        sharded: bool = False,
    ) -> None:
        if not channel:
            raise UsageError("the channel of an event bus must not be empty")

        if queue_size < 1 or heartbeat <= 0 or overflow not in {"drop_oldest", "drop_newest"}:
            message = (
                "an event bus needs queue_size >= 1, heartbeat > 0 and overflow 'drop_oldest' or"
                f" 'drop_newest', not {queue_size}, {heartbeat}, {overflow!r}"
            )
            raise UsageError(message, channel=channel)

        self._pool = resolve_source(pool)
        self._channel = channel
        self._heartbeat = heartbeat
        self._sharded = sharded
        self._listeners = Listeners(size=queue_size, policy=overflow, channel=channel)
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._state = "new"
        self._subscribed = False
        self._alive_at = 0.0  # the last sign of life of the subscription
        self._received = self._unknown = self._gaps = 0
        register(self)

    def __repr__(self) -> str:
        return f"<RedisEventBus {self._channel!r} of redis pool {self._pool.name!r}, {self._state}>"

    @property
    def channel(self) -> str:
        """Its channel."""
        return self._channel

    @property
    def subscribed(self) -> bool:
        """Whether messages arrive at the moment."""
        return self._subscribed

    def add_listener(self, tag: str, coro: Listener) -> None:
        """
        Listen to a tag, from now on, or from the start of the bus on.

        Args:
            tag: What kind of event.
            coro: An async function; it gets what was given to `publish` after the tag.
        """
        self._listeners.add(tag, coro)

    def remove_listener(self, tag: str, coro: Listener) -> bool:
        """
        End listening; events in its queue are dropped, a call in flight goes on.

        Args:
            tag: What kind of event.
            coro: What was given to `add_listener`.

        Returns:
            Whether it did listen.
        """
        return self._listeners.remove(tag, coro)

    async def publish(self, tag: str, /, *args: Any, **kwargs: Any) -> int:  # Any: whatever JSON can hold
        """
        Send an event to all who listen on the channel, in this process and in others.

        Args:
            tag: What kind of event.
            *args: For the listeners; JSON must be able to hold it.
            **kwargs: For the listeners; JSON must be able to hold it.

        Returns:
            How many connections have received it; the buses on one pool share one.

        Raises:
            UsageError: JSON cannot hold it, or the tag is the bus's own.
            NotReadyError: The bus was not started.
            ClosedError: The bus was closed.
            MaybeExecuted: The connection was lost before the reply.
        """
        if tag == self.GAP:
            raise UsageError(f"the tag {tag!r} is the bus's own: choose another", tag=tag)

        if self._state != "open":
            # Events of a bus that nobody started go unnoticed on both sides: its own listeners get none.
            error = ClosedError if self._state == "closed" else NotReadyError
            message = f"event bus {self._channel!r} is {self._state}: enter it with `async with` to publish"
            raise error(message, channel=self._channel)

        return await self._send(Event(tag, args, kwargs))

    async def _send(self, event: Event) -> int:
        """Publish an event, which may be traced."""
        text = dump(event)
        command = "SPUBLISH" if self._sharded else "PUBLISH"
        return int(await self._pool.redis.execute_command(command, self._channel, text))

    async def start(self) -> None:
        """
        Subscribe; when it returns, events arrive. A bus that was closed starts anew, with its listeners.

        Raises:
            UnavailableError: The server cannot be reached.
            NotReadyError: The manager of its pool is not started.
            UsageError: The bus is started already.
        """
        if self._state == "open":
            raise UsageError(f"event bus {self._channel!r} is started already", channel=self._channel)

        self._state = "open"
        self._listeners.start()
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._task = loop.create_task(self._run(), name=f"ws-pool event bus {self._channel}")

        self._task.add_done_callback(self._ended)

        try:
            await asyncio.shield(self._first)
        except BaseException:
            await self.close()
            raise

    async def close(self, *, drain: float = 1.0) -> None:
        """
        End the subscription; may be called again.

        Args:
            drain: Seconds in which listeners may take the events that wait for them.
        """
        task, self._task, self._state = self._task, None, "closed"

        if task is not None:
            await cancel_and_wait(task)
            await self._listeners.stop(drain=drain)

    def statistics(self) -> BusStatistics:
        """Return a frozen snapshot of the bus."""
        if self._state == "new":
            raise NotReadyError(f"event bus {self._channel!r} is not started", channel=self._channel)

        return BusStatistics(
            channel=self._channel,
            subscribed=self._subscribed,
            received=self._received,
            unknown=self._unknown,
            gaps=self._gaps,
            listeners=self._listeners.statistics(),
        )

    async def _run(self) -> None:
        """Keep the subscription: `start` raises its first failure, later ones only make gaps."""
        lost, reason, failures = False, "", 0
        first = self._first
        assert first is not None

        while True:
            try:
                async with self._pool.redis.pubsub() as pubsub:
                    await self._subscribe(pubsub)
                    failures = 0

                    # The gap began at the last sign of life, not when the loss was noticed: what was
                    # published between the two is missing as well.
                    if not first.done():
                        first.set_result(None)
                    elif lost:
                        self._report_gap(time.monotonic() - self._alive_at, reason)

                    lost, self._alive_at = False, time.monotonic()
                    await self._receive(pubsub)
            except Exception as error:  # no message of other programs must end the bus
                if not first.done():
                    first.set_exception(
                        self._unavailable(error) if isinstance(error, TimeoutError) else error
                    )
                    return

                if not self._pool.ready:
                    _logger.info("event bus %r ends: its pool was closed", self._channel)
                    return

                if not lost:
                    lost, reason = True, describe(error)
                    _logger.warning(
                        "event bus %r lost its subscription: %s",
                        self._channel,
                        reason,
                        exc_info=not isinstance(error, _LOST),
                    )
            finally:
                self._subscribed = False

            failures += 1
            await asyncio.sleep(delay(failures, *_PAUSES))

    def _unavailable(self, error: BaseException) -> BaseException:
        """Return the error of a subscription that was not confirmed in time."""
        if isinstance(error, WsError):
            return error

        return UnavailableError(
            f"event bus {self._channel!r}: the server does not confirm its subscription in time"
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail `start` when the task has ended before its first subscription."""
        if self._first is not None and not self._first.done():
            error = None if task.cancelled() else task.exception()
            self._first.set_exception(error or ClosedError(f"event bus {self._channel!r} was closed"))

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe, and wait until the server has confirmed it."""
        async with asyncio.timeout(max(_SUBSCRIBE_TIMEOUT, self._heartbeat)):
            if self._sharded:
                await pubsub.execute_command("SSUBSCRIBE", self._channel)  # redis-py 7 has no method for it
            else:
                await pubsub.subscribe(self._channel)

            while not self._subscribed:
                message = await pubsub.get_message(timeout=self._heartbeat)
                self._subscribed = message is not None and message["type"] in {"subscribe", "ssubscribe"}

    async def _receive(self, pubsub: PubSub) -> None:
        """Take messages until the connection is lost, or silent for twice the heartbeat."""
        pinged = False

        while True:
            message = await pubsub.get_message(timeout=self._heartbeat)

            if message is None:
                if pinged:
                    replace_connections(pubsub)
                    raise TimeoutError(f"the server was silent for {2 * self._heartbeat:g} s")

                await pubsub.ping()
                pinged = True
                continue

            pinged = False
            kind = message["type"]

            # A client of redis-py subscribes again by itself, without an error.
            if kind in {"subscribe", "ssubscribe"}:
                self._report_gap(time.monotonic() - self._alive_at, "the connection was replaced")

            self._alive_at = time.monotonic()

            if kind in {"message", "smessage"}:
                self._take(message["data"])
            elif kind == "sunsubscribe":
                raise driver.ConnectionError("the channel's slot has gone to another node")

    def _take(self, data: str | bytes) -> None:
        """Pass a message to its listeners."""
        event = load(data)
        self._received += 1

        if event is None or event.tag == self.GAP or not self._listeners.deliver(event):
            self._unknown += 1

    def _report_gap(self, seconds: float, reason: str) -> None:
        """Notify the listeners that events may have been missed."""
        self._gaps += 1
        _logger.warning("event bus %r is subscribed again after %.1f s", self._channel, seconds)
        self._listeners.deliver(Event(self.GAP, (), {"seconds": seconds, "reason": reason}))
