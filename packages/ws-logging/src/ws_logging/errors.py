"""The errors of ws-logging.

They hang in the tree of `ws_core.errors`::

    WsError
    └── ConfigError
        └── LoggingConfigError         an argument of `register_logger` is wrong; nothing was installed
"""

from __future__ import annotations

from ws_core.errors import ConfigError

__all__ = ("LoggingConfigError",)


class LoggingConfigError(ConfigError):
    """An argument of the logging set-up is wrong. Nothing was installed, opened or removed."""

    default_code = "logging_config"
