"""Refusing connections to addresses that are not public.

The address is checked where the socket is made, so that neither a name that resolves to a private
address, nor one that changes between two look-ups, nor a redirect gets around it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

# Each holds an IPv4 address in its last 32 bits: NAT64, IPv4-compatible (deprecated, but still
# understood) and IPv4-translated (RFC 6052, 4291 and 2765).
_WRAPPERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
_ISATAP = 0x5EFE  # the same, in the lower half of an address of any network (RFC 5214)
# What some supported versions of Python take for global: local NAT64, site-local, documentation,
# segment routing, the block of IETF protocols, and relays of 6to4.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16", "192.0.0.0/24", "192.88.99.0/24"),
    )
)


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

        isatap = int(found) >> 32 & 0xFDFFFFFF == _ISATAP

        if inner is None and (isatap or any(found in network for network in _WRAPPERS)):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)

        if inner is not None and not (isatap and not found.is_global):
            return is_public(str(inner))

    return found.is_global and not found.is_multicast and not any(found in net for net in _NOT_PUBLIC)


def guarded_socket(info: tuple[Any, ...]) -> socket.socket:  # as getaddrinfo gives it
    """Make the socket of a connection, or raise DeniedAddress when its address is not public."""
    family, kind, protocol, _, address = info

    if not is_public(str(address[0])):
        raise DeniedAddress(f"{address[0]} is not a public address")

    return socket.socket(family, kind, protocol)
