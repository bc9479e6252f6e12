"""The errors of ws-redislock.

They stand in the tree of `ws_core.errors`::

    WsError
    ├── LockLost                       the lease ended before the holder gave it back
    ├── ConfigError                    a name, a lease or a limit that cannot work
    ├── UsageError                     another loop, acquired twice, a closed pool
    ├── AcquireTimeout
    │   └── LockNotAcquired            the lock was not free in time
    └── UnavailableError               Redis cannot be reached, or not enough replicas confirmed
"""

from __future__ import annotations

from ws_core.errors import (
    AcquireTimeout,
    ClosedError,
    ConfigError,
    MissingExtraError,
    UnavailableError,
    UsageError,
    WsError,
)

__all__ = (
    "AcquireTimeout",
    "ClosedError",
    "ConfigError",
    "LockLost",
    "LockNotAcquired",
    "MissingExtraError",
    "UnavailableError",
    "UsageError",
    "WsError",
)


class LockLost(WsError):
    """
    The lease ended before the holder gave it back: another may hold the lock now.

    What was written under the lock since then may meet another holder's writes; a store that
    compares the fence refuses them.
    """

    default_code = "lock_lost"


class LockNotAcquired(AcquireTimeout):
    """The lock was not free in time. Also a `TimeoutError`."""

    default_code = "lock_not_acquired"
