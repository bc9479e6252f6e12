"""A circuit breaker: after some failures in a row a host is left alone for a while.

It is a state machine without timers: *closed* lets all requests through; *open* refuses them until
its time is over; then *half-open* lets a single one through, whose outcome closes or opens it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from yarl import URL

from ws_core.redaction import mask_url
from ws_pool.errors import HttpCircuitOpen, HttpConnectionError, HttpTimeout, WsError

_logger: Final = logging.getLogger("ws_pool")
_MANY_HOSTS: Final = 1000
_DOWN: Final = frozenset({502, 503, 504})


class CircuitBreaker:
    """
    The breaker of one host: opens after some failures in a row, for ``reset`` seconds.

    Example:
        >>> breaker = CircuitBreaker(2, 30.0)
        >>> breaker.failed(0.0)
        >>> breaker.failed(1.0)
        >>> breaker.refusal(2.0), breaker.refusal(32.0), breaker.refusal(32.0)
        (29.0, None, 0.0)
        >>> breaker.succeeded()
        >>> breaker.refusal(33.0) is None
        True
    """

    __slots__ = ("_count", "_failures", "_open_until", "_probing", "_reset", "epoch")

    def __init__(self, failures: int, reset: float) -> None:
        self._failures = failures
        self._reset = reset
        self._count = 0
        self._open_until = 0.0
        self._probing = False
        self.epoch: int = 0  # changes with the state: of a request from an earlier one nothing is learned

    @property
    def is_closed(self) -> bool:
        """Whether all requests are let through."""
        return self._count < self._failures

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to remember."""
        return self._count == 0

    def refusal(self, now: float) -> float | None:
        """Return None when a request may be made, otherwise how many seconds to wait first."""
        if self.is_closed:
            return None

        if now < self._open_until or self._probing:
            return max(0.0, self._open_until - now)

        self._probing = True
        self.epoch += 1
        return None

    def succeeded(self) -> None:
        """Note that a request got an answer."""
        self.epoch += not self.is_closed
        self._count = 0
        self._probing = False

    def failed(self, now: float) -> None:
        """Note that a request got none, or one that says that the host is down."""
        self._count += 1
        self._probing = False

        if not self.is_closed:
            self._open_until = now + self._reset
            self.epoch += 1

    def abandoned(self) -> None:
        """Note that nothing was learned from a request, such as when it was cancelled."""
        self._probing = False


class Admission:
    """
    The leave to make one request, and where its outcome goes.

    A request may outlast the state in which it was admitted. Its outcome must then neither close a
    breaker that has opened since, nor end the probe of another request.
    """

    __slots__ = ("_epoch", "breaker")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker: CircuitBreaker = breaker
        self._epoch = breaker.epoch

    @property
    def counts(self) -> bool:
        """Whether the breaker is in the state in which it admitted the request."""
        return self._epoch == self.breaker.epoch

    def abandoned(self) -> None:
        """Note that nothing was learned from the request, such as when it was cancelled."""
        if self.counts:
            self.breaker.abandoned()


class HostBreakers:
    """A pool's breakers, one for each host; not enabled when ``failures`` is 0."""

    def __init__(self, pool: str, failures: int, reset: float) -> None:
        self._pool = pool
        self._failures = failures
        self._reset = reset
        self._breakers: dict[str, CircuitBreaker] = {}
        self.clock: Callable[[], float] = time.monotonic

    def __iter__(self) -> Iterator[str]:
        return iter(self._breakers)

    @property
    def enabled(self) -> bool:
        """Whether there are breakers at all."""
        return self._failures > 0

    def admit(self, url: URL) -> Admission:
        """Admit a request to a URL's host, or raise HttpCircuitOpen while that is left alone."""
        host = f"{url.host}:{url.port}"
        breaker = self._breakers.get(host)

        if breaker is None:
            # Hosts come from users' URLs too: those without a failure need no memory.
            if len(self._breakers) >= _MANY_HOSTS:
                self._breakers = {name: kept for name, kept in self._breakers.items() if not kept.is_idle}

            breaker = self._breakers[host] = CircuitBreaker(self._failures, self._reset)

        if (wait := breaker.refusal(self.clock())) is not None:
            shown = mask_url(str(url))
            message = f"{shown}: {host} failed too often, next try in {wait:.1f} s"
            raise HttpCircuitOpen(message, pool=self._pool, url=shown, retry_after=wait)

        return Admission(breaker)

    def record(self, admission: Admission, failure: WsError | None, status: int | None) -> None:
        """Record the outcome of a request with its host's breaker."""
        breaker = admission.breaker

        if not admission.counts:
            return

        if isinstance(failure, HttpConnectionError | HttpTimeout) or status in _DOWN:
            breaker.failed(self.clock())

            if not breaker.is_closed:
                _logger.warning(
                    "http pool %r: a host fails and is left alone: %s", self._pool, failure or status
                )
        elif failure is None:
            breaker.succeeded()
        else:
            breaker.abandoned()
