"""A server that is down: who asks for it is told at once, and it is tried again until it answers."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Generic, TypeVar

from ws_core.errors import describe
from ws_pool._core.background import Timers
from ws_pool._core.connector import Connector
from ws_pool._core.options import Lifecycle, PoolOptions
from ws_pool._core.pool_state import PoolState
from ws_pool.errors import AcquireTimeout, ClosedError, NotReadyError, UnavailableError, UsageError

__all__ = (
    "MIN_BACKOFF",
    "QUICK_PROBE",
    "Recovery",
    "acquire_timeout",
    "next_pause",
    "unusable",
)

logger = logging.getLogger("ws_pool")

T = TypeVar("T")


class Recovery(Generic[T]):
    """
    Knows whether the server is down, and finds out when it is back.

    Args:
        name: The pool's name.
        connector: Names the server.
        state: The books.
        timers: For the pauses between attempts.
        options: The durations.
        attempt: Begins a connect that may take so many seconds; it is booked before.
    """

    __slots__ = ("_attempt", "_connector", "_name", "_options", "_pause", "_state", "_timers", "failure")

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one machine
        self,
        name: str,
        connector: Connector[T],
        state: PoolState[T],
        timers: Timers,
        options: PoolOptions,
        attempt: Callable[[float], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._name = name
        self._connector = connector
        self._state = state
        self._timers = timers
        self._options = options
        self._attempt = attempt
        self._pause = MIN_BACKOFF

    def unavailable(self) -> UnavailableError:
        """Say that the server is down, and why; a new error for each who is told."""
        reason = "" if self.failure is None else describe(self.failure)
        error = UnavailableError(
            f"pool {self._name!r} cannot connect to {self._connector}: {reason}", pool=self._name
        )
        error.__cause__ = self.failure
        return error

    def failed(self, error: Exception, timeout: float, *, again: bool) -> None:
        """
        Note that a connect has failed.

        Args:
            error: Why.
            timeout: How many seconds it had.
            again: Whether to try again.
        """
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout:g} s")

        self._state.totals.failures += 1

        if self.failure is None:
            logger.warning("pool %r: cannot connect to %s: %s", self._name, self._connector, describe(error))

        self.failure = error

        if again and "probe" not in self._timers:
            self._pause = MIN_BACKOFF
            self._timers.set("probe", self._pause * random.uniform(0.5, 1.0), self._probe)

    def answered(self) -> None:
        """Note that a connect has succeeded."""
        if self.failure is not None:
            logger.info("pool %r: %s answers again", self._name, self._connector)

        self.failure = None

    def _probe(self) -> None:
        """
        Try to reach a server that is down.

        Beside a patient attempt, which a slow server needs, go quick ones: an attempt that began
        while packets were lost may hang long after the server is back. Where only one attempt may
        be under way, it is a quick one.
        """
        state, patient = self._state, self._options.connect_timeout

        if self.failure is None:
            return

        if state.connecting < state.max_connecting and state.size < state.max_size:
            hurry = state.connecting > 0 or state.max_size == 1 or state.max_connecting == 1
            state.connecting += 1
            self._attempt(min(QUICK_PROBE, patient) if hurry else patient)

        is_refusal = self._options.is_refusal
        refused = is_refusal is not None and is_refusal(self.failure)
        self._pause = next_pause(self._pause, refused=refused)
        self._timers.set("probe", self._pause, self._probe)


QUICK_PROBE = 1.0  # seconds for an attempt beside a patient one, or where only one may be under way
MIN_BACKOFF = 0.05  # seconds until the first attempt after a failed one
_MAX_BACKOFF = 0.5  # seconds between attempts while the server is down: found again within 2 s
_MAX_REFUSED = 30.0  # seconds between attempts at a server that refuses us: a wrong password floods its log


def next_pause(pause: float, *, refused: bool) -> float:
    """
    Give the pause before the next attempt but one.

    Args:
        pause: The last pause in seconds.
        refused: Whether the server is up and refuses us.

    Example:
        >>> next_pause(0.05, refused=False), next_pause(0.5, refused=False), next_pause(0.5, refused=True)
        (0.1, 0.5, 1.0)
    """
    return min(_MAX_REFUSED if refused else _MAX_BACKOFF, pause * 2)


def unusable(name: str, state: Lifecycle, *, forked: bool) -> UsageError:
    """
    Say why a pool cannot be used here and now.

    Args:
        name: The pool's.
        state: The pool's.
        forked: Whether this process is a child of the one that started the pool.
    """
    if state is Lifecycle.NEW:
        message = f"pool {name!r} is not started: use `async with` or await its start()"
        return NotReadyError(message, pool=name)

    if state is not Lifecycle.OPEN:
        return ClosedError(f"pool {name!r} is closed", pool=name)

    if forked:
        message = f"pool {name!r} was started before this process forked: start one in each process"
        return UsageError(message, pool=name)

    return UsageError(f"pool {name!r} belongs to another event loop: use it where it was started", pool=name)


def acquire_timeout(  # noqa: PLR0913 - keyword-only, and each is said
    name: str,
    *,
    seconds: float,
    size: int,
    max_size: int,
    waiting: int,
    holders: tuple[str, ...],
    failure: BaseException | None,
) -> AcquireTimeout:
    """
    Say that there was no connection in time, and who holds those that exist.

    Args:
        name: The pool's.
        seconds: How long was waited.
        size: Connections that exist.
        max_size: Most connections.
        waiting: How many wait.
        holders: Who holds connections, and how long.
        failure: Why the last connect failed, if it did.
    """
    details = [f"size {size} of {max_size}", f"{waiting} waiting"]

    if failure is not None:
        details.append(f"the last connect failed: {describe(failure)}")

    if holders:
        details.append("longest holders: " + ", ".join(holders))

    return AcquireTimeout(
        f"pool {name!r}: no connection was free within {seconds:g} s ({'; '.join(details)})",
        pool=name,
        size=size,
        max_size=max_size,
        waiting=waiting,
        holders=holders,
    )
