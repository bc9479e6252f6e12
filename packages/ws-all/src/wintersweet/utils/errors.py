"""`catch_error` and the base of all errors: `ws_core.errors`."""

from ws_core.errors import WsError as WsError
from ws_core.errors import catch_error as catch_error

__all__ = (
    "WsError",
    "catch_error",
)
