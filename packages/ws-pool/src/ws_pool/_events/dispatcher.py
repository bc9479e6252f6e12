"""From messages of a stream to their listeners: in order within a tag, tags side by side.

A line that fails waits out its pauses; meanwhile it takes one place of those in hand, so that the
lines of other tags go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ws_pool._core.background import cancel_and_wait, is_cancelled
from ws_pool._events.listeners import Event, Listener, load

__all__ = ("ListenerTimeout", "Message", "OrderedDispatcher")

_logger: Final = logging.getLogger("ws_pool.events")
_MOST: Final = 10  # times prefetch that may be in hand when lines fail


class ListenerTimeout(TimeoutError):  # noqa: N818 - named like AcquireTimeout
    """A listener took too long; whether it has done something is unknown."""


@dataclass(slots=True)
class Message:
    """
    A message in hand.

    Args:
        id: Its id in the stream.
        text: What it holds.
        attempt: Which attempt the next one is, over all consumers.
        owed: Whether listeners are called even if all attempts seem to be used up.
    """

    id: str
    text: str
    attempt: int
    owed: bool


class OrderedDispatcher:
    """
    A line for each tag, worked off by a task of its own.

    Args:
        stream: The stream's name, for messages.
        listeners: Who listens, by tag; may change at any time.
        prefetch: Most messages in hand.
        attempts: How often a message is tried.
        backoff: Shortest and longest pause in seconds before a listener is called again.
        listener_timeout: Seconds that a listener may take, or None.
        acknowledge: Called with what is done.
        dead_letter: Called with what is given up, and why.
    """

    def __init__(  # noqa: PLR0913 - made in one place only, by name
        self,
        stream: str,
        listeners: Mapping[str, Sequence[Listener]],
        *,
        prefetch: int,
        attempts: int,
        backoff: tuple[float, float],
        listener_timeout: float | None,
        acknowledge: Callable[[Message], Awaitable[None]],
        dead_letter: Callable[[Message, BaseException | None], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._listeners = listeners
        self._prefetch = prefetch
        self._attempts = attempts
        self._backoff = backoff
        self._listener_timeout = listener_timeout
        self._acknowledge = acknowledge
        self._dead_letter = dead_letter
        self._lines: dict[str, deque[tuple[Message, Event]]] = {}
        self._failing: set[str] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_hand: dict[str, Message] = {}
        self.delivered = self.unheard = self.retried = self.overdue = 0

    async def room(self) -> int:
        """
        Wait until more messages may be taken.

        Returns:
            How many.
        """
        await self._room.wait()
        return max(1, self._free())

    async def drained(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    async def stop(self) -> None:
        """End all work; what is in hand stays pending at the server."""
        await cancel_and_wait(*self._workers)

    def accept(self, message: Message) -> None:
        """
        Put a message into the line of its tag, unless it is in hand already.

        Args:
            message: The message.
        """
        if message.id in self.in_hand:
            return

        self.in_hand[message.id] = message
        event = load(message.text) or Event("", (), {})
        line = self._lines.get(event.tag)

        if line is not None:
            line.append((message, event))
        else:
            self._lines[event.tag] = deque([(message, event)])
            worker = asyncio.get_running_loop().create_task(self._work(event.tag))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

        self._measure()

    # Inside -----------------------------------------------------------------------------------

    def _free(self) -> int:
        waiting = sum(len(self._lines[tag]) for tag in self._failing)
        taken = len(self.in_hand)
        return min(self._prefetch - (taken - waiting), _MOST * self._prefetch - taken)

    def _measure(self) -> None:
        """Tell those who wait for room, or for the end of all work."""
        for event, state in ((self._room, self._free() > 0), (self._idle, not self.in_hand)):
            if state:
                event.set()
            else:
                event.clear()

    async def _work(self, tag: str) -> None:
        line = self._lines[tag]

        try:
            while line:
                message, event = line.popleft()

                try:
                    await self._deliver(message, event)
                except Exception:  # it stays pending, and is claimed again
                    _logger.exception("stream bus %r: cannot deal with message %s", self._stream, message.id)
                finally:
                    del self.in_hand[message.id]
                    self._failing.discard(tag)
                    self._measure()
        finally:
            del self._lines[tag]

            for message, _ in line:
                del self.in_hand[message.id]

            self._measure()

    async def _deliver(self, message: Message, event: Event) -> None:
        """Call the listeners until all have returned or the message is given up, then acknowledge it."""
        waiting = list(self._listeners.get(event.tag, ()))
        heard = bool(waiting)
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
                    await asyncio.sleep(self._pause(message.attempt))

        if waiting:
            await self._dead_letter(message, error)
            return

        self.delivered += heard
        self.unheard += not heard
        await self._acknowledge(message)

    async def _call(
        self, listeners: list[Listener], event: Event
    ) -> tuple[list[Listener], BaseException | None]:
        """Call listeners one after the other, and return those that have raised."""
        failed: list[Listener] = []
        last: BaseException | None = None

        for listener in listeners:
            try:
                await self._heed(listener, event)
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise

                _logger.exception("a listener failed over an event %r of stream %r", event.tag, self._stream)
                failed.append(listener)
                last = last if isinstance(last, ListenerTimeout) else error

        return failed, last

    async def _heed(self, listener: Listener, event: Event) -> None:
        """Call a listener; one that takes too long is cancelled, and left behind if it swallows that."""
        limit = self._listener_timeout

        if limit is None:
            await listener(*event.args, **event.kwargs)
            return

        async def call() -> None:
            await listener(*event.args, **event.kwargs)

        task = asyncio.get_running_loop().create_task(call(), name=f"ws-pool listener {event.tag}")

        try:
            await asyncio.wait([task], timeout=limit)

            if not task.done():
                self.overdue += 1
                raise ListenerTimeout(f"a listener took longer than {limit:g} s")

            await task
        finally:
            await cancel_and_wait(task)

    def _pause(self, attempt: int) -> float:
        shortest, longest = self._backoff
        return min(longest, shortest * 2.0 ** (attempt - 2)) * random.uniform(0.5, 1.0)
