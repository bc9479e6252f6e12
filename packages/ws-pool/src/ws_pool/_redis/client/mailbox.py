"""What has arrived for one subscriber, and what it has subscribed to; bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from redis import exceptions as driver

MAX_UNREAD: Final = 10_000
"""Messages that a subscriber may have unread, before they are dropped with an error."""

MAX_UNREAD_BYTES: Final = 32 * 1024 * 1024
"""The same in bytes: Redis's default limit for subscribers, ``client-output-buffer-limit``."""


Kind = Literal["", "p", "s"]
"""Of a channel, a pattern or a sharded channel: the letter before SUBSCRIBE."""


class Topic(NamedTuple):
    """What one subscribes to."""

    kind: Kind
    name: bytes


class Mailbox:
    """What has arrived for one subscriber: responses as of the server, and errors."""

    def __init__(self) -> None:
        self.topics: dict[Topic, bool] = {}  # and whether their confirmation was passed on
        self._unread: deque[list[Any] | Exception] = deque()  # Any: names, data and counts
        self._bytes = 0  # of them
        self._counts = [0, 0]  # of the topics that are confirmed; sharded ones are the second
        self._arrived = asyncio.Event()

    def put(self, response: list[Any]) -> None:
        """Add a response."""
        size = _size(response)

        # As a server does with the connection of a subscriber that falls behind.
        if len(self._unread) >= MAX_UNREAD or (self._unread and self._bytes + size > MAX_UNREAD_BYTES):
            missed = f"{len(self._unread)} messages ({self._bytes} bytes) were not read in time"
            self._unread.clear()
            self._bytes = 0
            self.fail(driver.ConnectionError(f"{missed}, and are dropped"))

        self._unread.append(response)
        self._bytes += size
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Add an error, unless the last that was added is one."""
        if not self._unread or not isinstance(self._unread[-1], Exception):
            self._unread.append(error)
            self._arrived.set()

    async def get(self, timeout: float | None) -> list[Any] | None:
        """Return the next response, waiting for it at most ``timeout`` seconds, or raise the next error."""
        if not self._unread:
            try:
                async with asyncio.timeout(timeout):
                    while not self._unread:
                        self._arrived.clear()
                        await self._arrived.wait()
            except TimeoutError:
                return None

        response = self._unread.popleft()

        if isinstance(response, Exception):
            raise response

        self._bytes -= _size(response)
        return response

    def confirm(self, topic: Topic) -> None:
        """Note that a topic is subscribed, and add its confirmation, once."""
        if self.topics[topic]:
            return

        self.topics[topic] = True
        self._counts[topic.kind == "s"] += 1
        self.put([f"{topic.kind}subscribe".encode(), topic.name, self._counts[topic.kind == "s"]])

    def unconfirm(self, topic: Topic) -> None:
        """Note that a topic is not subscribed at the moment."""
        if self.topics[topic]:
            self.topics[topic] = False
            self._counts[topic.kind == "s"] -= 1

    def remove(self, topic: Topic) -> None:
        """Forget a topic."""
        if topic in self.topics:
            self.unconfirm(topic)
            del self.topics[topic]

    def put_end(self, topic: Topic) -> None:
        """Add the confirmation that a topic has ended."""
        self.put([f"{topic.kind}unsubscribe".encode(), topic.name, self._counts[topic.kind == "s"]])


def _size(response: Sequence[Any]) -> int:  # Any: names, data and counts
    data = response[-1]
    return len(data) if isinstance(data, bytes) else 0
