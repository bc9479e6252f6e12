"""The options of a SQLite database: read from a URL or from keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    choice,
    integer,
    number,
    option,
    optional,
    text,
    url_parts,
)
from ws_pool._sql.options import SqlOptions, parse_options
from ws_pool.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A database file and how it is opened; ``:memory:`` is a database that lives as long as its pool."""

    path: str = option(":memory:", text, "the file, made when it is missing", aliases=("db",))
    busy_timeout: float = option(5.0, number(0), "seconds to wait for a lock of another process")
    journal_mode: str = option(
        "WAL",
        choice("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", any_case=True),
        "with WAL readers never wait for the writer",
    )
    synchronous: str = option(
        "NORMAL", choice("OFF", "NORMAL", "FULL", "EXTRA", any_case=True), "SQLite's `synchronous`"
    )
    foreign_keys: bool = option(True, boolean, "whether foreign keys are enforced")
    cache_kb: int | None = option(None, optional(integer(0)), "KiB of page cache of each connection")
    init_command: str | None = option(None, optional(text), "a statement run on each new connection")

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == ":memory:"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True)
class SqliteOptions(SqlOptions, SqliteFile):
    """All options of a SQLite pool; the sizes are those of its readers."""

    url: str | None = option(
        None, text, "`sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///:memory:`"
    )
    max_size: int = option(4, integer(1), "most readers at once", aliases=("maxsize",))

    def file(self) -> SqliteFile:
        """Return the part that says how to open the file."""
        return SqliteFile(**{entry.name: getattr(self, entry.name) for entry in fields(SqliteFile)})


def sqlite_options(section: Mapping[str, object], where: str) -> SqliteOptions:
    """Return the checked options of a SQLite pool; keys beside the URL win over its parts."""
    checked = parse_options(SqliteOptions, section, where, _from_url)
    # An absolute path does not depend on the working directory, which may change while the pool is open.
    return (
        checked if checked.path == ":memory:" else replace(checked, path=str(Path(checked.path).absolute()))
    )


def _from_url(url: str, where: str) -> dict[str, object]:
    parts = url_parts(url, where)
    path = unquote(parts.path)[1:] or ":memory:"

    if parts.scheme.partition("+")[0] != "sqlite" or parts.netloc:
        forms = "sqlite:///path, sqlite:////absolute/path or sqlite:///:memory:"
        message = f"{where} must be {forms}, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    return {"path": path, **dict(parse_qsl(parts.query))}
