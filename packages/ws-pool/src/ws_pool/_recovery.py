"""A server that is down: who asks for it is told at once, and it is tried again until it answers."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Generic, TypeVar

from ws_pool._connector import Connector
from ws_pool._ledger import Ledger
from ws_pool._outage import MIN_BACKOFF, QUICK_PROBE, next_pause, say
from ws_pool._terms import Options
from ws_pool._timers import Timers
from ws_pool.errors import UnavailableError

__all__ = ("Recovery",)

logger = logging.getLogger("ws_pool")

T = TypeVar("T")


class Recovery(Generic[T]):
    """
    Knows whether the server is down, and finds out when it is back.

    Args:
        name: The pool's name.
        connector: Names the server.
        ledger: The books.
        timers: For the pauses between attempts.
        options: The durations.
        attempt: Begins a connect that may take so many seconds; it is booked before.
    """

    __slots__ = ("_attempt", "_connector", "_ledger", "_name", "_options", "_pause", "_timers", "failure")

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one machine
        self,
        name: str,
        connector: Connector[T],
        ledger: Ledger[T],
        timers: Timers,
        options: Options,
        attempt: Callable[[float], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._name = name
        self._connector = connector
        self._ledger = ledger
        self._timers = timers
        self._options = options
        self._attempt = attempt
        self._pause = MIN_BACKOFF

    def unavailable(self) -> UnavailableError:
        """Say that the server is down, and why; a new error for each who is told."""
        reason = "" if self.failure is None else say(self.failure)
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

        self._ledger.totals.failures += 1

        if self.failure is None:
            logger.warning("pool %r: cannot connect to %s: %s", self._name, self._connector, say(error))

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
        ledger, patient = self._ledger, self._options.connect_timeout

        if self.failure is None:
            return

        if ledger.connecting < ledger.max_connecting and ledger.size < ledger.max_size:
            hurry = ledger.connecting > 0 or ledger.max_size == 1 or ledger.max_connecting == 1
            ledger.connecting += 1
            self._attempt(min(QUICK_PROBE, patient) if hurry else patient)

        is_refusal = self._options.is_refusal
        refused = is_refusal is not None and is_refusal(self.failure)
        self._pause = next_pause(self._pause, refused=refused)
        self._timers.set("probe", self._pause, self._probe)
