"""The time of NTP servers: `ws_tasks.ntp`."""

from ws_tasks.ntp import IntervalNTPClient as IntervalNTPClient
from ws_tasks.ntp import IntervalNTPClientManager as IntervalNTPClientManager

__all__ = (
    "IntervalNTPClient",
    "IntervalNTPClientManager",
)
