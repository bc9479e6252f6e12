"""Events over a Redis stream: to one process of each group, at least once.

A message is acknowledged when its listeners have returned. Until then it is pending in the group,
and survives the death of the consumer (others claim it), of the server (with AOF) and of the
connection (it is read again).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio import Redis

from ws_core.backoff import delay, spread
from ws_core.metrics import Sample, register, sample
from ws_pool._core.background import cancel_and_wait
from ws_pool._core.startable import Startable
from ws_pool._events.consumer_group import ConsumerGroup
from ws_pool._events.dispatcher import Message, OrderedDispatcher
from ws_pool._events.listeners import Event, Listener, undelivered
from ws_pool._events.source import RedisManager, RedisSource, resolve_source
from ws_pool._events.waiting import WaitingEvents
from ws_pool.errors import ClosedError, UsageError, WsError

_logger: Final = logging.getLogger("ws_pool.events")
_LEAVE_TIMEOUT: Final = 1.0  # seconds for the last command of a bus that closes
_REMOVED_AFTER: Final = 10  # times claim_after that a consumer is idle before it is removed
_WAITING_CHECK: Final = 1.0  # seconds between looks for events that wait for a listener
_PAUSES: Final = (0.02, 1.0)  # seconds between attempts while the server is down: the first and the longest
_LOST: Final = (driver.RedisError, WsError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class StreamBusStatistics:
    """
    The state of a stream bus.

    Args:
        stream: The stream.
        group: The consumer group.
        consumer: This consumer's name.
        in_hand: Messages that were read and not acknowledged yet.
        delivered: Messages whose listeners have all returned.
        unheard: Messages of tags that are ignored; they are acknowledged.
        retried: Times a listener was called again after it had raised.
        overdue: Times a listener was cancelled because it took longer than ``listener_timeout``.
        claimed: Messages taken over from other consumers.
        dead: Messages moved to the dead-letter stream.
        waiting: Messages left for a consumer of the group that listens to their tag.
    """

    stream: str
    group: str
    consumer: str
    in_hand: int
    delivered: int
    unheard: int
    retried: int
    overdue: int
    claimed: int
    dead: int
    waiting: int = 0

    def samples(self) -> tuple[Sample, ...]:
        """Return the counters as samples of the metrics in `ws_core.metrics`, with the stream's name."""
        bus = {"messaging.system": "redis", "messaging.destination.name": self.stream}
        group = {**bus, "messaging.consumer.group.name": self.group}
        return (
            sample("messaging.client.consumed.messages", self.delivered, attributes=group),
            *undelivered(bus, {"ignored": self.unheard, "dead": self.dead}),
        )


class StreamEventBus(Startable):
    """
    Events that are not lost, over a Redis stream and a consumer group.

    Each group gets every event; within a group, one consumer gets it. Listeners must be ready for an
    event to come twice: after a crash it is delivered again. Events of one tag are delivered in
    order by each consumer, those of different tags side by side.

    An event without a listener is not acknowledged: it waits, pending, until a listener for its tag
    is added here or in another consumer of the group; after ``unheard_after`` seconds it is a dead
    letter. Tags that a group does not need are named in ``ignore``.

    Args:
        pool: A `RedisPool`; its manager, which stands for its default pool and may be started later; or a
            client of ``redis.asyncio``.
        stream: The stream's key.
        group: The consumer group; services that must each see all events use different ones.
        consumer: This consumer's name, unique within the group; made up by default.
        prefetch: Most messages in hand. Those that wait behind one whose listener fails don't count,
            up to ten times as many, so that one bad tag does not hold up the others.
        attempts: How often a message is tried, over all consumers, before it is a dead letter. A
            consumer that died counts, after the first: its message may have been on its way only.
        backoff: Shortest and longest pause in seconds before a listener is called again.
        claim_after: Seconds without a sign of life after which others take a consumer's messages.
        listener_timeout: Seconds that a listener may take; None for no limit. One that takes longer is
            cancelled, and has failed: its message is not acknowledged and leaves this consumer's
            hands, so that those behind it go on. It is claimed again after ``claim_after`` seconds,
            by whoever is quicker, until its attempts are used up.
        trim_every: Seconds between trimmings, which drop what every group has acknowledged, and
            consumers that were gone for long with nothing pending; None never trims.
        dead_letters: The stream for messages that were given up; ``<stream>:dead`` by default.
        unheard_after: Seconds that an event waits for a listener before it is a dead letter; None for
            ever.
        ignore: Tags whose events are acknowledged where they have no listener; ``"*"`` for all tags.

    Example:
        ```python
        from ws_pool.events import StreamEventBus
        from ws_pool.redis import RedisPool

        async def on_order(number):
            print("order", number)

        async with RedisPool(url="redis://localhost:6379/0") as pool:
            async with StreamEventBus(pool, "orders", "billing") as bus:
                bus.add_listener("order", on_order)
                await bus.publish("order", 42)
        ```
    """

    def __init__(
        self,
        pool: RedisSource | RedisManager | Redis,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        prefetch: int = 100,
        attempts: int = 5,
        backoff: tuple[float, float] = (0.1, 10.0),
        claim_after: float = 30.0,
        listener_timeout: float | None = None,
        trim_every: float | None = 60.0,
        dead_letters: str | None = None,
        unheard_after: float | None = 300.0,
        ignore: Iterable[str] = (),
    ) -> None:
        if not stream or not group:
            raise UsageError("a stream event bus needs the names of a stream and of a group")

        if prefetch < 1 or attempts < 1 or claim_after <= 0 or not 0 < backoff[0] <= backoff[1]:
            message = (
                "a stream event bus needs prefetch >= 1, attempts >= 1, claim_after > 0 and 0 < backoff[0] <="
                f" backoff[1], not {prefetch}, {attempts}, {claim_after}, {backoff}"
            )
            raise UsageError(message, stream=stream)

        if listener_timeout is not None and listener_timeout <= 0:
            message = f"a stream event bus needs listener_timeout > 0, or None, not {listener_timeout}"
            raise UsageError(message, stream=stream)

        if unheard_after is not None and unheard_after <= 0:
            message = f"a stream event bus needs unheard_after > 0, or None, not {unheard_after}"
            raise UsageError(message, stream=stream)

        source = resolve_source(pool)
        register(self)
        self._stream = stream
        self._group = group
        name = consumer or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._member = ConsumerGroup(source, stream, group, name, dead_letters or f"{stream}:dead")
        self._named = consumer is not None
        self._attempts = attempts
        self._claim_after = claim_after
        self._trim_every = trim_every
        self._listeners: dict[str, list[Listener]] = {}
        self._without_listener = WaitingEvents(
            stream,
            group,
            self._member,
            self._listeners,
            ignored=(ignore,) if isinstance(ignore, str) else tuple(ignore),
            expire_after=unheard_after,
            check_every=min(
                _WAITING_CHECK, claim_after / 3
            ),  # as often as consumers claim, where that is more often
        )
        self._state = "new"
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatcher = OrderedDispatcher(
            stream,
            self._listeners,
            prefetch=prefetch,
            attempts=attempts,
            backoff=backoff,
            listener_timeout=listener_timeout,
            ignores=self._without_listener.ignores,
            acknowledge=lambda message: self._through_outages(lambda: self._member.acknowledge(message.id)),
            leave_waiting=lambda message: self._through_outages(
                lambda: self._without_listener.leave([message])
            ),
            dead_letter=lambda message, reason: self._through_outages(
                lambda: self._dead_letter(message, reason)
            ),
        )
        self._look_back = True
        self._restarted = True  # whether an earlier process of this name may have left something
        self._claimed = self._dead = 0

    def __repr__(self) -> str:
        return f"<StreamEventBus {self._stream!r}, group {self._group!r}, {self._state}>"

    @property
    def consumer(self) -> str:
        """This consumer's name."""
        return self._member.consumer

    def add_listener(self, tag: str, coro: Listener) -> None:
        """
        Listen to a tag. Events that wait for its first listener are delivered before newer ones.

        Args:
            tag: What kind of event.
            coro: An async function; it gets what was given to `publish` after the tag. When it raises
                it is called again; when it returns the event is done.
        """
        listeners = self._listeners.setdefault(tag, [])

        if coro not in listeners:
            listeners.append(coro)

            if len(listeners) == 1:
                self._without_listener.listener_added(tag)

    def remove_listener(self, tag: str, coro: Listener) -> bool:
        """
        End listening.

        Args:
            tag: What kind of event.
            coro: What was given to `add_listener`.

        Returns:
            Whether it did listen.
        """
        listeners = self._listeners.get(tag, [])

        if coro not in listeners:
            return False

        listeners.remove(coro)
        return True

    async def publish(self, tag: str, /, *args: Any, **kwargs: Any) -> str:  # Any: whatever JSON can hold
        """
        Add an event to the stream; when it returns, the event is stored.

        A connection that is lost meanwhile has the command sent again, so the event may be stored twice.

        Args:
            tag: What kind of event.
            *args: For the listeners; JSON must be able to hold it.
            **kwargs: For the listeners; JSON must be able to hold it.

        Returns:
            The message's id.

        Raises:
            UsageError: JSON cannot hold it.
            UnavailableError: The server cannot be reached.
        """
        return await self._member.publish(Event(tag, args, kwargs))

    async def start(self) -> None:
        """
        Create the group when it is missing, and begin to deliver. A bus that was closed starts anew.

        Raises:
            UnavailableError: The server cannot be reached.
            NotReadyError: The manager of its pool is not started.
            UsageError: The bus is started already, or is closing.
            ClosedError: The bus was closed meanwhile.
        """
        if self._state not in {"new", "closed"}:
            raise UsageError(f"stream bus {self._stream!r} is {self._state} already", stream=self._stream)

        self._state = "starting"

        try:
            await self._member.create()
        except BaseException:
            self._state = "new" if self._state == "starting" else self._state
            raise

        if self._state != "starting":
            raise ClosedError(f"stream bus {self._stream!r} was closed meanwhile", stream=self._stream)

        self._state = "open"
        self._look_back = self._restarted = True
        self._dispatcher.restart()
        self._without_listener.restart()
        loop = asyncio.get_running_loop()
        jobs: list[Callable[[], Awaitable[None]]] = [
            self._read,
            self._claim,
            self._stay_alive,
            lambda: self._without_listener.serve(self._dispatcher),
        ]

        if self._trim_every is not None:
            jobs.append(self._trim)

        self._tasks = [
            loop.create_task(self._repeat(job), name=f"ws-pool stream bus {self._stream}") for job in jobs
        ]

    async def close(self, *, drain: float = 5.0) -> None:
        """
        End delivering; may be called again. What is not done stays pending for others to claim.

        Args:
            drain: Seconds in which listeners may finish what is in hand.
        """
        if self._state == "closing":
            return

        if self._state != "open":
            self._state = "closed"
            return

        self._state = "closing"

        try:
            await self._stop(drain)

            if not self._named:  # no other process has a made-up name
                with contextlib.suppress(*_LOST):
                    async with asyncio.timeout(_LEAVE_TIMEOUT):
                        await self._member.leave()
        finally:
            self._state = "closed"

    def statistics(self) -> StreamBusStatistics:
        """Return a frozen snapshot of the bus."""
        return StreamBusStatistics(
            stream=self._stream,
            group=self._group,
            consumer=self._member.consumer,
            in_hand=len(self._dispatcher.in_hand),
            delivered=self._dispatcher.delivered,
            unheard=self._dispatcher.unheard,
            retried=self._dispatcher.retried,
            overdue=self._dispatcher.overdue,
            claimed=self._claimed,
            dead=self._dead + self._without_listener.expired,
            waiting=self._without_listener.left,
        )

    async def _stop(self, drain: float) -> None:
        reader, *others = self._tasks
        reader.cancel()

        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await self._dispatcher.drained()
        finally:
            await cancel_and_wait(reader, *others)
            await self._dispatcher.stop()

    async def _repeat(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job over and over, through outages and the loss of the group."""
        failures = 0

        while True:
            try:
                await job()
            except UsageError:
                return  # the pool was closed
            except driver.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    _logger.exception("stream bus %r: the server refuses", self._stream)

                with contextlib.suppress(*_LOST):
                    await self._member.create()
            except _LOST as error:
                _logger.warning("stream bus %r: %s", self._stream, error)
            except Exception:  # an unexpected reply must not end the bus
                _logger.exception("stream bus %r: an unexpected failure", self._stream)
            else:
                failures = 0
                continue

            self._look_back = True
            failures += 1
            await asyncio.sleep(delay(failures, *_PAUSES))

    async def _read(self) -> None:
        """Read new messages; after a failure, first those whose reply was lost."""
        if self._look_back:
            # Cleared before the look, because a failure meanwhile, of this or another job, needs another.
            self._look_back = False
            await self._read_pending()
            self._restarted = False

        entries = await self._member.read_new(await self._dispatcher.room())

        # After the read and before the delivery: what waits for a new listener is older than this.
        await self._without_listener.take_new(self._dispatcher)
        await self._accept_all([Message(entry_id, text, 1, owed=True) for entry_id, text in entries])

    async def _accept_all(self, messages: Sequence[Message]) -> None:
        await self._without_listener.accept(messages, self._dispatcher)

    async def _read_pending(self) -> None:
        """Take the messages that the server has down as delivered to this consumer."""
        cursor = "0"

        while True:
            await self._dispatcher.room()
            entries = await self._member.read_own(cursor)

            if not entries:
                return

            await self._accept_all([self._redelivered(*entry) for entry in entries])

            cursor = entries[-1][0]

    def _redelivered(self, entry_id: str, text: str | None, count: int) -> Message:
        """Decide which attempt a message is that was delivered to this consumer before."""
        # Two cases, in both of which this look was a delivery too. A process that ran before under
        # this name has most likely tried the message, which may be what has ended that process. Its first
        # death does not count as an attempt: the message may have been on its way only.
        if self._restarted:
            return Message(entry_id, text, count, owed=count <= self._attempts + 1)

        # In this process the reply was lost, so that the message was never tried.
        return Message(entry_id, text, max(1, count - 1), owed=True)

    async def _through_outages(self, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat an action that may be done twice, until the server has answered."""
        failures = 0

        while True:
            try:
                await action()
            except UsageError:
                return  # the pool was closed: the message stays pending
            except driver.ResponseError:
                _logger.exception("stream bus %r: the server refuses", self._stream)
                return
            except _LOST:
                failures += 1
                await asyncio.sleep(delay(failures, *_PAUSES))
            else:
                return

    async def _dead_letter(self, message: Message, reason: str) -> None:
        """Move a message to the dead letters, and log it."""
        await self._member.dead_letter(message.id, message.text or "", reason)
        self._dead += 1
        _logger.error("stream bus %r: gave up on message %s: %s", self._stream, message.id, reason)

    async def _stay_alive(self) -> None:
        """Keep messages in hand from being claimed by others."""
        # Every third of the time: one sign of life may be late or lost, and the next still comes in time.
        await asyncio.sleep(self._claim_after / 3)

        if self._dispatcher.in_hand:
            await self._member.touch(self._dispatcher.in_hand)

    async def _claim(self) -> None:
        """Take over messages of consumers that have died."""
        # Spread, because consumers that were started together would all claim at the same moment.
        await asyncio.sleep(spread(self._claim_after / 3, 0.75, 1.25))
        cursor = "-"

        while cursor:
            count = await self._dispatcher.room()
            cursor, entries = await self._member.claim(self._claim_after, cursor, count)
            fresh = [entry for entry in entries if entry[0] not in self._dispatcher.in_hand]
            self._claimed += len(fresh)
            await self._accept_all(
                [
                    Message(entry_id, text, tried, owed=tried <= self._attempts + 1)
                    for entry_id, text, tried in fresh
                ]
            )

    async def _trim(self) -> None:
        """Drop messages that every group has acknowledged, and consumers that have died long ago."""
        assert self._trim_every is not None
        await asyncio.sleep(spread(self._trim_every, 0.75, 1.25))
        await self._member.trim()

        with contextlib.suppress(driver.ResponseError):  # where scripts are forbidden, they stay
            await self._member.forget_idle(_REMOVED_AFTER * self._claim_after)
