"""The time of NTP servers: `ws_tasks.ntp`, with the arguments of 1.x; needs the extra ``ws-tasks[ntp]``."""

from wintersweet.asyncs.ntp.ntp_server import IntervalNTPClient as IntervalNTPClient
from wintersweet.asyncs.ntp.ntp_server import IntervalNTPClientManager as IntervalNTPClientManager

__all__ = (
    "IntervalNTPClient",
    "IntervalNTPClientManager",
)
