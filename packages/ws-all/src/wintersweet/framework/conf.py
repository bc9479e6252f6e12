"""The settings: `ws_web.conf`."""

from ws_web.conf import Settings as Settings
from ws_web.conf import settings as settings

__all__ = (
    "Settings",
    "settings",
)
