"""How a pool deals with connections of one kind: the protocol that a driver is wrapped in."""

from __future__ import annotations

from typing import Protocol, TypeVar

T = TypeVar("T")


class Connector(Protocol[T]):
    """
    How a pool deals with connections of one kind.

    ``str(connector)`` names the server in errors and must hold no secrets.
    """

    async def open(self) -> T:
        """Open a connection, ready for use; leave nothing behind when cancelled or failing."""
        ...

    def is_alive(self, conn: T) -> bool:
        """
        Return without I/O whether a connection can be used.

        It must be False when the connection is known to be broken **and** when an exchange on it
        was cut short, so that a late reply can never reach another user.
        """
        ...

    def is_clean(self, conn: T) -> bool:
        """Return without I/O whether the session is as new, so that `reset` may be skipped."""
        ...

    async def ping(self, conn: T) -> None:
        """Check that the server answers; raise an error when it does not."""

    async def reset(self, conn: T) -> None:
        """Make the session as new: no transaction, no session state. Raise an error when that fails."""

    async def close(self, conn: T) -> None:
        """Close gracefully."""

    def terminate(self, conn: T) -> None:
        """Close at once, without I/O that could wait."""
