"""The URL of a Redis server, checked before any use: redis-py takes a database that is not a number for 0."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from redis import ConnectionPool

from ws_core.errors import UsageError
from ws_core.redaction import mask_url
from ws_core.sources import unread_in_redis_url

SCHEMES = ("redis", "rediss", "unix")


def is_url(source: str) -> bool:
    """Return whether a text is meant to be a URL, and not the name of a pool."""
    return "://" in source or "@" in source or source.partition(":")[0] in SCHEMES


@lru_cache(maxsize=256)
def check_url(url: str) -> None:
    """Refuse a URL that is wrong, or that redis-py would not read as it is written."""
    scheme, found, _ = url.partition("://")
    shown = mask_url(url)

    if not found or scheme not in SCHEMES:
        schemes = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(f"a Redis URL begins with {schemes}, not {shown!r}")

    try:
        database = "" if scheme == "unix" else urlsplit(url).path.strip("/")
        ConnectionPool.from_url(url).make_connection()  # which checks the options, and does not connect
    except (ValueError, TypeError) as error:
        reason = str(error).rpartition("__init__() ")[2]
        raise UsageError(f"the Redis URL {shown!r} is wrong: {reason}") from None

    if database and not database.isdigit():
        raise UsageError(f"the Redis URL {shown!r} is wrong: its path must be the number of a database")

    if (unread := unread_in_redis_url(url)) is not None:
        raise UsageError(f"the Redis URL {shown!r} is wrong: {unread}")
