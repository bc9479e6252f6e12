"""TCP ports for servers of our own, reserved against every other process that uses this module.

Ports come from below the range that the system uses for outgoing connections. So a server that
was killed finds its port free again, and a client that knocks at a dead server's port can never
be connected to itself. A lock file per port keeps two test runs from choosing the same one.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Self

__all__ = ("HOST", "PortReservation", "listens")

HOST = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000  # below net.ipv4.ip_local_port_range, which begins at 32768


class PortReservation:
    """
    A port that no other user of this module gets, until `release`.

    Example:
        >>> with PortReservation() as one, PortReservation() as other:
        ...     one.port != other.port
        True
    """

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / f"wintersweet-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        chance = random.SystemRandom()  # not the global one: tests seed that

        for _ in range(2_000):
            port = chance.randint(_FIRST, _LAST)
            descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue

            if _is_free(port):
                self.port = port
                self._descriptor: int | None = descriptor
                return

            os.close(descriptor)

        message = f"no free TCP port between {_FIRST} and {_LAST} on {HOST}"
        raise OSError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have the port; may be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        try:
            probe.bind((HOST, port))
        except OSError:
            return False

    return True


def listens(pid: int, port: int) -> bool:
    """
    Return whether it is this process that listens on a port, and not a stranger.

    Args:
        pid: The process id.
        port: The TCP port.

    Returns:
        The answer; True where the system does not say (no /proc).
    """
    table = Path("/proc/net/tcp")

    if not table.exists():
        return True

    listening = set()

    for line in table.read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]

        if state == "0A" and local.endswith(f":{port:04X}"):
            listening.add(f"socket:[{inode}]")

    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    return any(_target(descriptor) in listening for descriptor in descriptors)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""  # closed while we looked
