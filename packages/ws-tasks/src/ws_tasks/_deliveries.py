"""What a worker has in hand of a queue: fetched, renewed, reclaimed, acknowledged, handed back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeAlias

import anyio
from redis import exceptions
from taskiq import TaskiqMessage

from ws_core.backoff import delay, spread
from ws_core.errors import describe
from ws_tasks._requests import resolve
from ws_tasks._streams import TRANSIENT, Delivery, StreamQueue

logger = logging.getLogger("ws_tasks")

Key: TypeAlias = tuple[str, str]

_BLOCK = 0.5  # seconds that a fetch waits for the first message
_BATCH = 50  # messages of one fetch: what one worker has of a batch, another one does not
_MOST_SLEEP = 0.5  # seconds between two looks at the delayed jobs
_HAND_BACK = 5.0  # seconds for what is in hand to be handed back at the end


@dataclass(eq=False)
class Deliveries:
    """The messages of one queue that this worker has taken."""

    stream: StreamQueue
    queue: str
    _: KW_ONLY
    lease: float
    max_deliveries: int
    concurrency: int
    load: Callable[[bytes], TaskiqMessage]
    knows: Callable[[str], bool]
    on_dead: Callable[[TaskiqMessage, str], Awaitable[None]]
    on_cancelled: Callable[[TaskiqMessage], Awaitable[None]]
    cancel: Callable[[str], None]
    beside: Iterable[Callable[[], Awaitable[float]]] = ()
    dead_lettered: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._in_hand: dict[Key, Delivery] = {}  # with those of the buffer, which have not begun
        self._buffer: deque[Delivery] = deque()
        self._suspects: deque[Delivery] = deque()
        self._alone: Key | None = None
        self._unknown: set[str] = set()
        self._changed = asyncio.Event()
        self._ended: list[tuple[Delivery, asyncio.Future[None]]] = []  # not acknowledged yet
        self._acknowledging: asyncio.Task[None] | None = None
        self._kept: set[str] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._fetching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch and to keep messages; the event loop may be another one than before."""
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # the one of a worker before may belong to another loop

        if not self._keepers:
            self._keepers = [
                loop.create_task(self._keep(action))
                for action in (self._renew, self._reclaim, self._move_due, *self.beside)
            ]

        # The client is awaited in a task of its own: taskiq cancels whatever waits here at its end, and
        # a cancelled read is a connection less and a batch of messages that nobody has seen.
        self._fetching = loop.create_task(self._keep(self._fetch))

    async def stop(self) -> None:
        """Fetch no more, and hand back what has not begun; what has begun is kept."""
        if self._fetching is not None:
            await cancel_and_wait([self._fetching])
            self._fetching = None

        await self._hand_back_unbegun()

    async def close(self) -> None:
        """Hand back everything that is not done."""
        keepers, self._keepers = self._keepers, []
        await cancel_and_wait(keepers)

        if (acknowledging := self._acknowledging) is not None:
            self._acknowledging = None
            await asyncio.wait([acknowledging], timeout=_HAND_BACK)
            await cancel_and_wait([acknowledging])

        for _, waiter in self._ended:
            waiter.cancel()

        self._ended.clear()

        if keepers:
            with contextlib.suppress(*TRANSIENT), anyio.move_on_after(_HAND_BACK):
                await self.stream.hand_back([*self._in_hand.values()])
                await self.stream.leave()

        self._in_hand.clear()
        self._kept.clear()

    def keep(self, jobs: set[str]) -> None:
        """Acknowledge jobs no more, whatever becomes of them here: they will be handed back."""
        self._kept |= jobs

    async def next(self) -> Delivery:
        """Return the next message to run."""
        while not self._buffer:
            self._changed.clear()
            await self._changed.wait()

        return self._buffer.popleft()

    async def _fetch(self) -> float:
        """Fetch as many messages as there are free places."""
        free = self.concurrency - len(self._in_hand)

        if self._suspects and not self._in_hand:
            await self._begin_suspect()
            return 0.0

        if free <= 0 or self._suspects or self._alone is not None:
            self._changed.clear()
            await self._changed.wait()
            return 0.0

        try:
            await self._accept(await self.stream.fetch(min(free, _BATCH), _BLOCK))
        except exceptions.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise

            await self.stream.ensure_group()

        return 0.0

    async def _begin_suspect(self) -> None:
        """Run a suspect alone: what it does, it does to itself. Its last delivery counts from now on."""
        delivery = self._suspects[0]
        self._alone = delivery.key

        try:
            is_ours = await self.stream.recount(delivery, delivery.number)
        except BaseException:
            self._alone = None
            raise

        if is_ours and delivery in self._suspects:
            self._suspects.remove(delivery)
            self._in_hand[delivery.key] = delivery
            self._buffer.append(delivery)
            self._changed.set()
        else:
            self._forget(delivery.key)

    async def _hand_back_unbegun(self) -> None:
        """Let other workers have what was fetched and not begun."""
        left = [*self._buffer, *self._suspects]
        self._buffer.clear()
        self._suspects.clear()

        with contextlib.suppress(*TRANSIENT), anyio.CancelScope(shield=True), anyio.move_on_after(_HAND_BACK):
            await self.stream.hand_back(left)

        for delivery in left:
            self._in_hand.pop(delivery.key, None)

    async def _accept(self, found: list[Delivery]) -> None:
        """Keep messages whose task is known; hand the others back, dead-letter those that cannot be read."""
        if self._alone is not None:  # a suspect has begun while these were on their way: none runs beside it
            await self.stream.hand_back(found)
            return

        own = [delivery for delivery in found if self._has(delivery)]
        known = {delivery.key for delivery in own}
        back: list[Delivery] = []
        dead: list[tuple[Delivery, str, TaskiqMessage | None]] = []
        cancelled: list[tuple[Delivery, TaskiqMessage]] = []

        for delivery in (delivery for delivery in found if delivery.key not in known):
            try:
                message = self.load(delivery.data)
            except Exception as error:  # noqa: BLE001 - foreign data
                dead.append((delivery, f"not a message of taskiq: {describe(error)}", None))
                continue

            if delivery.cancelled:
                cancelled.append((delivery, message))
            elif delivery.number > self.max_deliveries:
                dead.append((delivery, f"delivered {delivery.number - 1} times", message))
            elif not self._keep_message(delivery, message.task_name):
                back.append(delivery)

        # All that can run does before Redis is asked again: what fails below is reclaimed after its lease.
        self._changed.set()
        await self.stream.hand_back(back)

        for delivery in own:
            # Its lease has ended while Redis was away; the job goes on here, in its old delivery.
            await self.stream.recount(delivery, delivery.number - 1)

        for delivery, message in cancelled:
            await self.on_cancelled(message)
            await self.stream.done([delivery])

        for each in dead:
            await self._dead_letter(*each)

    def _has(self, delivery: Delivery) -> bool:
        return delivery.key in self._in_hand or any(delivery.key == found.key for found in self._suspects)

    def _keep_message(self, delivery: Delivery, task_name: str) -> bool:
        """Take a message to run it; return False when it is for another worker."""
        if not self.knows(task_name):
            self._warn_of_stranger(task_name)
            return False

        if delivery.number == self.max_deliveries > 1:
            # It has ended workers before, or was beside one that has.
            self._suspects.append(delivery)
            return True

        if len(self._in_hand) >= self.concurrency:
            return False  # a wait for the first message may end with one of each priority

        self._in_hand[delivery.key] = delivery
        self._buffer.append(delivery)
        return True

    def _warn_of_stranger(self, task_name: str) -> None:
        if task_name not in self._unknown:
            self._unknown.add(task_name)
            logger.warning(
                "queue %r: task %r is not known to this worker, its jobs are left to others",
                self.queue,
                task_name,
            )

    async def _dead_letter(self, delivery: Delivery, reason: str, message: TaskiqMessage | None) -> None:
        self.dead_lettered += 1
        name = "?" if message is None else message.task_name
        logger.error("queue %r: a job of task %r is a dead letter: %s", self.queue, name, reason)

        if message is not None:
            # The one that waits for the result must not wait for ever.
            await self.on_dead(message, reason)

        await self.stream.dead_letter(delivery, reason)

    async def done(self, delivery: Delivery) -> None:
        """Acknowledge a message, however long Redis is away; one that was handed back is left alone."""
        if delivery.key not in self._in_hand or delivery.job in self._kept:
            return

        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._ended.append((delivery, waiter))

        # Jobs that end while a request is on its way share the next one.
        if self._acknowledging is None:
            self._acknowledging = loop.create_task(self._acknowledge())

        await asyncio.shield(waiter)

    async def _acknowledge(self) -> None:
        failures = 0

        try:
            while self._ended:
                batch = [*self._ended]
                refused: Exception | None = None

                try:
                    # When it was acknowledged before, that may be this very request, whose reply was
                    # lost. A job that was run twice is noticed by its second result.
                    await self.stream.done([delivery for delivery, _ in batch])
                except TRANSIENT as error:
                    failures += 1
                    logger.warning("%d messages are not acknowledged yet: %s", len(batch), describe(error))
                    await asyncio.sleep(delay(failures, 0.1, 2.0))
                    continue
                except Exception as error:  # noqa: BLE001 - for those that wait, who report it
                    refused = error

                failures = 0
                del self._ended[: len(batch)]  # what has ended meanwhile stands behind the batch

                for delivery, waiter in batch:
                    self._drop(delivery.key)
                    resolve(waiter, refused)
        finally:
            self._acknowledging = None

    def _drop(self, key: Key) -> None:
        self._in_hand.pop(key, None)

        if self._alone == key:
            self._alone = None

        self._changed.set()

    # What goes on beside the jobs of a worker.

    async def _keep(self, action: Callable[[], Awaitable[float]]) -> None:
        """Do something again and again: no error may end what keeps the jobs of a worker."""
        failures = 0

        while True:
            try:
                pause = await action()
                failures = 0
            except (*TRANSIENT, exceptions.ResponseError) as error:
                # Without a group there is nothing to keep; the reader creates it.
                failures += 1
                pause = delay(failures, 0.1, 2.0)
                level = logging.DEBUG if "NOGROUP" in str(error) else logging.WARNING
                logger.log(
                    level, "queue %r: Redis did not do what it should: %s", self.queue, describe(error)
                )
            except Exception:
                failures += 1
                pause = delay(failures, 0.1, 2.0)
                logger.exception("queue %r: an unexpected failure", self.queue)

            if pause:
                await asyncio.sleep(spread(pause, 0.75, 1.0))

    async def _renew(self) -> float:
        lost, cancelled = await self.stream.renew([*self._in_hand.values(), *self._suspects])

        for key in lost:
            if key in self._in_hand and self._in_hand[key] not in self._buffer:
                # Acknowledged a moment ago, or this worker was stopped: the job ends, and says so.
                logger.debug("queue %r: message %s is not this worker's any more", self.queue, key[1])
            else:
                self._forget(key)

        for job in cancelled:  # the announcement may have been lost
            self.cancel(job)

        return self.lease / 3

    def _forget(self, key: Key) -> None:
        """Drop a message that has not begun here and that another worker has by now."""
        self._buffer = deque(found for found in self._buffer if found.key != key)
        self._suspects = deque(found for found in self._suspects if found.key != key)
        self._drop(key)

    async def _reclaim(self) -> float:
        free = self.concurrency - len(self._in_hand) - len(self._suspects)

        if free > 0 and self._alone is None:
            await self._accept(await self.stream.reclaim(min(free, _BATCH), self.max_deliveries))

        return self.lease / 3

    async def _move_due(self) -> float:
        following = await self.stream.move_due()
        return _MOST_SLEEP if following is None else max(0.01, min(following, _MOST_SLEEP))


async def cancel_and_wait(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, again and again: a driver may swallow a cancellation while it reconnects."""
    with anyio.CancelScope(shield=True):
        while pending := [found for found in tasks if not found.done()]:
            for found in pending:
                found.cancel()

            await asyncio.wait(pending, timeout=0.5)
