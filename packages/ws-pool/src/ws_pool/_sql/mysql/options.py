"""The options of a MySQL or MariaDB server: read from a URL or from keys, checked before any I/O."""

from __future__ import annotations

import difflib
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from ws_pool._core.config import (
    Check,
    anything,
    boolean,
    check_sizes,
    choice,
    function,
    integer,
    mask_url,
    number,
    optional,
    options_of,
    sequence,
    text,
    text_or_callable,
    url_parts,
    url_port,
)
from ws_pool.errors import ConfigError

__all__ = ("ALIASES", "CHECKS", "Server", "check_bounds", "from_url", "server_of")

Password = str | Callable[[], str | Awaitable[str]]

_NAMES = """
armscii8 ascii big5 binary cp1250 cp1251 cp1256 cp1257 cp850 cp852 cp866 cp932 dec8 eucjpms euckr gb18030
gb2312 gbk geostd8 greek hebrew hp8 keybcs2 koi8r koi8u latin1 latin2 latin5 latin7 macce macroman sjis swe7
tis620 ujis utf8 utf8mb3 utf8mb4
"""
_CHARSETS = frozenset(_NAMES.split())


def charset(value: object, where: str) -> str:
    """Accept the name of a character set that a connection can have."""
    name = text(value, where).lower()

    if name in _CHARSETS:
        return name

    close = difflib.get_close_matches(name, _CHARSETS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ", such as 'utf8mb4'"
    message = f"{where} must be a character set of MySQL, not {name!r}{hint}"
    raise ConfigError(message, setting=where)


def row_type(value: object, where: str) -> type | None:
    """Accept dict, tuple, or what the original called ``cursorclass``: a cursor's class or its name."""
    if value is None:
        return None

    if value is dict or value is tuple:
        return cast("type", value)

    name = (value if isinstance(value, str) else getattr(value, "__name__", "")).lower()

    if name in {"dict", "tuple"} and isinstance(value, str):
        return dict if name == "dict" else tuple

    if name in {"row", "cursor", "sscursor"}:
        return None

    if name.endswith("dictcursor"):
        return dict

    message = f"{where} must be dict, tuple, 'Cursor' or 'DictCursor', not {value!r:.100}"
    raise ConfigError(message, setting=where)


SERVER_CHECKS: dict[str, Check] = {
    "url": text,
    "host": text,
    "port": integer(1, 65535),
    "user": text_or_callable,
    "password": optional(text_or_callable),
    "db": optional(text),
    "unix_socket": optional(text),
    "driver": choice("aiomysql", "asyncmy"),
    "charset": charset,
    "sql_mode": optional(text),
    "init_command": optional(text),
    "autocommit": boolean,
    "ssl": anything,
    "connect_timeout": number(0.001),
}

POOL_CHECKS: dict[str, Check] = {
    "min_size": integer(0),
    "max_size": integer(1),
    "acquire_timeout": number(0),
    "max_connecting": integer(1),
    "max_lifetime": optional(number(-1)),
    "max_idle": number(0),
    "ping_after": number(0),
    "ping_timeout": number(0.001),
    "leak_threshold": optional(number(0)),
    "reset": choice("auto", "always"),
    "slow_query": optional(number(0)),
    "query_timeout": optional(number(0.001)),
    "echo": boolean,
    "cache_size": integer(0),
    "row_type": row_type,
    "on_open": optional(function),
    "on_acquire": optional(function),
    "on_release": optional(function),
    "on_close": optional(function),
}

CHECKS: dict[str, Check] = {**SERVER_CHECKS, **POOL_CHECKS, "replicas": sequence}

ALIASES = {
    "minsize": "min_size",
    "maxsize": "max_size",
    "pool_recycle": "max_lifetime",
    "cursorclass": "row_type",
    "username": "user",
    "database": "db",
}


@dataclass(frozen=True, slots=True)
class Server:
    """
    How to reach and greet one server.

    ``str(server)`` is fit for logs: it has no password.
    """

    host: str = "localhost"
    port: int = 3306
    user: Any = ""  # Any: a string, or a callable that gives one
    password: Password | None = field(default=None, repr=False)
    db: str | None = None
    unix_socket: str | None = None
    driver: str = "aiomysql"
    charset: str = "utf8mb4"
    sql_mode: str | None = None
    init_command: str | None = None
    autocommit: bool = True
    ssl: tls.SSLContext | None = None
    connect_timeout: float = 5.0

    def __str__(self) -> str:
        place = self.unix_socket or f"{self.host}:{self.port}"
        user = self.user if isinstance(self.user, str) else "(callable)"
        return f"mysql://{user}@{place}/{self.db or ''}"


def from_url(url: str, where: str) -> dict[str, object]:
    """
    Split a URL into options.

    Args:
        url: As ``mysql://user:password@host:port/db?charset=utf8mb4``; ``mysql+asyncmy://`` or
            ``mysql+aiomysql://`` names the driver, ``unix_socket=`` in the query a socket.
        where: The option's full name for errors.

    Returns:
        Options by name, unchecked but for the URL's own form.

    Raises:
        ConfigError: The URL is no MySQL URL, or its port is no port.
    """
    parts = url_parts(url, where)
    scheme, _, driver = parts.scheme.partition("+")

    if scheme not in {"mysql", "mariadb"}:
        message = f"{where} must begin with mysql:// or mariadb://, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    options: dict[str, object] = dict(parse_qsl(parts.query))
    port = url_port(url, where)
    found = {
        "driver": driver or None,
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username) if parts.username is not None else None,
        "password": unquote(parts.password) if parts.password is not None else None,
        "db": unquote(parts.path.lstrip("/")) or None,
    }
    options.update((key, value) for key, value in found.items() if value is not None)
    return options


def server_of(section: Mapping[str, object], where: str) -> tuple[Server, dict[str, object]]:
    """
    Check a settings section.

    Args:
        section: The options as the user wrote them; keys beside the URL win over its parts.
        where: The section's full name.

    Returns:
        The server, and the options that remain for the pool.

    Raises:
        ConfigError: A wrong option.
    """
    options = options_of(section, CHECKS, where=where, aliases=ALIASES)
    url = options.pop("url", None)

    if url is not None:
        parts = options_of(
            from_url(cast("str", url), f"{where}.url"), CHECKS, where=f"{where}.url", aliases=ALIASES
        )
        options = {**parts, **options}

    check_bounds(section, options, where)
    fields = {key: options.pop(key) for key in list(options) if key in SERVER_CHECKS}
    fields["ssl"] = _ssl(fields.get("ssl"), f"{where}.ssl")
    return Server(**cast("dict[str, Any]", fields)), options


def check_bounds(section: Mapping[str, object], options: Mapping[str, object], where: str) -> None:
    """
    Check that a pool's bounds fit together, and name them as the user did.

    Args:
        section: The options as the user wrote them.
        options: The same, checked and under their real names.
        where: The section's full name.

    Raises:
        ConfigError: The minimum is above the maximum.
    """
    if "min_size" in options and "max_size" in options:
        least, most = (
            name if name in section else name.replace("_", "") for name in ("min_size", "max_size")
        )
        bounds = cast("Mapping[str, int]", options)
        check_sizes(bounds["min_size"], bounds["max_size"], where=where, names=(least, most))


def _ssl(value: object, where: str) -> tls.SSLContext | None:
    """Accept a context, true for the system's authorities, or a mapping of what makes a context."""
    if value is None or value is False:
        return None

    if isinstance(value, tls.SSLContext):
        return value

    if value is True or (isinstance(value, str) and boolean(value, where)):
        return tls.create_default_context()

    if isinstance(value, Mapping):
        checks: dict[str, Check] = {
            "ca": text,
            "cert": text,
            "key": text,
            "check_hostname": boolean,
            "verify": boolean,
        }
        options = cast("dict[str, Any]", options_of(value, checks, where=where))

        try:
            context = tls.create_default_context(cafile=options.get("ca"))

            if "cert" in options:
                context.load_cert_chain(options["cert"], options.get("key"))
        except OSError as error:
            message = f"{where}: the certificates cannot be loaded: {error}"
            raise ConfigError(message, setting=where) from error

        context.check_hostname = options.get("check_hostname", True)

        if options.get("verify") is False:
            context.check_hostname = False
            context.verify_mode = tls.CERT_NONE

        return context

    message = (
        f"{where} must be true, an ssl.SSLContext, or a mapping with ca, cert, key, check_hostname and verify"
    )
    raise ConfigError(message, setting=where)
