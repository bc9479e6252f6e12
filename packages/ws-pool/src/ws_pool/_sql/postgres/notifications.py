"""LISTEN and NOTIFY: a connection of its own that comes back after an outage, and says what was missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_pool._sql.postgres.connection import Listener
from ws_pool._sql.postgres.connector import module_of
from ws_pool._sql.postgres.options import Server
from ws_pool.errors import ClosedError, UnavailableError, UsageError

logger = logging.getLogger("ws_pool.sql")

_PING_EVERY: Final = 5.0  # seconds; a server that has gone without a word is noticed after two of these
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_MOST: Final = 10_000  # notifications kept for a reader that is late


@dataclass(frozen=True, slots=True)
class Notification:
    """
    One message of NOTIFY.

    Args:
        channel: Its channel.
        payload: Its text, empty when there was none.
        pid: The process of the server that sent it.
    """

    channel: str
    payload: str
    pid: int


@dataclass(frozen=True, slots=True)
class NotificationGap:
    """
    A time in which messages may have been missed; comes in their place.

    Args:
        seconds: From the last sign of life of the lost connection until the new one listened; 0 when
            the reader was so late that messages were dropped.
        dropped: Messages dropped because the reader was late.
    """

    seconds: float
    dropped: int = 0


class Notifications:
    """
    The messages of some channels, in order; made by `PostgresPool.listen`.

    Iterate over it: each item is a `Notification` or a `NotificationGap`. Only what comes after a gap is
    complete again, so read the state that the messages are about anew when one comes.
    """

    def __init__(self, name: str, server: Server, channels: tuple[str, ...]) -> None:
        given: tuple[object, ...] = channels  # whatever the caller gave: the annotation binds nobody

        for channel in given:
            if not isinstance(channel, str) or not channel:
                message = f"pool {name!r}: the name of a channel is a string, not {channel!r}"
                raise UsageError(message)

        self._name = name
        self._server = server
        self._channels = channels
        self._items: deque[Notification | NotificationGap] = deque()
        self._arrived = asyncio.Event()
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None
        self._alive_at = 0.0
        self._dropped = 0

    async def __aenter__(self) -> Self:
        """Listen; the server must be there."""
        try:
            await self._listen()
        except (OSError, TimeoutError) as error:
            message = f"pool {self._name!r}: listen() cannot reach {self._server}: {describe(error)}"
            raise UnavailableError(message, pool=self._name) from error

        self._task = asyncio.create_task(self._keep_listening())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notification | NotificationGap:
        while not self._items:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return NotificationGap(0.0, dropped)

            if self._task is None:
                message = f"pool {self._name!r}: this listen() block has ended"
                raise ClosedError(message, pool=self._name)

            self._arrived.clear()
            await self._arrived.wait()

        return self._items.popleft()

    async def aclose(self) -> None:
        """Stop listening, and close the connection."""
        task, self._task = self._task, None
        self._arrived.set()

        if task is not None:
            task.cancel()
            await asyncio.wait({task})

        listener, self._listener = self._listener, None

        if listener is not None:
            listener.terminate()

    async def _listen(self) -> None:
        """Connect, and subscribe to all channels."""
        self._listener = await module_of(self._server).open_listener(
            self._server, self._channels, self._receive
        )
        self._note_life()

    async def _keep_listening(self) -> None:
        """Notice when the connection is lost, and open another until the block ends."""
        while self._listener is not None:
            await self._listener.watch(_PING_EVERY, self._note_life)
            lost_at = self._alive_at
            self._listener.terminate()
            logger.warning("pool %r: lost the connection that listens: connecting again", self._name)
            await self._connect_again()
            self._items.append(NotificationGap(time.monotonic() - lost_at))
            self._arrived.set()

    def _note_life(self) -> None:
        self._alive_at = time.monotonic()

    async def _connect_again(self) -> None:
        attempt = 0

        while True:
            attempt += 1

            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - it ends with the block, not with an outage
                logger.debug("pool %r: listen() attempt %d: %s", self._name, attempt, describe(error))
                await asyncio.sleep(delay(attempt, _FIRST_PAUSE, _LONGEST_PAUSE))
            else:
                return

    def _receive(self, channel: str, payload: str, pid: int) -> None:
        self._note_life()

        # Messages that come while the queue is full are counted, and reported behind those in it.
        if len(self._items) >= _MOST or self._dropped:
            self._dropped += 1
        else:
            self._items.append(Notification(channel, payload, pid))

        self._arrived.set()
