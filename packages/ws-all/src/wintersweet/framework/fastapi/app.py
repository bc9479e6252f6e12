"""The application: `ws_web.create_app`."""

from wintersweet._gone import explain as _explain
from ws_web import create_app as create_app

__all__ = ("create_app",)

__getattr__ = _explain(__name__)
