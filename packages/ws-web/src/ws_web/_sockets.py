"""Sockets to listen on: one for a single process, or a port that several share.

Workers that accept from one shared socket do not get equal parts: whichever wakes first takes all that
waits. So each worker opens a socket of its own on the port (SO_REUSEPORT), and the kernel spreads
connections evenly among those that listen. The parent holds the port by a socket that never listens.
"""

from __future__ import annotations

import errno
import socket

from ws_core.errors import ConfigError

__all__ = ("bind", "join", "reserve")

_BACKLOG = 2048

Names = tuple[str, str]


def bind(host: str, port: int) -> socket.socket:
    """
    Listen on an address, for this process alone.

    Args:
        host: An IPv4 or IPv6 address, or a name.
        port: The TCP port; 0 takes a free one.

    Returns:
        The listening socket.

    Raises:
        ConfigError: The port is occupied, not allowed, or the address is not ours.
    """
    try:
        listener = _open(host, port, socket.SO_REUSEADDR)

        try:
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise _why_not(error, host, port, ("LISTEN_HOST", "LISTEN_PORT")) from None

    return listener


def reserve(host: str, port: int, *, names: Names = ("LISTEN_HOST", "LISTEN_PORT")) -> socket.socket:
    """
    Hold a port for worker processes, which `join` it.

    Args:
        host: An IPv4 or IPv6 address, or a name.
        port: The TCP port; 0 takes a free one.
        names: What the user calls host and port, for messages.

    Returns:
        A socket that is bound and does not listen; its name tells the workers where to join.

    Raises:
        ConfigError: The port is occupied, not allowed, or the address is not ours.
    """
    try:
        # Sockets that share a port do not notice each other: the first look is with one that does not share.
        _open(host, port, socket.SO_REUSEADDR).close()
    except OSError as error:
        raise _why_not(error, host, port, names) from None

    try:
        # Without SO_REUSEADDR the first look of another parent fails, even before a worker of ours listens.
        return _open(host, port, socket.SO_REUSEPORT)
    except OSError:
        pass

    try:
        # Connections of a server that has just ended are still closing.
        return _open(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    except OSError as error:  # pragma: no cover - taken since the first look
        raise _why_not(error, host, port, names) from None


def join(host: str, port: int) -> socket.socket:
    """
    Open a worker's socket on the port that its parent holds.

    Args:
        host: The address.
        port: The TCP port.

    Returns:
        A socket that is bound; it gets its part of the connections once it listens.
    """
    return _open(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)


def _open(host: str, port: int, *options: int) -> socket.socket:
    """Bind a socket that has these options."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)

    try:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)

        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise

    return sock


def _why_not(error: OSError, host: str, port: int, names: Names) -> ConfigError:
    """Say why listening failed, and what to do."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    if error.errno == errno.EADDRINUSE:
        message = f"{where} is in use by another program: stop it, or choose another {names[1]}"
    elif error.errno in (errno.EACCES, errno.EPERM):
        message = f"no permission to listen on {where}: choose a {names[1]} of 1024 or above"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        message = f"{host} is no address of this machine: choose another {names[0]}"
    else:
        message = f"cannot listen on {where}: {error.strerror or error}"

    return ConfigError(message, host=host, port=port)
