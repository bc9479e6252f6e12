"""The options of an HTTP pool."""

from __future__ import annotations

import base64
import math
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientTimeout
from yarl import URL

from ws_core.context import capture
from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    config_error,
    function,
    integer,
    number,
    option,
    optional,
    parse,
    refuse,
    text,
)
from ws_pool._http.retry import RETRY_STATUSES
from ws_pool.errors import ConfigError, UsageError

FRAMING = frozenset({"content-length", "transfer-encoding"})
"""Headers that say where a body ends."""


def _base_url(value: object, where: str) -> str:
    url = text(str(value) if isinstance(value, URL) else value, where)

    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and not parts.query and not parts.fragment
    except ValueError:
        good = False

    if good:
        return url.rstrip("/")

    raise config_error(where, f": {mask_url(url)!r} is not like https://host[:port][/path] without ? or #")


def _headers(value: object, where: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise config_error(where, "must map header names to values")

    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise ConfigError(f"{where}.{key}: a header's name and value must be strings", setting=where)

        if not key.isascii() or any(char in key for char in ' "(),/:;<=>?@[\\]{}'):
            raise ConfigError(f"{where}.{key!r} is not the name of a header", setting=where)

        if any(ord(char) < 32 or ord(char) == 127 for char in key + item) or not key:
            raise ConfigError(f"{where}.{key!r}: a header must not hold control characters", setting=where)

        if key.lower() in FRAMING:
            raise ConfigError(f"{where}.{key}: each request's body decides that: leave it out", setting=where)

    return dict(value)


def _statuses(value: object, where: str) -> frozenset[int]:
    items = list(value) if isinstance(value, Collection) and not isinstance(value, str | bytes) else [value]

    statuses = frozenset(item for item in items if isinstance(item, int) and 400 <= item < 600)

    if len(statuses) == len(items):
        return statuses

    raise config_error(where, f"must be a collection of statuses from 400 to 599, not {value!r}")


def _timeout(value: object, where: str) -> object:
    return value if isinstance(value, ClientTimeout) else number(0.001)(value, where)


def _auth(value: object, where: str) -> tuple[str, ...]:
    # BasicAuth of aiohttp is a tuple too, with the encoding as its third item.
    if not isinstance(value, tuple | list) or len(value) not in {2, 3}:
        raise config_error(where, "must be a pair of user and password")

    # Behind a colon the password begins (RFC 7617).
    if not all(isinstance(item, str) for item in value) or ":" in value[0]:
        raise config_error(where, "must be texts, the user without a colon")

    return tuple(value)


def _verify(value: object, where: str) -> bool | ssl.SSLContext:
    if isinstance(value, ssl.SSLContext):
        return value

    if isinstance(value, str | Path) and str(value).strip().lower() not in {"true", "false", "1", "0"}:
        try:
            return ssl.create_default_context(cafile=str(value))
        except (OSError, ValueError) as error:
            message = f": cannot read certificates from {str(value)!r}: {error}"
            raise config_error(where, message) from error

    return boolean(value, where)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How an HTTP pool makes its requests."""

    base_url: str | None = option(
        None, optional(_base_url), "relative URLs are appended to it", aliases=("url",)
    )
    headers: Mapping[str, str] = option({}, _headers, "sent with every request that does not set them itself")
    auth: tuple[str, ...] | None = option(
        None, optional(_auth), "user and password for basic authentication, for `base_url` only", secret=True
    )
    timeout: float | ClientTimeout | None = option(
        30.0,
        optional(_timeout),
        "seconds for each attempt, from the wait for a connection to the last byte; or a `ClientTimeout`",
    )
    connect_timeout: float | None = option(10.0, optional(number(0.001)), "seconds to open a connection")
    limit: int = option(100, integer(0), "connections at once; 0 for any number")
    limit_per_host: int = option(0, integer(0), "connections at once to one host; 0 for any number")
    keepalive: float = option(15.0, number(0), "seconds that an idle connection is kept")
    retries: int = option(2, integer(0), "how often a failed attempt of a safe request is repeated")
    retry_wait: float = option(
        0.1, number(0), "seconds that bound the wait before the first retry; doubled for each further one"
    )
    retry_max_wait: float = option(
        10.0, number(0), "seconds that bound every such wait; a longer `Retry-After` is not waited for"
    )
    retry_statuses: frozenset[int] = option(
        RETRY_STATUSES,
        _statuses,
        "statuses after which a safe request is repeated, such as also 408, 500, 502, 504",
        shown="`{429, 503}`",
    )
    retry_if: Callable[[Any], bool | None] | None = option(
        None,
        optional(function),
        "called with each `HttpAttempt` that may be repeated; returns whether it is, or None for these rules",
    )
    on_request: Callable[[Any], object] | None = option(
        None,
        optional(function),
        "called with each aiohttp `ClientRequest` before it is sent, redirects included",
    )
    on_response: Callable[[Any], object] | None = option(
        None, optional(function), "called with each aiohttp `ClientResponse` before its body is read"
    )
    raise_for_status: bool = option(True, boolean, "whether a status from 400 on is an error")
    max_redirects: int = option(10, integer(0), "how many redirects are followed")
    max_response_size: int | None = option(
        100 * 1024 * 1024,
        optional(integer(0)),
        "bytes of the largest body taken, decompressed; streams and downloads have no bound",
        shown="100 MiB",
    )
    cookies: bool = option(False, boolean, "whether cookies are kept, shared by all users of the pool")
    verify: bool | ssl.SSLContext = option(
        True, _verify, "whether certificates are checked; a file of them; or an `SSLContext`"
    )
    proxy: str | None = option(None, optional(_base_url), "URL of a proxy")
    trust_env: bool = option(False, boolean, "whether the proxy settings of the environment are used")
    unix_socket: str | None = option(None, optional(text), "path of a socket for all requests")
    deny_private: bool = option(
        False,
        boolean,
        "refuse addresses that are not public (`HttpAddressDenied`), for URLs that come from users: "
        "names, redirects and IPv6 disguises included",
    )
    breaker_failures: int = option(
        0,
        integer(0),
        "failures in a row (no answer, or status 502, 503, 504) after which a host is left alone "
        "(`HttpCircuitOpen`); 0 for never",
    )
    breaker_reset: float = option(
        30.0, number(0.001), "seconds that it is left alone before one request tries again"
    )
    context_headers: Callable[[], Mapping[str, str]] | None = option(
        capture,
        optional(function),
        "called for each request; returns its request id, `traceparent`, …: by default what "
        "`ws_core.context` carries; None for none",
        shown="`ws_core.context.capture`",
    )
    health_path: str | None = option(
        None, optional(text), "the path that `health()` requests; without it `health()` makes no request"
    )


def http_options(given: Mapping[str, object], *, where: str) -> HttpOptions:
    """Return the checked options of an HTTP pool."""
    options = parse(HttpOptions, given, where)
    auth, base_url = options.auth, options.base_url
    is_whole = isinstance(options.timeout, ClientTimeout)
    authorized = any(name.lower() == "authorization" for name in options.headers)
    hidden = options.proxy or options.unix_socket or options.trust_env
    refuse(
        where,
        {
            "{connect_timeout} is a part of {timeout}, a ClientTimeout: say it there": is_whole
            and "connect_timeout" in given,
            "{proxy} and {unix_socket} exclude each other: keep one": options.proxy is not None
            and options.unix_socket is not None,
            "{auth} needs {base_url}: it would be sent to every host": auth and base_url is None,
            "{auth} and the header authorization exclude each other: keep one": auth and authorized,
            "{auth} and the credentials in {base_url} exclude each other: keep one": auth
            and "@" in (base_url or ""),
            # A proxy connects on behalf of the pool, to whatever address it finds for a name.
            "{deny_private} cannot see behind a proxy (proxy, trust_env) or a unix socket: keep one": hidden
            and options.deny_private,
        },
    )

    if auth is None:
        return options

    try:
        value = basic(*auth)
    except (LookupError, ValueError) as error:
        raise config_error(f"{where}.auth", f"cannot be encoded: {type(error).__name__}") from None

    return replace(options, headers={**options.headers, "authorization": value})


def client_timeout(value: float | ClientTimeout | None, connect_timeout: float | None) -> ClientTimeout:
    """Return aiohttp's form of a timeout in seconds."""
    if isinstance(value, ClientTimeout):
        return value

    return ClientTimeout(total=_seconds(value), sock_connect=connect_timeout)


def read_timeout(value: float | ClientTimeout | None, connect_timeout: float | None) -> ClientTimeout:
    """Return the timeout of a long answer, which is not late while bytes arrive: that of each read."""
    if isinstance(value, ClientTimeout):
        return value

    return ClientTimeout(total=None, sock_read=_seconds(value), sock_connect=connect_timeout)


def _seconds(value: object) -> float | None:
    if value is None:
        return None

    # aiohttp takes 0 and less, and NaN, for no bound.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"timeout must be seconds above 0, None or a ClientTimeout, not {value!r:.50}")

    return value


def basic(user: str, password: str, encoding: str = "utf-8") -> str:
    """Encode credentials (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode(encoding)).decode()
