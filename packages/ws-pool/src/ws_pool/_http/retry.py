"""When a failed attempt is made again: one pure decision."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

__all__ = ("IDEMPOTENT", "RETRY_STATUSES", "retry_after", "retry_delay")

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""Methods that may be repeated without harm (RFC 9110, 9.2.2)."""

RETRY_STATUSES = frozenset({429, 503})
"""The server wants the request later; it has not worked on it."""


def retry_delay(
    attempt: int,
    *,
    first: float,
    most: float,
    asked: float | None,
    fraction: float,
) -> float | None:
    """
    Return the seconds before the next attempt; None when the server wants more than ``most``.

    Without a wish of the server it is full jitter: a random part of an exponentially growing bound,
    so that clients that failed together do not come back together.

    Example:
        >>> [retry_delay(n, first=0.1, most=10, asked=None, fraction=1.0) for n in (1, 2, 3, 20)]
        [0.1, 0.2, 0.4, 10.0]
        >>> retry_delay(1, first=0.1, most=10, asked=3.0, fraction=0.0)
        3.0
        >>> retry_delay(1, first=0.1, most=10, asked=60.0, fraction=0.0) is None
        True
    """
    if asked is not None:
        return asked + fraction * first if asked <= most else None

    return min(most, first * 2.0 ** min(attempt - 1, 60)) * fraction


def retry_after(value: str | None, now: datetime) -> float | None:
    """
    Read a Retry-After header, a number or a date, as seconds from now; None when it is neither.

    Example:
        >>> from datetime import UTC
        >>> retry_after("120", datetime.now(UTC))
        120.0
        >>> retry_after("Wed, 21 Oct 2015 07:28:00 GMT", datetime(2015, 10, 21, 7, 27, tzinfo=UTC))
        60.0
        >>> retry_after("soon", datetime.now(UTC)) is None
        True
    """
    if value is None:
        return None

    text = value.strip()

    if text.isascii() and text.isdigit():
        return float(text)

    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None
