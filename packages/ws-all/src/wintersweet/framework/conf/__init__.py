"""The settings: `ws_web.conf`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_web import global_setting as global_setting
from ws_web.conf import Settings as Settings
from ws_web.conf import settings as settings

__all__ = (
    "Settings",
    "global_setting",
    "settings",
)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
