"""Named pools and the health of all worker processes: `ws_pool`, `ws_pool.health`."""

from ws_pool.health import HealthChecker as HealthChecker
from ws_pool.health import ProcessHealthChecker as ProcessHealthChecker

__all__ = (
    "HealthChecker",
    "ProcessHealthChecker",
)
