"""When a failed attempt is made again: one pure decision."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from ws_core.backoff import delay, spread

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""Methods that may be repeated without harm (RFC 9110, 9.2.2)."""

RETRY_STATUSES = frozenset({429, 503})
"""The server wants the request later; it has not worked on it."""


_SECONDS: Final = re.compile(r"\d+(\.\d*)?", re.ASCII)


def retry_delay(attempt: int, *, first: float, most: float, asked: float | None) -> float | None:
    """Return the seconds before the next attempt; None when the server asks for more than ``most``."""
    # A random part in both cases, so that clients that failed together do not come back together.
    if asked is None:
        return delay(attempt, first, most, jitter=1.0)

    return asked + spread(first, 0.0, 1.0) if asked <= most else None


def retry_after(value: str | None, now: datetime) -> float | None:
    """
    Read a Retry-After header, a number or a date, as seconds from now; None when it is neither.

    A date may have any of the three forms of RFC 9110, 5.6.7, and a number a fraction, which some
    servers send.

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

    if _SECONDS.fullmatch(text):
        return float(text)

    return None if (date := http_date(text)) is None else max(0.0, (date - now).total_seconds())


def http_date(value: str) -> datetime | None:
    """
    Read a date of HTTP, which is in UTC whether it says so or not; None when it is not one.

    Example:
        >>> http_date("Sun Nov  6 08:49:37 1994") == http_date("Sunday, 06-Nov-94 08:49:37 GMT")
        True
    """
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None

    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
