"""The errors of ws-web.

They hang in the tree of `ws_core.errors`::

    WsError
    ├── ConfigError
    │   └── SettingsError              settings are wrong: a value, a name, a file or a module
    └── UsageError
        └── SocketLimitError           no room for another WebSocket
"""

from __future__ import annotations

from ws_core.errors import ConfigError, UsageError

__all__ = ("SettingsError", "SocketLimitError")


class SettingsError(ConfigError):
    """Settings are wrong. The message names each setting, where it came from and the remedy."""

    default_code = "settings"


class SocketLimitError(UsageError):
    """The connection manager is full; the new WebSocket was refused, the others are untouched."""

    default_code = "socket_limit"
