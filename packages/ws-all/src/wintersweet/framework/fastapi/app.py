"""The application: `ws_web.app`."""

from ws_web.app import create_app as create_app

__all__ = ("create_app",)
