"""Refusing connections to addresses that are not public.

The address is checked where the socket is made, so that neither a name that resolves to a private
address, nor one that changes between two look-ups, nor a redirect gets around it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

__all__ = ("DeniedAddress", "guarded_socket", "is_public")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")  # deprecated, but still understood


class DeniedAddress(OSError):
    """The address is not on the public internet."""


def is_public(address: str) -> bool:
    """
    Return whether an address is on the public internet, also one wrapped into IPv6.

    Example:
        >>> [is_public(a) for a in ("93.184.215.14", "10.0.0.1", "127.0.0.1", "::1", "::ffff:10.0.0.1")]
        [True, False, False, False, False]
    """
    found = ipaddress.ip_address(address.partition("%")[0])

    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]

        if inner is None and (found in _NAT64 or found in _IPV4_COMPATIBLE):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)

        if inner is not None:
            return is_public(str(inner))

    return found.is_global and not found.is_multicast


def guarded_socket(info: tuple[Any, ...]) -> socket.socket:  # as getaddrinfo gives it
    """Make the socket of a connection, or raise DeniedAddress when its address is not public."""
    family, kind, protocol, _, address = info

    if not is_public(str(address[0])):
        raise DeniedAddress(f"{address[0]} is not a public address")

    return socket.socket(family, kind, protocol)
