"""Whether this process is healthy, and all worker processes of its service.

`HealthChecker` watches one process: its event loop, and whatever checks it is given.
`ProcessHealthChecker` shares the answers of all workers of a service, so that any of them can
report the health of the whole node. Neither needs an extra.
"""

from __future__ import annotations

from ws_pool._health.checker import Check, HealthChecker
from ws_pool._health.process_checker import ProcessHealthChecker

__all__ = ("Check", "HealthChecker", "ProcessHealthChecker")

for _public in (HealthChecker, ProcessHealthChecker):
    _public.__module__ = __name__
