"""What the wintersweet libraries share: errors, metaclasses and the `Component` protocol.

`ws_core.redaction`, `ws_core.backoff`, and what tests need, `ws_core.testing`, are imported on their own.
"""

from ws_core.component import Component as Component
from ws_core.component import Health as Health
from ws_core.component import discover as discover
from ws_core.errors import AcquireTimeout as AcquireTimeout
from ws_core.errors import ClosedError as ClosedError
from ws_core.errors import ConfigError as ConfigError
from ws_core.errors import InvalidValueError as InvalidValueError
from ws_core.errors import MissingExtraError as MissingExtraError
from ws_core.errors import NotReadyError as NotReadyError
from ws_core.errors import UnavailableError as UnavailableError
from ws_core.errors import UsageError as UsageError
from ws_core.errors import WsError as WsError
from ws_core.errors import catch_error as catch_error
from ws_core.errors import set_error_logger as set_error_logger
from ws_core.metaclass import SafeSingleton as SafeSingleton
from ws_core.metaclass import SafeSingletonMeta as SafeSingletonMeta
from ws_core.metaclass import Singleton as Singleton
from ws_core.metaclass import SingletonMeta as SingletonMeta

__all__ = (
    "AcquireTimeout",
    "ClosedError",
    "Component",
    "ConfigError",
    "Health",
    "InvalidValueError",
    "MissingExtraError",
    "NotReadyError",
    "SafeSingleton",
    "SafeSingletonMeta",
    "Singleton",
    "SingletonMeta",
    "UnavailableError",
    "UsageError",
    "WsError",
    "catch_error",
    "discover",
    "set_error_logger",
)
