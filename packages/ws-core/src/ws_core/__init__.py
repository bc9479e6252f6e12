"""Errors, metaclasses, the `Component` protocol and small pure helpers of wintersweet."""

from ws_core.component import Component as Component
from ws_core.component import Health as Health
from ws_core.component import discover as discover
from ws_core.errors import AcquireTimeout as AcquireTimeout
from ws_core.errors import ClosedError as ClosedError
from ws_core.errors import ConfigError as ConfigError
from ws_core.errors import MissingExtraError as MissingExtraError
from ws_core.errors import NotReadyError as NotReadyError
from ws_core.errors import UnavailableError as UnavailableError
from ws_core.errors import UsageError as UsageError
from ws_core.errors import WsError as WsError

__all__ = (
    "AcquireTimeout",
    "ClosedError",
    "Component",
    "ConfigError",
    "Health",
    "MissingExtraError",
    "NotReadyError",
    "UnavailableError",
    "UsageError",
    "WsError",
    "discover",
)
