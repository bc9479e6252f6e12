"""A socket to listen on, or a clear reason why there is none."""

from __future__ import annotations

import errno
import socket

from ws_core.errors import ConfigError

_BACKLOG = 2048

Names = tuple[str, str]


def bind(host: str, port: int, *, names: Names = ("LISTEN_HOST", "LISTEN_PORT")) -> socket.socket:
    """
    Listen on an address that nobody else listens on.

    Args:
        host: An IPv4 or IPv6 address, or a name.
        port: The TCP port; 0 takes a free one.
        names: What the user calls host and port, for messages.

    Returns:
        The listening socket.

    Raises:
        ConfigError: The port is occupied, not allowed, or the address is not ours.
    """
    try:
        return _open(host, port)
    except OSError as error:
        raise _why_not(error, host, port, names) from None


def _open(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)

    try:
        # Connections of a server that has just ended may still be closing.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise

    return sock


def _why_not(error: OSError, host: str, port: int, names: Names) -> ConfigError:
    """Return why listening failed, and what to do."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    if error.errno == errno.EADDRINUSE:
        message = f"{where} is in use by another program: stop it, or choose another {names[1]}"
    elif error.errno in (errno.EACCES, errno.EPERM):
        message = f"no permission to listen on {where}: choose a {names[1]} of 1024 or above"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        message = f"{host} is not an address of this machine: choose another {names[0]}"
    else:
        message = f"cannot listen on {where}: {error.strerror or error}"

    return ConfigError(message, host=host, port=port)
