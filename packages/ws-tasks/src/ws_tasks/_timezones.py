"""The time zone of a task: its own, the environment's, or UTC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, timezone, tzinfo
from zoneinfo import ZoneInfo

from ws_tasks.errors import ScheduleError

_VARIABLES = ("WS_TIMEZONE", "_TIMEZONE")
_UTC_NAMES = frozenset({"UTC", "ETC/UTC", "ZULU", "ETC/ZULU", "UCT", "ETC/UCT"})


def resolve_zone(tz: str | tzinfo | None = None, environ: Mapping[str, str] | None = None) -> tzinfo:
    """
    Return the zone of a task: the argument, else the environment's, else UTC.

    Example:
        >>> resolve_zone("Europe/Riga")
        zoneinfo.ZoneInfo(key='Europe/Riga')
        >>> resolve_zone(None, {"_TIMEZONE": "Asia/Shanghai"})
        zoneinfo.ZoneInfo(key='Asia/Shanghai')
        >>> resolve_zone(None, {})
        datetime.timezone.utc
    """
    # All names of UTC become `datetime.UTC`, whose arithmetic is the fastest.
    if isinstance(tz, tzinfo):
        return UTC if isinstance(tz, ZoneInfo) and (tz.key or "").upper() in _UTC_NAMES else tz

    if tz is not None:
        return _by_name(tz, "tz")

    environ = os.environ if environ is None else environ

    for variable in _VARIABLES:
        if name := environ.get(variable, "").strip():
            return _by_name(name, variable)

    return UTC


def _by_name(name: object, source: str) -> tzinfo:
    if not isinstance(name, str):
        raise ScheduleError(f"{source} must be a time zone or its name, not {name!r}", source=source)

    if name.upper() in _UTC_NAMES:
        return UTC

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        message = f"{source}={name!r} is not a known time zone: use an IANA name such as 'Europe/Riga'"
        raise ScheduleError(message, source=source, zone=name) from error


def is_fixed(zone: tzinfo) -> bool:
    """Return whether the zone's offset can never change."""
    return isinstance(zone, timezone)
