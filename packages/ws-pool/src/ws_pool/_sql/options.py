"""The options that all SQL pools share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, parse_qsl, unquote

from ws_pool._core.config import (
    boolean,
    check_sizes,
    choice,
    function,
    integer,
    number,
    observer,
    option,
    optional,
    parse_given,
    sequence,
)
from ws_pool.errors import ConfigError

EXTRAS = {
    "aiomysql": "mysql",
    "asyncmy": "asyncmy",
    "asyncpg": "postgres",
    "psycopg": "psycopg",
    "aiosqlite": "sqlite",
}
"""Driver → the extra of ws-pool that it comes with."""

OptionsT = TypeVar("OptionsT", bound="SqlOptions")
Hook = Callable[[Any], object]  # Any: the driver's connection


def _row_type(value: object, where: str) -> type | None:
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


@dataclass(frozen=True)
class SqlOptions:
    """The connections of a SQL pool, and its clients. No slots: its subclasses have a second base."""

    min_size: int = option(1, integer(0), "connections kept open", aliases=("minsize",))
    max_size: int = option(10, integer(1), "most connections at once", aliases=("maxsize",))
    acquire_timeout: float = option(30.0, number(0), "seconds to wait for a connection")
    max_waiting: int | None = option(
        None,
        optional(integer(0)),
        "most tasks that wait while all connections are in use; one more fails at once",
    )
    max_connecting: int = option(2, integer(1), "most connections to open at once")
    max_lifetime: float | None = option(
        3600.0,
        optional(number(-1)),
        "seconds after which a connection is replaced, less a random 2.5–10 %; -1 for never",
        aliases=("pool_recycle",),
    )
    max_idle: float = option(
        600.0, number(0), "seconds after which an idle connection above `minsize` is closed"
    )
    keepalive: float | None = option(
        None,
        optional(number(1)),
        "seconds of silence after which an idle connection is pinged, so that no firewall closes it",
    )
    ping_after: float = option(
        1.0, number(0), "seconds of idleness after which a connection is pinged before use"
    )
    ping_timeout: float = option(1.0, number(0.001), "seconds for that ping, and for the reset of a session")
    leak_threshold: float | None = option(
        None, optional(number(0)), "seconds of one lease after which a warning shows where it was acquired"
    )
    reset: str = option(
        "auto", choice("auto", "always"), "`always` resets sessions that are provably clean too"
    )
    slow_query: float | None = option(
        None, optional(number(0)), "seconds from which on a statement is logged, never with its values"
    )
    query_timeout: float | None = option(
        None,
        optional(number(0.001)),
        "seconds for one statement, then `QueryTimeout`, and `CommitUnknown` for a COMMIT; "
        "with `iterate` for each wait for the server",
    )
    echo: bool = option(False, boolean, "log all statements, never their values")
    cache_size: int = option(500, integer(0), "compiled statements kept")
    row_type: type | None = option(
        None,
        _row_type,
        "`dict`, `tuple`, or the original's `DictCursor`, as its class or its name",
        aliases=("cursorclass",),
        shown="`Row`",
    )
    on_open: Hook | None = option(
        None, optional(function), "called with each new connection; hooks may be coroutine functions"
    )
    on_acquire: Hook | None = option(None, optional(function), "called with each connection that is acquired")
    on_release: Hook | None = option(None, optional(function), "called with each connection that is released")
    on_close: Hook | None = option(
        None, optional(function), "called with each connection before it is closed"
    )
    on_statement: Callable[[str, float, BaseException | None], object] | None = option(
        None,
        optional(observer),
        "called at the end of each statement of a client with its text, without values, its seconds and "
        "its error",
    )
    setup: Hook | None = option(
        None,
        optional(function),
        "called with each connection that is acquired, for settings that the reset takes back: "
        '`lambda c: c.run("SET …", None)`; its error is the caller\'s',
    )
    tenant: Callable[[], object] | None = option(
        None,
        optional(function),
        "returns, or is a coroutine function that returns, the database (PostgreSQL: the schema) that a "
        "client works in, or None; called when its block begins, and taken back by the session's reset",
    )


@dataclass(frozen=True)
class ServerOptions(SqlOptions):
    """The options of a pool over servers."""

    replicas: tuple[object, ...] = option(
        (),
        sequence,
        "URLs or mappings; clients taken with `read_only=True` go to healthy replicas in turn, and to "
        "the primary while those are full",
    )


async def current_credential(value: object) -> str:
    """Return a user or a password, from a callable or a coroutine function when it is one."""
    if callable(value):
        value = value()

        if inspect.isawaitable(value):
            value = await value

    return "" if value is None else str(value)


def parse_options(
    declaration: type[OptionsT],
    section: Mapping[str, object],
    where: str,
    from_url: Callable[[str, str], Mapping[str, object]],
) -> OptionsT:
    """Return the checked options of a section; keys beside the URL win over its parts."""
    given = parse_given(declaration, section, where)
    url = given.get("url")

    if url is not None:
        given = {**parse_given(declaration, from_url(url, f"{where}.url"), f"{where}.url"), **given}

    _fit_sizes(declaration, section, given, where)
    return declaration(**given)


def url_options(parts: SplitResult, driver: str, **place: object) -> dict[str, object]:
    """Return the parts of a server's URL as options by name, unchecked; its query has all other options."""
    found = {
        **place,
        "driver": driver or None,
        "user": unquote(parts.username) if parts.username is not None else None,
        "password": unquote(parts.password) if parts.password is not None else None,
        "db": unquote(parts.path.lstrip("/")) or None,
    }
    return dict(parse_qsl(parts.query)) | {key: value for key, value in found.items() if value is not None}


def _fit_sizes(
    declaration: type[SqlOptions], section: Mapping[str, object], given: dict[str, Any], where: str
) -> None:
    """Make bounds fit together; the default maximum gives way to a minimum."""
    if "min_size" in given:
        if "max_size" in given:
            check_sizes(declaration, section, where, minimum=given["min_size"], maximum=given["max_size"])
        else:
            given["max_size"] = max(given["min_size"], declaration().max_size)

    if (lifetime := given.get("max_lifetime")) is not None and lifetime <= 0:
        given["max_lifetime"] = None  # -1 is how the original's pool_recycle said "never"
