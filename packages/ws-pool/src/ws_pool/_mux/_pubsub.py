"""redis-py's PubSub on a connection that is lent."""

from __future__ import annotations

import warnings
from typing import Any

from redis.asyncio.client import PubSub

from ws_pool._mux._leases import LeasePool

__all__ = ("LentPubSub",)


class LentPubSub(PubSub):
    """
    A PubSub whose connection comes back even when it was forgotten.

    Args:
        leases: Lends the connection, at the first subscription.
        **options: Of redis-py's PubSub.
    """

    def __init__(self, leases: LeasePool, **options: Any) -> None:  # Any: redis-py's own signature
        super().__init__(leases, **options)
        self._leases = leases

    def __del__(self) -> None:
        """Warn of a connection that was kept; the loop takes it back."""
        connection = getattr(self, "connection", None)

        if connection is None:
            return

        super().__del__()  # type: ignore[no-untyped-call]  # redis-py's

        if self._leases.abandon(connection):
            message = (
                "a PubSub was not closed and kept its connection: await its aclose(), or use `async with`"
            )
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)
