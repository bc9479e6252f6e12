"""The client's address, decided from the peer and X-Forwarded-For, trusting only named proxies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


@lru_cache(maxsize=16)
def networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse trusted networks."""
    return tuple(ip_network(cidr, strict=False) for cidr in cidrs)


def client_ip(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> str | None:
    """
    Return the client's address.

    Each proxy appends the address it was called from, so the chain is read from right to left:
    as long as an address belongs to a trusted proxy, the one before it is believed. The first
    address that is not trusted is the client. What is left of it could have been written by
    anyone and is not looked at.

    Example:
        >>> ours = networks(("10.0.0.0/8",))
        >>> client_ip("10.0.0.2", ["6.6.6.6, 198.51.100.7, 10.0.0.9"], ours)
        '198.51.100.7'
        >>> client_ip("203.0.113.5", ["127.0.0.1"], ours)
        '203.0.113.5'
    """
    current = _address(peer)

    if current is None:
        return peer

    chain = [part.strip() for header in forwarded for part in header.split(",")]

    for entry in reversed(chain):
        if not any(current in network for network in trusted):
            break

        before = _address(entry)

        if before is None:
            break  # nonsense in the chain: what a proxy of ours was called from is all we know

        current = before

    return str(current)


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    """Parse an address as proxies write it: bare, with a port, or IPv6 in brackets."""
    if not text:
        return None

    if text.startswith("["):
        text, closing, _ = text[1:].partition("]")

        if not closing:
            return None
    elif text.count(":") == 1:
        text = text.partition(":")[0]

    try:
        address = ip_address(text)
    except ValueError:
        return None

    # ::ffff:10.0.0.2 is 10.0.0.2 as seen through a dual-stack socket
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
