"""The options of an HTTP pool, checked before anything starts."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ws_pool._core.config import Check, boolean, integer, mask_url, number, optional, options_of, text
from ws_pool.errors import ConfigError

__all__ = ("HttpOptions", "http_options")


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """
    How an HTTP pool makes its requests.

    Args:
        base_url: What relative URLs are appended to.
        headers: Sent with every request, unless the request says otherwise.
        timeout: Seconds for each attempt, from the wait for a connection to the last byte; None
            for no bound.
        connect_timeout: Seconds to open a connection; None for no bound of its own.
        limit: Connections at once; 0 for any number.
        limit_per_host: Connections at once to one host; 0 for any number.
        keepalive: Seconds that an idle connection is kept.
        retries: How often a failed attempt of a safe request is made again.
        retry_wait: Seconds that bound the wait before the first retry; doubled each time.
        retry_max_wait: Seconds that bound every such wait, and that a server may ask for by
            Retry-After before it is not worth waiting.
        raise_for_status: Whether a status from 400 on is an error.
        max_redirects: How many redirects are followed.
        cookies: Whether cookies are kept; all users of the pool share them.
        verify: Whether servers' certificates are checked; or a file of certificates to trust.
        proxy: URL of a proxy.
        trust_env: Whether the environment's proxy settings are used.
        unix_socket: Path of a socket through which all requests go.
        deny_private: Whether connections to addresses that are not public are refused, for URLs that
            come from users (against server-side request forgery).
        breaker_failures: After how many failures in a row a host is left alone; 0 for never. A
            failure is no answer, or one with status 502, 503 or 504.
        breaker_reset: Seconds that it is left alone, before one request tries again.
        context_headers: Called for each request, gives headers of its context, such as the request
            id and ``traceparent``.
        health_path: Path that `health` asks for; without it health makes no request.
    """

    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = 30.0
    connect_timeout: float | None = 10.0
    limit: int = 100
    limit_per_host: int = 0
    keepalive: float = 15.0
    retries: int = 2
    retry_wait: float = 0.1
    retry_max_wait: float = 10.0
    raise_for_status: bool = True
    max_redirects: int = 10
    cookies: bool = False
    verify: bool | ssl.SSLContext = True
    proxy: str | None = None
    trust_env: bool = False
    unix_socket: str | None = None
    deny_private: bool = False
    breaker_failures: int = 0
    breaker_reset: float = 30.0
    context_headers: Callable[[], Mapping[str, str]] | None = None
    health_path: str | None = None


def http_options(given: Mapping[str, object], *, where: str) -> HttpOptions:
    """
    Check the options of an HTTP pool.

    Args:
        given: What the user gave.
        where: What begins the options' names in errors.

    Returns:
        All options.

    Raises:
        ConfigError: An option is unknown or wrong.
    """
    checked = options_of(given, _CHECKS, where=where, aliases=_ALIASES)

    if checked.get("unix_socket") is not None and checked.get("proxy") is not None:
        message = f"{where}: unix_socket and proxy exclude each other: keep one"
        raise ConfigError(message, setting=f"{where}.proxy")

    if checked.get("deny_private") and (checked.get("proxy") or checked.get("unix_socket")):
        message = f"{where}.deny_private cannot see behind a proxy or a unix socket: keep one"
        raise ConfigError(message, setting=f"{where}.deny_private")

    return HttpOptions(**checked)  # type: ignore[arg-type]  # each check returns its option's type


def _base_url(value: object, where: str) -> str:
    url = text(value, where)

    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and not parts.query and not parts.fragment
    except ValueError:
        good = False

    if not good:
        message = f"{where}: {mask_url(url)!r} is not like https://host[:port][/path] without ? or #"
        raise ConfigError(message, setting=where)

    return url.rstrip("/")


def _proxy(value: object, where: str) -> str:
    return _base_url(value, where)


def _headers(value: object, where: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must map header names to values", setting=where)

    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise ConfigError(f"{where}.{key}: a header's name and value must be strings", setting=where)

        if any(ord(char) < 32 or ord(char) == 127 for char in key + item) or not key:
            raise ConfigError(f"{where}.{key!r}: a header must not hold control characters", setting=where)

    return dict(value)


def _callable(value: object, where: str) -> object:
    if callable(value):
        return value

    raise ConfigError(f"{where} must be a function without arguments that returns headers", setting=where)


def _verify(value: object, where: str) -> bool | ssl.SSLContext:
    if isinstance(value, ssl.SSLContext):
        return value

    if isinstance(value, str | Path) and str(value).strip().lower() not in {"true", "false", "1", "0"}:
        try:
            return ssl.create_default_context(cafile=str(value))
        except OSError as error:
            message = f"{where}: cannot read certificates from {str(value)!r}: {error}"
            raise ConfigError(message, setting=where) from error

    return boolean(value, where)


_CHECKS: Mapping[str, Check] = {
    "base_url": optional(_base_url),
    "headers": _headers,
    "timeout": optional(number(0.001)),
    "connect_timeout": optional(number(0.001)),
    "limit": integer(0),
    "limit_per_host": integer(0),
    "keepalive": number(0),
    "retries": integer(0),
    "retry_wait": number(0),
    "retry_max_wait": number(0),
    "raise_for_status": boolean,
    "max_redirects": integer(0),
    "cookies": boolean,
    "verify": _verify,
    "proxy": optional(_proxy),
    "trust_env": boolean,
    "unix_socket": optional(text),
    "deny_private": boolean,
    "breaker_failures": integer(0),
    "breaker_reset": number(0.001),
    "context_headers": optional(_callable),
    "health_path": optional(text),
}
_ALIASES = {"url": "base_url"}
