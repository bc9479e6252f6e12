"""The options of a SQLite database: read from a URL or from keys, checked before any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from ws_pool._core.config import Check, choice, integer, mask_url, number, optional, text, url_parts
from ws_pool._sql.mysql.options import POOL_CHECKS
from ws_pool.errors import ConfigError

__all__ = ("SQLITE_ALIASES", "SQLITE_CHECKS", "SqliteFile", "absolute", "path_of")

SQLITE_CHECKS: dict[str, Check] = {
    **POOL_CHECKS,
    "url": text,
    "path": text,
    "busy_timeout": number(0),
    "journal_mode": choice("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", any_case=True),
    "synchronous": choice("OFF", "NORMAL", "FULL", "EXTRA", any_case=True),
    "foreign_keys": POOL_CHECKS["echo"],
    "cache_kb": optional(integer(0)),
    "init_command": optional(text),
}

SQLITE_ALIASES = {"minsize": "min_size", "maxsize": "max_size", "db": "path", "cursorclass": "row_type"}


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A database file and how it is opened; ``:memory:`` is a database that lives as long as its pool."""

    path: str
    busy_timeout: float = 5.0
    journal_mode: str = "WAL"
    synchronous: str = "NORMAL"
    foreign_keys: bool = True
    cache_kb: int | None = None
    init_command: str | None = None

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == ":memory:"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


def path_of(url: str, where: str) -> dict[str, object]:
    """
    Split a URL into options.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.
        where: The option's full name for errors.

    Returns:
        The path, and the options of the query.

    Raises:
        ConfigError: It is no SQLite URL.
    """
    parts = url_parts(url, where)
    path = unquote(parts.path)[1:] or ":memory:"

    if parts.scheme.partition("+")[0] != "sqlite" or parts.netloc:
        forms = "sqlite:///path, sqlite:////absolute/path or sqlite:///:memory:"
        message = f"{where} must be {forms}, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    return {"path": path, **dict(parse_qsl(parts.query))}


def absolute(path: str) -> str:
    """
    Make a path independent of the working directory, which may change while the pool is open.

    Args:
        path: A path, or ``:memory:``.
    """
    return path if path == ":memory:" else str(Path(path).absolute())
