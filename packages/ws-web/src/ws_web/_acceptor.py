"""Accept connections from a socket that several workers share; the one with the fewest comes first.

One socket for all means that a worker may end at any time: what waits in the queue is accepted by another
one, and nothing is refused. But whichever worker wakes first takes all that waits (264 of 300
connections, measured). So workers write on a shared board how many connections they have open, and one
that has more than another waits a moment before it accepts.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable

_POLITE = 0.002  # seconds that a worker leaves to those with fewer connections
_PAUSE = 0.1  # seconds without accepting when the system has no descriptors left
_NOBODY = 0xFFFFFFFF  # more connections than anybody has: it makes nobody wait

logger = logging.getLogger("ws_web")


class Board:
    """The numbers of open connections of all workers, in memory that they share."""

    def __init__(self, descriptor: int, size: int, place: int = -1) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 4 * size)
        self._numbers = memoryview(self._memory).cast("I")
        self._place = place

    @classmethod
    def create(cls, size: int) -> Board:
        """Make a board on which nobody has written yet."""
        with tempfile.TemporaryFile() as file:
            file.write(struct.pack("I", _NOBODY) * size)
            file.flush()
            return cls(os.dup(file.fileno()), size)

    def clear(self, place: int) -> None:
        """Note that nobody is in a place."""
        self._numbers[place] = _NOBODY

    def write(self, count: int) -> None:
        """Write how many connections this worker has open."""
        self._numbers[self._place] = count

    def has_fewer(self, count: int) -> bool:
        """Return whether another worker has fewer connections than this number."""
        return any(number < count for place, number in enumerate(self._numbers) if place != self._place)

    def close(self) -> None:
        """Unmap the memory."""
        self._numbers.release()
        self._memory.close()
        os.close(self.descriptor)


class Acceptor:
    """Accept one connection after the other, and hand each to a protocol."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        count: Callable[[], int],
        board: Board,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._count = count
        self._board = board
        self._ssl = ssl_context
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._waiting: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._board.write(self._count())
        self._loop.add_reader(self._listener.fileno(), self._on_connection)

    async def stop(self) -> None:
        """Accept no more; return when what was accepted has its protocol."""
        self._loop.remove_reader(self._listener.fileno())

        if self._waiting is not None:
            self._waiting.cancel()

        await asyncio.gather(*self._opening, return_exceptions=True)

    def _on_connection(self) -> None:
        mine = self._count() + len(self._opening)
        self._board.write(mine)

        if self._board.has_fewer(mine):
            self._wait(_POLITE)
        else:
            self._accept()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._waiting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        """Accept, although others have fewer connections: they may be busy."""
        self._waiting = None
        self._loop.add_reader(self._listener.fileno(), self._on_connection)
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has gone
        except OSError as error:
            logger.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400 - the message says it
            self._wait(_PAUSE)
            return

        connection.setblocking(False)
        opening = self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        task: asyncio.Task[object] = asyncio.ensure_future(opening)
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[object]) -> None:
        self._opening.discard(task)

        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("a connection failed before it was open: %s", error)  # a TLS handshake, say
