"""The defaults of every setting, under the names of the settings.

`ws_web.conf.Settings` takes its defaults from here. Write your own values into the module that
``WINTERSWEET_SETTINGS_MODULE`` names, into ``wintersweet.toml`` or into the environment; this
module is for reading only.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = (
    "ACCESS_LOG", "ALLOWED_ORIGINS", "APP_CONFIG", "DATABASES", "DEBUG", "DRAIN_DELAY", "EMBEDDED_SERVERS",
    "ES_CONFIG", "EXCEPTION_HANDLERS", "HTTP_CONFIG", "LISTEN_HOST", "LISTEN_PORT", "LOGGING_CONFIG",
    "METRICS", "METRICS_TOKEN", "MIDDLEWARES", "MONGO_CONFIG", "OPS", "OPS_TOKEN", "OTEL", "PROCESS_NUM",
    "REDIS_CONFIG", "SECRET", "SECURITY_HEADERS", "TRUSTED_PROXIES",
)  # fmt: skip

# Any: these sections hold what their libraries define, checked by `Component.configure`.

DEBUG: bool = False
"""Show the cause of an error in replies, and inputs in validation errors. Never in production."""

EMBEDDED_SERVERS: bool = True
"""With DEBUG, the command line ``wintersweet`` starts what a wheel brings for pools that name no server."""

SECRET: str = ""
"""The application's own signing secret, for your use; `settings.SECRET.get_secret_value()` is its text."""

LISTEN_HOST: str = "127.0.0.1"
"""The address that `ws_web.server.run` listens on."""

LISTEN_PORT: int = 8080
"""The TCP port that `ws_web.server.run` listens on; 0 takes a free one."""

PROCESS_NUM: int = 1
"""Worker processes that `ws_web.server.run` starts and keeps alive."""

DRAIN_DELAY: float = 1.0
"""Seconds after SIGTERM in which ``/readyz`` fails and all is still served, so that load balancers notice."""

TRUSTED_PROXIES: tuple[str, ...] = ()
"""Networks (CIDR) whose ``X-Forwarded-For`` is believed. Empty: nobody's."""

ALLOWED_ORIGINS: tuple[str, ...] = ()
"""Origins (``https://shop.example``, ``*``) whose pages may open WebSockets, beside those of our own host."""

ACCESS_LOG: Literal["text", "json", "off"] = "text"
"""One line for each request on the logger ``ws_web.access``: text, JSON or none; false is off."""

METRICS: bool = False
"""Whether ``/metrics`` is served; needs ``ws-web[metrics]``."""

OPS: bool = False
"""Whether the ops page ``/_ops`` is served."""

OPS_TOKEN: str = ""
"""The token of the ops page. Empty: only programs on this machine may read it, and nobody may act."""

OTEL: bool = False
"""Whether all libraries report spans and metrics to OpenTelemetry; needs ``ws-web[otel]`` and your SDK."""

METRICS_TOKEN: str = ""
"""The token that requests to ``/metrics`` need, as ``Authorization: Bearer``. Empty: none."""

SECURITY_HEADERS: dict[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
}
"""Headers of every reply that does not set them itself; an empty text leaves one out."""

APP_CONFIG: dict[str, Any] = {}
"""Arguments for `fastapi.FastAPI`; ``on_startup`` and ``on_shutdown`` take lists of functions."""

LOGGING_CONFIG: dict[str, Any] = {}
"""Arguments for ``ws_logging.register_logger``."""

MIDDLEWARES: tuple[Any, ...] = ()
"""``{"cls": a class or its dotted name, "options": {...}}`` each; the last one is the outermost."""

EXCEPTION_HANDLERS: tuple[Any, ...] = ()
"""``{"cls": an exception class or its dotted name, "handler": a function or its dotted name}`` each."""

DATABASES: dict[str, dict[str, Any]] = {}
"""Named SQL pools: ``{name: {"url": ..., options}}``."""

REDIS_CONFIG: dict[str, dict[str, Any]] = {}
"""Named Redis pools: ``{name: {"url": ..., options}}``."""

MONGO_CONFIG: dict[str, dict[str, Any]] = {}
"""Named MongoDB pools: ``{name: {"url": ..., options}}``."""

ES_CONFIG: dict[str, dict[str, Any]] = {}
"""Named Elasticsearch pools: ``{name: {"url": ..., options}}``."""

HTTP_CONFIG: dict[str, dict[str, Any]] = {}
"""Named HTTP client pools: ``{name: {"base_url": ..., options}}``."""
