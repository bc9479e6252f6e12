"""From a message to its listeners: one bounded queue and one task for each listener.

A listener gets its messages one after the other, in order. One that is slow fills its own queue
only, one that raises is logged and goes on with the next message; neither holds up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ws_core.metrics import Sample, sample
from ws_pool._core.background import cancel_and_wait, is_cancelled
from ws_pool.errors import UsageError

Listener = Callable[..., Awaitable[object]]
OverflowPolicy = Literal["drop_oldest", "drop_newest"]

_logger: Final = logging.getLogger("ws_pool.events")


@dataclass(frozen=True, slots=True)
class Event:
    """What was published: a tag, by which listeners choose, and the arguments for them."""

    tag: str
    args: Sequence[Any]  # Any: whatever JSON can hold
    kwargs: Mapping[str, Any]
    trace: Mapping[str, str] | None = None  # the headers of the trace that it belongs to


def undelivered(bus: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[Sample]:
    """Yield samples of the events of a bus that no listener got, by reason."""
    for reason, count in counts.items():
        attributes = {**bus, "wintersweet.reason": reason}
        yield sample("wintersweet.messaging.undelivered", count, attributes=attributes)


def dump(event: Event) -> str:
    """Write an event as JSON, or raise UsageError when it holds something that JSON can't."""
    try:
        fields: dict[str, Any] = {"tag": event.tag, "args": list(event.args), "kwargs": dict(event.kwargs)}

        if event.trace:
            fields["trace"] = dict(event.trace)

        return json.dumps(fields, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"an event {event.tag!r} holds what JSON cannot: {error}"
        raise UsageError(message, tag=event.tag) from error


def load(text: str | bytes) -> Event | None:
    """Read an event; None when the text is not one of ours."""
    try:
        data = json.loads(text)
        trace = {str(name): str(value) for name, value in dict(data.get("trace") or {}).items()}
        return Event(str(data["tag"]), list(data["args"]), dict(data["kwargs"]), trace or None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class ListenerStatistics:
    """
    The state of one listener, with counts of its messages.

    Args:
        tag: What it listens to.
        name: The listener's qualified name.
        delivered: Messages for which it has returned.
        failed: Messages for which it has raised.
        dropped: Messages that were dropped because its queue was full.
        queued: Messages in its queue now.
    """

    tag: str
    name: str
    delivered: int
    failed: int
    dropped: int
    queued: int


class ListenerTask:
    """One listener with its queue and its task."""

    def __init__(
        self, tag: str, listener: Listener, *, size: int, policy: OverflowPolicy, channel: str = ""
    ) -> None:
        self.tag = tag
        self.channel = channel
        self.listener = listener
        self._size = size
        self._policy = policy
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._retired = False
        self._delivered = self._failed = self._dropped = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"ws-pool listener {tag}")

    def put(self, event: Event) -> None:
        """Queue an event; when the queue is full, the policy decides which one is dropped."""
        if len(self._queue) >= self._size:
            self._dropped += 1

            # The first is news, and then each thousandth: a listener that is too slow would fill the log.
            if self._dropped == 1 or self._dropped % 1000 == 0:
                _logger.warning(
                    "listener %s is too slow: %d events %r dropped", self._name, self._dropped, self.tag
                )

            if self._policy == "drop_newest":
                return

            self._queue.popleft()

        self._queue.append(event)
        self._idle.clear()
        self._wake.set()

    def retire(self) -> None:
        """Take no more events; a call in flight may end by itself."""
        self._retired = True
        self._queue.clear()
        self._wake.set()

    @property
    def ended(self) -> bool:
        """Whether its task has ended."""
        return self._task.done()

    async def drained(self) -> None:
        """Wait until the queue is empty and the last call has ended."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Cancel the task, and wait for its end."""
        await cancel_and_wait(self._task)

    @property
    def _name(self) -> str:
        return getattr(self.listener, "__qualname__", repr(self.listener))

    async def _run(self) -> None:
        while True:
            while self._queue:
                event = self._queue.popleft()

                try:
                    await self.call(event)
                except (Exception, asyncio.CancelledError) as error:
                    # A listener may raise CancelledError of its own: that is a failure like others.
                    if is_cancelled(error):
                        raise

                    self._failed += 1
                    _logger.exception("listener %s failed over an event %r", self._name, event.tag)
                else:
                    self._delivered += 1

            self._idle.set()

            if self._retired:
                return

            self._wake.clear()
            await self._wake.wait()

    async def call(self, event: Event) -> None:
        """Call the listener, which may be traced."""
        await self.listener(*event.args, **event.kwargs)

    def statistics(self) -> ListenerStatistics:
        """Return a frozen snapshot."""
        return ListenerStatistics(
            self.tag, self._name, self._delivered, self._failed, self._dropped, len(self._queue)
        )


class Listeners:
    """The listeners of a bus by tag, each with a queue of ``size`` events."""

    def __init__(self, *, size: int, policy: OverflowPolicy, channel: str = "") -> None:
        self._size = size
        self._channel = channel
        self._policy: OverflowPolicy = policy
        self._listeners: dict[str, list[Listener]] = {}
        self._tasks: dict[str, list[ListenerTask]] = {}
        self._running = False
        self._leaving: list[ListenerTask] = []

    def add(self, tag: str, listener: Listener) -> None:
        """Add a listener; one that is there already stays once."""
        listeners = self._listeners.setdefault(tag, [])

        if listener not in listeners:
            listeners.append(listener)

            if self._running:
                self._start(tag, listener)

    def remove(self, tag: str, listener: Listener) -> bool:
        """Remove a listener, and return whether it was there; its queue is dropped."""
        listeners = self._listeners.get(tag, [])

        if listener not in listeners:
            return False

        listeners.remove(listener)

        for task in [task for task in self._tasks.get(tag, ()) if task.listener == listener]:
            self._tasks[tag].remove(task)
            task.retire()
            self._leaving = [*(other for other in self._leaving if not other.ended), task]

        return True

    def start(self) -> None:
        """Begin to deliver."""
        self._running = True

        for tag, listeners in self._listeners.items():
            for listener in listeners:
                self._start(tag, listener)

    async def stop(self, *, drain: float) -> None:
        """Stop delivering; queues may drain for some seconds first."""
        self._running = False
        tasks = [*(task for group in self._tasks.values() for task in group), *self._leaving]
        self._tasks.clear()
        self._leaving = []

        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await asyncio.gather(*(task.drained() for task in tasks))
        finally:
            await asyncio.gather(*(task.stop() for task in tasks))

    def deliver(self, event: Event) -> int:
        """Queue an event for its listeners, and return how many there are."""
        tasks = self._tasks.get(event.tag, ())

        for task in tasks:
            task.put(event)

        return len(tasks)

    def _start(self, tag: str, listener: Listener) -> None:
        task = ListenerTask(tag, listener, size=self._size, policy=self._policy, channel=self._channel)
        self._tasks.setdefault(tag, []).append(task)

    def statistics(self) -> tuple[ListenerStatistics, ...]:
        """Return a frozen snapshot of each listener."""
        return tuple(task.statistics() for group in self._tasks.values() for task in group)
