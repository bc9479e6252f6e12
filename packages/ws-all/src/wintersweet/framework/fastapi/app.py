"""The application: `ws_web.create_app`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_web import create_app as create_app

__all__ = ("create_app",)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
