"""A circuit breaker: after some failures in a row a host is left alone for a while.

It is a state machine without timers: *closed* lets all requests through; *open* refuses them until
its time is over; then *half-open* lets a single one through, whose outcome closes or opens it again.
"""

from __future__ import annotations

__all__ = ("CircuitBreaker",)


class CircuitBreaker:
    """
    The breaker of one host.

    Args:
        failures: How many failures in a row open it.
        reset: Seconds that it stays open.

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

    __slots__ = ("_count", "_failures", "_open_until", "_probing", "_reset")

    def __init__(self, failures: int, reset: float) -> None:
        self._failures = failures
        self._reset = reset
        self._count = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_closed(self) -> bool:
        """Whether all requests are let through."""
        return self._count < self._failures

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to remember."""
        return self._count == 0

    def refusal(self, now: float) -> float | None:
        """
        Ask to make a request.

        Args:
            now: The time.

        Returns:
            None when it may be made; otherwise how many seconds to wait before asking again.
        """
        if self.is_closed:
            return None

        if now < self._open_until or self._probing:
            return max(0.0, self._open_until - now)

        self._probing = True
        return None

    def succeeded(self) -> None:
        """Note that a request got an answer."""
        self._count = 0
        self._probing = False

    def failed(self, now: float) -> None:
        """Note that a request got none, or one that says that the host is down."""
        self._count += 1
        self._probing = False

        if not self.is_closed:
            self._open_until = now + self._reset

    def abandoned(self) -> None:
        """Note that nothing was learned from a request, such as when it was cancelled."""
        self._probing = False
