"""What a worker has in hand of a queue: fetched, renewed, reclaimed, acknowledged, handed back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from redis import exceptions
from taskiq import TaskiqMessage

from ws_core.backoff import delay, spread
from ws_core.errors import describe
from ws_tasks._streams import TRANSIENT, Delivery, StreamQueue

__all__ = ("Deliveries", "cancel_and_wait")

logger = logging.getLogger("ws_tasks")

_BLOCK = 0.5  # seconds that a fetch waits for the first message
_BATCH = 50
_MOST_SLEEP = 0.5  # seconds between two looks at the delayed jobs
_HAND_BACK = 5.0  # seconds for what is in hand to be handed back at the end


class Deliveries:
    """The messages of one queue that this worker has taken."""

    def __init__(
        self,
        stream: StreamQueue,
        queue: str,
        *,
        lease: float,
        max_deliveries: int,
        concurrency: int,
        load: Callable[[bytes], TaskiqMessage],
        knows: Callable[[str], bool],
        on_dead: Callable[[TaskiqMessage, str], Awaitable[None]],
    ) -> None:
        self.concurrency: int = concurrency
        self.doubled: int = 0
        self.buried: int = 0
        self._stream = stream
        self._queue = queue
        self._lease = lease
        self._max_deliveries = max_deliveries
        self._load = load
        self._knows = knows
        self._on_dead = on_dead
        self._in_hand: dict[str, Delivery] = {}  # with those of the buffer, which have not begun
        self._buffer: deque[Delivery] = deque()
        self._suspects: deque[Delivery] = deque()
        self._alone: str | None = None
        self._unknown: set[str] = set()
        self._changed = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._fetching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch and to keep messages."""
        loop = asyncio.get_running_loop()

        if not self._keepers:
            self._keepers = [
                loop.create_task(self._keep(action))
                for action in (self._renew, self._reclaim, self._move_due)
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

        if keepers:
            with contextlib.suppress(*TRANSIENT), anyio.move_on_after(_HAND_BACK):
                await self._stream.leave()

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
            await self._accept(await self._stream.fetch(min(free, _BATCH), _BLOCK))
        except exceptions.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise

            await self._stream.ensure_group()

        return 0.0

    async def _begin_suspect(self) -> None:
        """Run a suspect alone: what it does, it does to itself. Its last delivery counts from now on."""
        delivery = self._suspects[0]
        self._alone = delivery.id

        try:
            is_ours = await self._stream.recount(delivery, delivery.number)
        except BaseException:
            self._alone = None
            raise

        if is_ours and delivery in self._suspects:
            self._suspects.remove(delivery)
            self._in_hand[delivery.id] = delivery
            self._buffer.append(delivery)
            self._changed.set()
        else:
            self._forget(delivery.id)

    async def _hand_back_unbegun(self) -> None:
        """Let other workers have what was fetched and not begun."""
        left = [*self._buffer, *self._suspects]
        self._buffer.clear()
        self._suspects.clear()

        with contextlib.suppress(*TRANSIENT), anyio.CancelScope(shield=True), anyio.move_on_after(_HAND_BACK):
            await self._stream.hand_back([delivery.id for delivery in left])

        for delivery in left:
            self._in_hand.pop(delivery.id, None)

    async def _accept(self, found: list[Delivery]) -> None:
        """Keep messages whose task is known; hand the others back, bury those that cannot be read."""
        if self._alone is not None:  # a suspect has begun while these were on their way: none runs beside it
            await self._stream.hand_back([delivery.id for delivery in found])
            return

        strangers: list[str] = []
        graves: list[tuple[Delivery, str, TaskiqMessage | None]] = []
        own: list[Delivery] = []

        for delivery in found:
            if delivery.id in self._in_hand or any(delivery.id == other.id for other in self._suspects):
                # Its lease has ended while Redis was away; the job goes on here, in its old delivery.
                own.append(delivery)
                continue

            try:
                message = self._load(delivery.data)
            except Exception as error:  # noqa: BLE001 - foreign data
                graves.append((delivery, f"not a message of taskiq: {describe(error)}", None))
                continue

            if not self._knows(message.task_name):
                strangers.append(delivery.id)
                self._warn_of_stranger(message.task_name)
            elif delivery.number > self._max_deliveries:
                graves.append((delivery, f"delivered {delivery.number - 1} times", message))
            elif delivery.number == self._max_deliveries > 1:
                # It has ended workers before, or was beside one that has.
                self._suspects.append(delivery)
            else:
                self._in_hand[delivery.id] = delivery
                self._buffer.append(delivery)

        # All that can run does before Redis is asked again: what fails below is reclaimed after its lease.
        self._changed.set()
        await self._stream.hand_back(strangers)

        for delivery in own:
            await self._stream.recount(delivery, delivery.number - 1)

        for grave in graves:
            await self._bury(*grave)

    def _warn_of_stranger(self, task_name: str) -> None:
        if task_name not in self._unknown:
            self._unknown.add(task_name)
            logger.warning(
                "queue %r: task %r is not known to this worker, its jobs are left to others",
                self._queue,
                task_name,
            )

    async def _bury(self, delivery: Delivery, reason: str, message: TaskiqMessage | None) -> None:
        self.buried += 1
        name = "?" if message is None else message.task_name
        logger.error("queue %r: a job of task %r is a dead letter: %s", self._queue, name, reason)

        if message is not None:
            # The one that waits for the result must not wait for ever.
            await self._on_dead(message, reason)

        await self._stream.bury(delivery, reason)

    async def done(self, delivery: Delivery) -> None:
        """Acknowledge a message, however long Redis is away."""
        failures = 0

        while True:
            try:
                if not await self._stream.done(delivery):
                    self.doubled += 1
                    logger.warning("queue %r: message %s was run twice", self._queue, delivery.id)

                break
            except TRANSIENT as error:
                failures += 1
                logger.warning("message %s is not acknowledged yet: %s", delivery.id, describe(error))
                await asyncio.sleep(delay(failures, 0.1, 2.0))

        self._drop(delivery.id)

    def _drop(self, message_id: str) -> None:
        self._in_hand.pop(message_id, None)

        if self._alone == message_id:
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
                    level, "queue %r: Redis did not do what it should: %s", self._queue, describe(error)
                )
            except Exception:
                failures += 1
                pause = delay(failures, 0.1, 2.0)
                logger.exception("queue %r: an unexpected failure", self._queue)

            if pause:
                await asyncio.sleep(spread(pause, 0.75, 1.0))

    async def _renew(self) -> float:
        ids = [*self._in_hand, *(delivery.id for delivery in self._suspects)]

        for start in range(0, len(ids), 500):
            for lost in await self._stream.renew(ids[start : start + 500]):
                if lost in self._in_hand and self._in_hand[lost] not in self._buffer:
                    # Acknowledged a moment ago, or this worker was stopped: the job ends, and says so.
                    logger.debug("queue %r: message %s is not this worker's any more", self._queue, lost)
                else:
                    self._forget(lost)

        return self._lease / 3

    def _forget(self, message_id: str) -> None:
        """Drop a message that has not begun here and that another worker has by now."""
        self._buffer = deque(found for found in self._buffer if found.id != message_id)
        self._suspects = deque(found for found in self._suspects if found.id != message_id)
        self._drop(message_id)

    async def _reclaim(self) -> float:
        free = self.concurrency - len(self._in_hand) - len(self._suspects)

        if free > 0 and self._alone is None:
            await self._accept(await self._stream.reclaim(min(free, _BATCH), self._max_deliveries))

        return self._lease / 3

    async def _move_due(self) -> float:
        following = await self._stream.move_due()
        return _MOST_SLEEP if following is None else max(0.01, min(following, _MOST_SLEEP))


async def cancel_and_wait(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, again and again: a driver may swallow a cancellation while it reconnects."""
    with anyio.CancelScope(shield=True):
        while pending := [found for found in tasks if not found.done()]:
            for found in pending:
                found.cancel()

            await asyncio.wait(pending, timeout=0.5)
