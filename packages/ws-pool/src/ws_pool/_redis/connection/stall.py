"""How a server that is busy with a large upload is distinguished from one that is gone."""

from __future__ import annotations

import asyncio
import sys

if sys.platform == "win32":
    _TIOCOUTQ: int | None = None
else:
    import fcntl
    import termios

    _TIOCOUTQ = termios.TIOCOUTQ


class StallDetector:
    """
    Decides when the oldest reply is overdue. Pure.

    A server that is silent because it takes a large upload is alive: taken bytes count as a sign of life.

    Example:
        >>> stall = StallDetector(5.0)
        >>> stall.due(10.0, sent=0.0, received=0.0, written=100, unsent=80)  # it takes an upload
        15.0
        >>> stall.due(15.0, sent=0.0, received=0.0, written=100, unsent=0)  # it has taken the rest
        20.0
        >>> stall.due(20.0, sent=0.0, received=0.0, written=100, unsent=0)  # and is silent
        20.0
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._taken = 0  # bytes that had reached the other side at the last call
        self._unsent = 0  # bytes that had not
        self.progressed = 0.0  # when taken last grew

    def due(self, now: float, *, sent: float, received: float, written: int, unsent: int) -> float:
        """Return the time at which the oldest reply is overdue, unless something happens before."""
        taken = written - unsent

        if taken > self._taken and (unsent or self._unsent):  # small writes only reach this machine's buffer
            self.progressed = now

        self._taken, self._unsent = taken, unsent
        return max(sent, received, self.progressed) + self._timeout


def unacknowledged(transport: asyncio.Transport) -> int:
    """Return how many bytes the other side has not acknowledged; 0 where the system does not report it."""
    sock = transport.get_extra_info("socket")

    if sock is None or _TIOCOUTQ is None:
        return 0

    try:
        answer = fcntl.ioctl(sock.fileno(), _TIOCOUTQ, bytes(4))
    except OSError:
        return 0

    return int.from_bytes(answer, sys.byteorder)
