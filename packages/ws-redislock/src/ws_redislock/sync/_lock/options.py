# Written by tools/generate_sync_locks.py from ws_redislock/_lock/options.py; do not edit.
"""The options that all locks share, checked before anything happens."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

from ws_redislock.sync._lock.held import OnLost
from ws_redislock._redis.keys import PREFIX, check_prefix
from ws_redislock.errors import ConfigError
from ws_redislock.observe import LockObserver

BUDGET = 5.0
"""Seconds for which one command is tried again when Redis does not answer."""

RELEASED_MS = 10_000
"""For how long the server remembers that an acquisition was released."""

SHORTEST = 0.01
"""Seconds below which a lease is over before its reply is there."""

LONGEST = 1e9
"""Seconds beyond which no lease or timeout makes sense; far from the end of Redis's integers."""


class LockOptions:
    """The options that all locks share, checked; `MutexLock` describes them."""

    __slots__ = (
        "auto_renew",
        "common",
        "delay_ms",
        "expire",
        "fence_ms",
        "heartbeat_ms",
        "key_prefix",
        "lease_ms",
        "min_replicas",
        "observer",
        "on_lost",
        "reentrant",
    )

    def __init__(
        self,
        expire: float,
        *,
        auto_renew: bool = True,
        heartbeat: float = 10.0,
        min_replicas: int = 0,
        lock_delay: float = 0.0,
        fence_ttl: float = 3600.0,
        reentrant: bool = False,
        key_prefix: str = PREFIX,
        on_lost: OnLost | None = None,
        observer: LockObserver | None = None,
    ) -> None:
        self.expire: float = seconds("expire", expire, above=0.0)

        if expire < SHORTEST:
            raise ConfigError(
                f"expire must be at least {SHORTEST:g} s, not {expire!r}: none outlives a round trip",
                option="expire",
                value=expire,
            )

        # What scripts take, once per set of options and not once per lock.
        self.lease_ms: int = max(1, round(expire * 1000))
        self.heartbeat_ms: int = round(seconds("heartbeat", heartbeat, above=0.1) * 1000)
        self.delay_ms: int = round(seconds("lock_delay", lock_delay) * 1000)
        # The last fence outlives the lease, whatever happens to its renewals.
        self.fence_ms: int = max(
            round(seconds("fence_ttl", fence_ttl, above=0.0) * 1000), self.lease_ms + self.delay_ms + 1000
        )
        # What batches of such locks share; see ``fast.lua``.
        self.common: tuple[int, int, int, int] = (self.lease_ms, self.delay_ms, self.fence_ms, RELEASED_MS)
        self.key_prefix: str = check_prefix(key_prefix)
        self.auto_renew: bool = _flag("auto_renew", auto_renew)
        self.reentrant: bool = _flag("reentrant", reentrant)

        if on_lost is not None and not callable(on_lost):
            raise ConfigError(f"on_lost must be a function, not {on_lost!r}", option="on_lost", value=on_lost)

        self.on_lost: OnLost | None = on_lost
        self.observer: LockObserver | None = observer

        if type(min_replicas) is not int or min_replicas < 0:
            raise ConfigError(
                f"min_replicas must be a whole number from 0, not {min_replicas!r}",
                option="min_replicas",
                value=min_replicas,
            )

        self.min_replicas: int = min_replicas

        if expire < 0.5:
            warnings.warn(
                f"expire={expire!r} leaves {expire / 6:.3f} s for a renewal: "
                f"a busy loop or network will lose it",
                RuntimeWarning,
                stacklevel=4,  # who makes the lock: behind this, `options_of` and the lock's own __init__
            )


def seconds(name: str, value: object, *, above: float | None = None) -> float:
    """Return an option that is a time in seconds, as a float; raise ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} must be seconds as a number, not {value!r}", option=name, value=value)

    if value < 0 or (above is not None and value <= above):
        bound = "at least 0" if above is None else f"more than {above:g}"
        raise ConfigError(f"{name} must be {bound} seconds, not {value!r}", option=name, value=value)

    if value > LONGEST:
        raise ConfigError(
            f"{name} must be at most {LONGEST:g} seconds (30 years), not {value!r}", option=name, value=value
        )

    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}", option=name, value=value)

    return value


# Most locks are made with the same options: those without callbacks are checked once.
_remembered = functools.lru_cache(maxsize=128, typed=True)(LockOptions)


def options_of(
    expire: float, *, on_lost: OnLost | None = None, observer: LockObserver | None = None, **options: Any
) -> LockOptions:  # Any: as LockOptions has them
    """Return checked options; see `LockOptions`."""
    # A lease so short that it is warned of is warned of each time.
    if on_lost is None and observer is None and type(expire) in {int, float} and expire >= 0.5:
        try:
            return _remembered(expire, **options)
        except TypeError:  # what cannot be remembered cannot be right: LockOptions says why
            pass

    return LockOptions(expire, on_lost=on_lost, observer=observer, **options)
