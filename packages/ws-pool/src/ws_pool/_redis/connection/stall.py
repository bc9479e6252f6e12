"""Telling a server that is silent because it is busy taking what is written to it from one that is gone."""

from __future__ import annotations

import asyncio
import sys

if sys.platform == "win32":
    _TIOCOUTQ: int | None = None
else:
    import fcntl
    import termios

    _TIOCOUTQ = termios.TIOCOUTQ

__all__ = ("StallDetector", "unacknowledged")


class StallDetector:
    """
    Decides when the oldest reply is overdue. Pure.

    Args:
        timeout: Seconds without a reply, and without any byte taken, after which it is.

    Example:
        >>> progress = StallDetector(5.0)
        >>> progress.due(10.0, sent=0.0, received=0.0, handed=100, waiting=80)  # it takes an upload
        15.0
        >>> progress.due(15.0, sent=0.0, received=0.0, handed=100, waiting=0)  # it has taken the rest
        20.0
        >>> progress.due(20.0, sent=0.0, received=0.0, handed=100, waiting=0)  # and says nothing
        20.0
    """

    __slots__ = ("_gone", "_timeout", "_waiting", "left")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._gone = 0  # bytes that had reached the other side when this was last asked
        self._waiting = 0  # those that had not
        self.left = 0.0  # when some were last seen on their way

    def due(self, now: float, *, sent: float, received: float, handed: int, waiting: int) -> float:
        """
        Tell when the oldest reply is overdue, unless something happens until then.

        Args:
            now: The time.
            sent: When its command was written.
            received: When anything was last received.
            handed: Bytes that were written so far.
            waiting: Those of them that have not reached the other side.

        Returns:
            The time; it is overdue when that has come.
        """
        gone = handed - waiting

        if gone > self._gone and (waiting or self._waiting):  # small ones only reach the system there
            self.left = now

        self._gone, self._waiting = gone, waiting
        return max(sent, received, self.left) + self._timeout


def unacknowledged(transport: asyncio.Transport) -> int:
    """
    Ask the system how much it still has to send.

    Args:
        transport: A connection's.

    Returns:
        Bytes that the other side has not acknowledged; 0 where the system does not tell.
    """
    sock = transport.get_extra_info("socket")

    if sock is None or _TIOCOUTQ is None:
        return 0

    try:
        answer = fcntl.ioctl(sock.fileno(), _TIOCOUTQ, bytes(4))
    except OSError:
        return 0

    return int.from_bytes(answer, sys.byteorder)
