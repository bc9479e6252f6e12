"""The options of a MongoDB pool, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ws_pool._core.config import Check, check_sizes, choice, integer, number, optional, options_of, text
from ws_pool.errors import ConfigError

__all__ = ("MongoOptions", "mongo_options")


@dataclass(frozen=True, slots=True)
class MongoOptions:
    """
    Checked options.

    Args:
        url: Where the deployment is, with the driver's options.
        db: The default database, in place of the URL's.
        minsize: Connections kept open to each server.
        maxsize: Most connections at once to each server; 0 for any number.
        timeout: Seconds for each operation; None for no bound.
        connect_timeout: Seconds to find a server and to connect to it.
        driver: ``pymongo`` or ``motor``.
    """

    url: str
    db: str | None = None
    minsize: int = 0
    maxsize: int = 100
    timeout: float | None = None
    connect_timeout: float = 5.0
    driver: str = "pymongo"


def mongo_options(given: Mapping[str, object], *, where: str) -> MongoOptions:
    """
    Check the options of a MongoDB pool.

    Args:
        given: What the user gave.
        where: What begins the options' names in errors.

    Returns:
        All options.

    Raises:
        ConfigError: An option is unknown or wrong.
    """
    checked = options_of(given, _CHECKS, where=where, aliases=_ALIASES)
    url = _url(checked, where)
    rest = {key: value for key, value in checked.items() if key not in _PARTS}
    settings = MongoOptions(url=url, **rest)  # type: ignore[arg-type]  # each check returns its option's type
    check_sizes(settings.minsize, settings.maxsize or settings.minsize, where=where)
    return settings


def _url(options: Mapping[str, object], where: str) -> str:
    url = options.get("url")
    parts = [key for key in ("host", "port", "user", "password") if options.get(key) is not None]

    if url is not None:
        if parts:
            message = f"{where}.{parts[0]} says the same as {where}.url: keep one of them"
            raise ConfigError(message, setting=f"{where}.{parts[0]}")

        return str(url)

    if not parts:
        message = f"{where}.url is missing: give one like mongodb://localhost:27017/shop"
        raise ConfigError(message, setting=f"{where}.url")

    user, password = options.get("user"), options.get("password")
    login = quote(str(user), safe="") if user is not None else ""

    if password is not None:
        login += ":" + quote(str(password), safe="")

    host, port = options.get("host", "localhost"), options.get("port", 27017)
    return f"mongodb://{login}{'@' if login else ''}{host}:{port}/"


_CHECKS: Mapping[str, Check] = {
    "url": text,
    "host": text,
    "port": integer(1, 65535),
    "user": optional(text),
    "password": optional(text),
    "db": optional(text),
    "minsize": integer(0),
    "maxsize": integer(0),
    "timeout": optional(number(0.001)),
    "connect_timeout": number(0.001),
    "driver": choice("pymongo", "motor"),
}
_ALIASES = {"address": "url", "username": "user", "min_pool_size": "minsize", "max_pool_size": "maxsize"}
_PARTS = frozenset({"url", "host", "port", "user", "password"})
