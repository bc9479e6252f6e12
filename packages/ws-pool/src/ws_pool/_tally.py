"""How long connections of a pool were waited for, used and made, and the snapshot of it all."""

from __future__ import annotations

from typing import Generic, TypeVar

from ws_pool._ledger import Ledger
from ws_pool._outage import say
from ws_pool._statistics import Histogram, HistogramBuilder, PoolStatistics

__all__ = ("Tally",)

T = TypeVar("T")


class Tally(Generic[T]):
    """
    Times of one pool.

    Args:
        name: The pool's name.
        ledger: The books.
    """

    __slots__ = ("_ledger", "_name", "creates", "leases", "waits")

    def __init__(self, name: str, ledger: Ledger[T]) -> None:
        self.waits: HistogramBuilder = HistogramBuilder()  # of those who had to wait only
        self.leases: HistogramBuilder = HistogramBuilder()
        self.creates: HistogramBuilder = HistogramBuilder()
        self._name = name
        self._ledger = ledger

    def snapshot(self, failure: BaseException | None) -> PoolStatistics:
        """
        Freeze the present state.

        Args:
            failure: Why the server cannot be reached, if it cannot.
        """
        ledger, totals = self._ledger, self._ledger.totals
        leases = self.leases.snapshot()
        waits = list(self.waits.counts)
        waits[0] += leases.count + len(ledger.leased) - sum(waits)  # those who did not wait are not recorded
        return PoolStatistics(
            name=self._name,
            min_size=ledger.min_size,
            max_size=ledger.max_size,
            size=ledger.size,
            idle=len(ledger.idle),
            leased=len(ledger.leased),
            connecting=ledger.connecting,
            waiting=len(ledger.waiters),
            opened=totals.opened,
            closed=totals.closed,
            timeouts=totals.timeouts,
            failures=totals.failures,
            wait_time=Histogram(tuple(waits), self.waits.total),
            lease_time=leases,
            down="" if failure is None else say(failure),
            create_time=self.creates.snapshot(),
        )
