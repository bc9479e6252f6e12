"""The options of a MongoDB pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ws_pool._core.config import check_sizes, choice, integer, number, option, optional, parse_given, text
from ws_pool.errors import ConfigError

__all__ = ("MongoOptions", "mongo_options")


def _database(value: object, where: str) -> str:
    name = text(value, where)

    if not name or any(char in name for char in '/\\. "$\0'):
        raise ConfigError(f"{where}={name!r} cannot be the name of a database", setting=where)

    return name


@dataclass(frozen=True, slots=True)
class MongoOptions:
    """How to reach a deployment; once checked, ``url`` has all of ``host port user password``."""

    url: str = option(
        "",
        text,
        "`mongodb://` or `mongodb+srv://`, with the driver's options",
        aliases=("address",),
        secret=True,
    )
    host: str | None = option(None, text, "instead of the URL", shown="localhost")
    port: int | None = option(None, integer(1, 65535), "with `host`", shown="27017")
    user: str | None = option(None, optional(text), "with `host`", aliases=("username",))
    password: str | None = option(None, optional(text), "with `host`", secret=True)
    db: str | None = option(None, optional(_database), "the default database, in place of the URL's")
    min_size: int = option(
        0, integer(0), "connections kept open to each server", aliases=("minsize", "min_pool_size")
    )
    max_size: int = option(
        100,
        integer(0),
        "most connections at once to each server; 0 for any number",
        aliases=("maxsize", "max_pool_size"),
    )
    timeout: float | None = option(None, optional(number(0.001)), "seconds for each operation")
    connect_timeout: float = option(5.0, number(0.001), "seconds to find a server and to connect to it")
    driver: str = option("pymongo", choice("pymongo", "motor"), "or `motor`, for code that still needs it")


def mongo_options(section: Mapping[str, object], *, where: str) -> MongoOptions:
    """Return the checked options of a MongoDB pool."""
    given = parse_given(MongoOptions, section, where)
    options = MongoOptions(**{**given, "url": _url(given, where)})
    check_sizes(
        MongoOptions, section, where, minimum=options.min_size, maximum=options.max_size or options.min_size
    )
    return options


def _url(given: Mapping[str, object], where: str) -> str:
    url = given.get("url")
    parts = [key for key in ("host", "port", "user", "password") if given.get(key) is not None]

    if url is not None:
        if parts:
            message = f"{where}.{parts[0]} says the same as {where}.url: keep one of them"
            raise ConfigError(message, setting=f"{where}.{parts[0]}")

        return str(url)

    if not parts:
        message = f"{where}.url is missing: give one like mongodb://localhost:27017/shop"
        raise ConfigError(message, setting=f"{where}.url")

    user, password = given.get("user"), given.get("password")
    login = quote(str(user), safe="") if user is not None else ""

    if password is not None:
        login += ":" + quote(str(password), safe="")

    host, port = given.get("host", "localhost"), given.get("port", 27017)
    return f"mongodb://{login}{'@' if login else ''}{host}:{port}/"
