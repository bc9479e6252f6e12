"""From messages of a stream to their listeners: in order within a tag, tags side by side.

A tag whose listener fails waits between attempts. Meanwhile its queued messages do not count as in
hand, so that other tags go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_pool._core.background import cancel_and_wait, is_cancelled
from ws_pool._events.listeners import Event, Listener, load

_logger: Final = logging.getLogger("ws_pool.events")
_MOST: Final = 10  # times prefetch that may be in hand when listeners fail


class ListenerTimeout(TimeoutError):
    """A listener took too long; whether it has done something is unknown."""


class Message:
    """A message in hand: its id in the stream, the event as text (None if it was deleted), and its event."""

    __slots__ = ("attempt", "event", "id", "owed", "text")

    def __init__(self, entry_id: str, text: str | None, attempt: int, *, owed: bool) -> None:
        self.id = entry_id
        self.text = text
        self.event = None if text is None else load(text)
        self.attempt = attempt  # which attempt the next one is, over all consumers
        self.owed = owed  # whether listeners are called even if all attempts seem to be used up

    @property
    def tag(self) -> str:
        """The event's tag; empty for a message that is not an event."""
        return "" if self.event is None else self.event.tag


class OrderedDispatcher:
    """A queue and a task for each tag. The mapping of listeners may change at any time."""

    def __init__(
        self,
        stream: str,
        listeners: Mapping[str, Sequence[Listener]],
        *,
        prefetch: int,
        attempts: int,
        backoff: tuple[float, float],
        listener_timeout: float | None,
        ignores: Callable[[str], bool],
        acknowledge: Callable[[Message], Awaitable[None]],
        leave_waiting: Callable[[Message], Awaitable[None]],
        dead_letter: Callable[[Message, str], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._listeners = listeners
        self._prefetch = prefetch
        self._attempts = attempts
        self._backoff = backoff
        self._listener_timeout = listener_timeout
        self._ignores = ignores
        self._acknowledge = acknowledge
        self._leave_waiting = leave_waiting
        self._dead_letter = dead_letter
        self._queues: dict[str, deque[Message]] = {}
        self._failing: set[str] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self.in_hand: dict[str, Message] = {}
        self.delivered = self.unheard = self.retried = self.overdue = 0
        self.restart()

    def restart(self) -> None:
        """Make ready for an event loop, which may be another one than before."""
        self._room, self._idle = asyncio.Event(), asyncio.Event()
        self._measure()

    async def room(self) -> int:
        """Wait until more messages may be taken, and return how many."""
        await self._room.wait()
        return max(1, self._free())

    async def drained(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    async def stop(self) -> None:
        """End all work; what is in hand stays pending at the server."""
        await cancel_and_wait(*self._workers)

    def accept(self, message: Message) -> None:
        """Queue a message behind those of its tag, unless it is in hand already."""
        if message.id in self.in_hand:
            return

        self.in_hand[message.id] = message
        queue = self._queues.get(message.tag)

        if queue is not None:
            queue.append(message)
        else:
            self._queues[message.tag] = deque([message])
            worker = asyncio.get_running_loop().create_task(self._work(message.tag))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

        self._measure()

    async def call(self, listener: Listener, event: Event) -> None:
        """Call a listener, which may be traced."""
        await listener(*event.args, **event.kwargs)

    @property
    def stream(self) -> str:
        """The stream's key."""
        return self._stream

    def _free(self) -> int:
        waiting = sum(len(self._queues[tag]) for tag in self._failing)
        taken = len(self.in_hand)
        return min(self._prefetch - (taken - waiting), _MOST * self._prefetch - taken)

    def _measure(self) -> None:
        """Wake the tasks that wait for room, or for the end of all work."""
        for event, state in ((self._room, self._free() > 0), (self._idle, not self.in_hand)):
            if state:
                event.set()
            else:
                event.clear()

    async def _work(self, tag: str) -> None:
        queue = self._queues[tag]

        try:
            while queue:
                message = queue.popleft()

                try:
                    await self._deliver(message)
                except Exception:  # it stays pending, and is claimed again
                    _logger.exception("stream bus %r: cannot deal with message %s", self._stream, message.id)
                finally:
                    del self.in_hand[message.id]
                    self._failing.discard(tag)
                    self._measure()
        finally:
            del self._queues[tag]

            for message in queue:
                del self.in_hand[message.id]

            self._measure()

    async def _deliver(self, message: Message) -> None:
        """Bring a message to its end: acknowledged, left for another consumer, or a dead letter."""
        event = message.event

        # Four cases. An entry that was deleted while it was pending has nothing to deliver.
        if message.text is None:
            await self._acknowledge(message)
        # Something else than an event: no consumer will ever have a listener for it.
        elif event is None:
            await self._dead_letter(message, "it is not an event")
        elif listeners := self._listeners.get(event.tag):
            await self._call_all(list(listeners), message, event)
        # The listener may come later, or another consumer of the group have it: an event is never
        # acknowledged because nobody listens here, unless that was asked for.
        elif self._ignores(event.tag):
            self.unheard += 1
            await self._acknowledge(message)
        else:
            await self._leave_waiting(message)

    async def _call_all(self, waiting: list[Listener], message: Message, event: Event) -> None:
        """Call listeners until all have returned or the message is given up."""
        error: BaseException | None = None

        while waiting and (message.owed or message.attempt <= self._attempts):
            message.owed = False
            waiting, error = await self._call(waiting, event)

            if isinstance(error, ListenerTimeout) and message.attempt < self._attempts:
                return  # it stays pending, and is claimed again

            if waiting:
                message.attempt += 1

                if message.attempt <= self._attempts:
                    self.retried += 1
                    self._failing.add(event.tag)
                    self._measure()
                    await asyncio.sleep(delay(message.attempt - 1, *self._backoff))

        if waiting:
            reason = "given up after a crash" if error is None else describe(error, with_type=True)
            await self._dead_letter(message, reason)
            return

        self.delivered += 1
        await self._acknowledge(message)

    async def _call(
        self, listeners: list[Listener], event: Event
    ) -> tuple[list[Listener], BaseException | None]:
        """Call listeners one after the other, and return those that have raised."""
        failed: list[Listener] = []
        last: BaseException | None = None

        for listener in listeners:
            try:
                await self._call_one(listener, event)
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise

                _logger.exception("a listener failed over an event %r of stream %r", event.tag, self._stream)
                failed.append(listener)
                last = last if isinstance(last, ListenerTimeout) else error

        return failed, last

    async def _call_one(self, listener: Listener, event: Event) -> None:
        """Call a listener, and cancel it when it takes too long; one that swallows that is left behind."""
        limit = self._listener_timeout

        if limit is None:
            await self.call(listener, event)
            return

        async def call() -> None:
            await self.call(listener, event)

        task = asyncio.get_running_loop().create_task(call(), name=f"ws-pool listener {event.tag}")

        try:
            await asyncio.wait([task], timeout=limit)

            if not task.done():
                self.overdue += 1
                raise ListenerTimeout(f"a listener took longer than {limit:g} s")

            await task
        finally:
            await cancel_and_wait(task)
