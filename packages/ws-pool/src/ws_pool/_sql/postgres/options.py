"""The options of a PostgreSQL server: read from a URL or from keys."""

from __future__ import annotations

import re
import ssl as tls
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote

from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    choice,
    integer,
    number,
    option,
    optional,
    sequence,
    text,
    text_or_callable,
    url_parts,
    url_port,
)
from ws_pool._sql.options import ServerOptions, parse_options, url_options
from ws_pool.errors import ConfigError

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SCHEMES = ("postgresql", "postgres")


def _ssl(value: object, where: str) -> object:
    if value is None or isinstance(value, tls.SSLContext):
        return value

    if isinstance(value, bool) or value in ("true", "false"):
        return "verify-full" if value in (True, "true") else "disable"

    if value in _SSL_MODES:
        return value

    message = (
        f"{where} must be one of {', '.join(_SSL_MODES)}, true, or an ssl.SSLContext, not {value!r:.100}"
    )
    raise ConfigError(message, setting=where)


def _settings(value: object, where: str) -> Mapping[str, str]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: str(setting) for key, setting in value.items()}

    message = f"{where} must be a mapping of server settings, such as {{'statement_timeout': '5s'}}"
    raise ConfigError(message, setting=where)


@dataclass(frozen=True, slots=True)
class Server:
    """How to reach one server; ``str(server)`` is fit for logs, since it has no password."""

    host: str = option("localhost", text, "name or address of the server, or the folder of a unix socket")
    hosts: tuple[str, ...] = option(
        (), sequence, "several servers instead, of which `target_session_attrs` picks one"
    )
    port: int = option(5432, integer(1, 65535), "its port", shown="5432")
    user: Any = option(  # Any: a string, or a callable that returns one
        "",
        text_or_callable,
        "the login name, or a callable, also async, that returns it for each new connection",
        aliases=("username",),
    )
    password: Any = option(None, optional(text_or_callable), "as `user`", secret=True)
    db: str | None = option(None, optional(text), "the database", aliases=("database", "dbname"))
    driver: str = option("asyncpg", choice("asyncpg", "psycopg"), "or in the URL: `postgresql+psycopg://`")
    passfile: str | None = option(None, optional(text), "a file of passwords, by default `~/.pgpass`")
    ssl: Any = option(  # Any: a mode or an SSLContext
        None,
        _ssl,
        "`disable allow prefer require verify-ca verify-full`, true (`verify-full`), or an `SSLContext`; "
        "`prefer` when it is not given",
        aliases=("sslmode",),
    )
    target_session_attrs: str = option(
        "any",
        choice("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
        "which of several servers is taken",
    )
    application_name: str = option("wintersweet", text, "the name shown in `pg_stat_activity`")
    server_settings: Mapping[str, str] = option(
        {}, _settings, "settings of each session, such as `statement_timeout`; they outlive a reset"
    )
    prepared: bool = option(
        True, boolean, "False for pgbouncer in transaction mode, which keeps no prepared statements"
    )
    statement_cache_size: int = option(200, integer(0), "statements kept prepared by each connection")
    connect_timeout: float = option(5.0, number(0.001), "seconds to open a connection")

    def __str__(self) -> str:
        user = self.user if isinstance(self.user, str) else "(callable)"
        place = ",".join(self.hosts) or self.host
        return f"postgresql://{user}@{place}:{self.port}/{self.db or ''}"


@dataclass(frozen=True)
class PostgresOptions(ServerOptions, Server):
    """All options of a PostgreSQL pool."""

    url: str | None = option(
        None,
        text,
        "`postgresql://user:password@host:5432/db`, with options in its query; keys beside it win",
    )

    def server(self) -> Server:
        """Return the part that says how to reach the server."""
        return Server(**{entry.name: getattr(self, entry.name) for entry in fields(Server)})


def postgres_options(section: Mapping[str, object], where: str) -> PostgresOptions:
    """Return the checked options of a PostgreSQL pool; keys beside the URL win over its parts."""
    options = parse_options(PostgresOptions, section, where, _from_url)

    if options.driver == "psycopg" and isinstance(options.ssl, tls.SSLContext):
        message = (
            f"{where}.ssl cannot be an SSLContext with psycopg: name a mode, one of {', '.join(_SSL_MODES)}"
        )
        raise ConfigError(message, setting=f"{where}.ssl")

    return options


def _from_url(url: str, where: str) -> dict[str, object]:
    """Return the parts of a URL as options by name, unchecked; several hosts stand in a row."""
    scheme, separator, rest = url.partition("://")
    scheme, _, driver = scheme.partition("+")

    if not separator or scheme not in _SCHEMES:
        message = f"{where} must begin with postgresql://, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    authority = re.split("[/?]", rest, maxsplit=1)[0]
    login, at, place = authority.rpartition("@")
    hosts: list[str] = []
    ports: set[str] = set()

    if "," in place:
        for one in place.split(","):
            host, _, port = one.rpartition(":") if ":" in one else (one, "", "")
            hosts.append(host)
            ports.add(port or "5432")

        if len(ports) > 1:
            message = f"{where}: several hosts must have one port, not {', '.join(sorted(ports))}"
            raise ConfigError(message, setting=where)

        one_host = f"{login}{at}{hosts[0]}:{ports.copy().pop()}"
        url = url[: -len(rest)] + one_host + rest[len(authority) :]

    parts = url_parts(url, where)
    return url_options(
        parts,
        driver,
        host=None if hosts else parts.hostname and unquote(parts.hostname),
        hosts=hosts or None,
        port=url_port(url, where),
    )
