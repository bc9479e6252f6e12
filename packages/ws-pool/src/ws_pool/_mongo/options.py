"""The options of a MongoDB pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote

from ws_pool._core.config import (
    check_sizes,
    choice,
    config_error,
    integer,
    number,
    option,
    optional,
    parse_given,
    text,
)
from ws_pool.errors import ConfigError

# In small letters, with our names and how many of theirs make one of our units.
_DRIVER_NAMES: Final = {
    "minpoolsize": ("min_size", 1),
    "maxpoolsize": ("max_size", 1),
    "timeoutms": ("timeout", 1000),
    "connecttimeoutms": ("connect_timeout", 1000),
}


def _database(value: object, where: str) -> str:
    name = text(value, where)

    if not name or any(char in name for char in '/\\. "$\0'):
        raise ConfigError(f"{where}={name!r} cannot be the name of a database", setting=where)

    return name


def _host(value: object, where: str) -> str:
    host = text(value, where)

    # Several hosts are several names behind commas.
    if not host or any(char.isspace() or char in "@/?#" for char in host):
        raise ConfigError(f"{where}={host!r} is not the name of a host", setting=where)

    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


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
    host: str | None = option(None, _host, "instead of the URL", shown="localhost")
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
    given |= _of_url(given, where)
    options = MongoOptions(**{**given, "url": _url(given, where)})
    check_sizes(
        MongoOptions, section, where, minimum=options.min_size, maximum=options.max_size or options.min_size
    )
    return options


def url_options(url: str) -> dict[str, str]:
    """Return the driver's options in a URL, whose names have any case."""
    return {name.lower(): value for name, value in parse_qsl(url.partition("?")[2].replace(";", "&"))}


def _of_url(given: Mapping[str, object], where: str) -> dict[str, object]:
    """Return our options that the URL has under the driver's names; what we pass would override them."""
    found: dict[str, object] = {}
    of_driver = url_options(str(given.get("url", "")))

    for name, (key, unit) in _DRIVER_NAMES.items():
        if (value := of_driver.get(name)) is None:
            continue

        if key in given:
            raise config_error(f"{where}.{key}", f"says the same as {name} in {where}.url: keep one of them")

        # The driver refuses other values. A time of 0 is none, which only it needs to know.
        if value.isascii() and value.isdigit() and (unit == 1 or int(value)):
            found[key] = int(value) if unit == 1 else int(value) / unit

    return found


def _url(given: Mapping[str, object], where: str) -> str:
    url = given.get("url")
    parts = [key for key in ("host", "port", "user", "password") if given.get(key) is not None]

    if url is not None:
        if parts:
            raise config_error(f"{where}.{parts[0]}", f"says the same as {where}.url: keep one of them")

        return str(url)

    if not parts:
        raise config_error(f"{where}.url", "is missing: give one like mongodb://localhost:27017/shop")

    user, password = given.get("user"), given.get("password")
    login = quote(str(user), safe="") if user is not None else ""

    if password is not None:
        login += ":" + quote(str(password), safe="")

    host, port = given.get("host", "localhost"), given.get("port", 27017)
    return f"mongodb://{login}{'@' if login else ''}{host}:{port}/"
