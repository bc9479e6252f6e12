"""A server that is down: fail acquires at once, and try to connect until the server answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from ws_core.backoff import spread
from ws_core.errors import describe
from ws_pool._core.background import Timers
from ws_pool._core.options import Lifecycle, PoolOptions
from ws_pool._core.pool_state import PoolState
from ws_pool.errors import ClosedError, NotReadyError, UnavailableError, UsageError

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

QUICK_PROBE = 1.0  # seconds for an attempt beside a slow one, or where only one may be under way
MIN_BACKOFF = 0.05  # seconds until the first attempt after a failed one
_MAX_BACKOFF = 0.5  # seconds between attempts while the server is down: found again within 2 s
_MAX_REFUSED = 30.0  # seconds between attempts at a server that refuses us: a wrong password floods its log


class Recovery(Generic[T]):
    """
    Knows whether the server is down, and finds out when it is back.

    ``connect`` begins an attempt with a timeout in seconds; it is counted as connecting before.
    """

    def __init__(
        self,
        options: PoolOptions[T],
        state: PoolState[T],
        timers: Timers,
        connect: Callable[[float], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._name = options.name
        self._connector = options.connector
        self._options = options
        self._state = state
        self._timers = timers
        self._connect = connect
        self._pause = MIN_BACKOFF

    def unavailable(self) -> UnavailableError:
        """Return the error of a server that is down: a new one for each waiter, as each gets a traceback."""
        reason = "" if self.failure is None else describe(self.failure)
        error = UnavailableError(
            f"pool {self._name!r} cannot connect to {self._connector}: {reason}", pool=self._name
        )
        error.__cause__ = self.failure
        return error

    def failed(self, error: Exception, timeout: float, *, again: bool) -> None:
        """Record a failed attempt that had ``timeout`` seconds, and plan another one if ``again``."""
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout:g} s")

        self._state.totals.failures += 1

        if self.failure is None:  # once per outage, not once per attempt
            logger.warning("pool %r: cannot connect to %s: %s", self._name, self._connector, describe(error))

        self.failure = error

        if again and "probe" not in self._timers:
            self._pause = MIN_BACKOFF
            self._timers.set("probe", spread(self._pause, 0.5, 1.0), self._probe)

    def succeeded(self) -> None:
        """Record that a connection was opened."""
        if self.failure is not None:
            logger.info("pool %r: %s answers again", self._name, self._connector)

        self.failure = None

    def _probe(self) -> None:
        """Try to reach the server, and plan the next attempt without waiting for this one."""
        state, timeout = self._state, self._options.connect_timeout

        if self.failure is None:
            return

        if state.connecting < state.max_connecting and state.size < state.max_size:
            # An attempt that began while packets were lost may hang long after the server is back,
            # and a slow server needs an attempt with the whole timeout. So one attempt has the whole
            # timeout and the others are quick. Where only one may be under way, it is a quick one.
            quick = state.connecting > 0 or state.max_size == 1 or state.max_connecting == 1
            state.connecting += 1
            self._connect(min(QUICK_PROBE, timeout) if quick else timeout)

        is_refusal = self._options.is_refusal
        refused = is_refusal is not None and is_refusal(self.failure)
        self._pause = next_pause(self._pause, refused=refused)
        self._timers.set("probe", self._pause, self._probe)


def next_pause(pause: float, *, refused: bool) -> float:
    """
    Return the pause after the next attempt; ``refused`` if the server is up and refuses us.

    Example:
        >>> next_pause(0.05, refused=False), next_pause(0.5, refused=False), next_pause(0.5, refused=True)
        (0.1, 0.5, 1.0)
    """
    return min(_MAX_REFUSED if refused else _MAX_BACKOFF, pause * 2)


def unusable(name: str, lifecycle: Lifecycle, *, forked: bool) -> UsageError:
    """Return the error of a pool that cannot be used here and now."""
    if lifecycle is Lifecycle.NEW:
        message = f"pool {name!r} is not started: use `async with` or await its start()"
        return NotReadyError(message, pool=name)

    if lifecycle is not Lifecycle.OPEN:
        return ClosedError(f"pool {name!r} is closed", pool=name)

    if forked:
        message = f"pool {name!r} was started before this process forked: start one in each process"
        return UsageError(message, pool=name)

    return UsageError(f"pool {name!r} belongs to another event loop: use it where it was started", pool=name)
