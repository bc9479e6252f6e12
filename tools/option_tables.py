"""Write the tables of options in the guides from the declarations of the pools.

A table stands between two marks, ``<!-- options of mysql -->`` and ``<!-- end of options -->``. Run
``python -m tools.option_tables`` after a declaration has changed; a test compares both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ws_pool._core.config import Option, options
from ws_pool._elasticsearch.options import EsOptions
from ws_pool._http.options import HttpOptions
from ws_pool._mongo.options import MongoOptions
from ws_pool._redis.options import RedisOptions
from ws_pool._sql.mysql.options import MysqlOptions
from ws_pool._sql.postgres.options import PostgresOptions
from ws_pool._sql.sqlite.options import SqliteOptions

__all__ = ("PAGES", "updated")

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs" / "how-to").glob("pool*.md"))

_TABLE = re.compile(r"(<!-- options of (\w+) -->\n).*?(\n<!-- end of options -->)", re.DOTALL)
_DECLARATIONS = {
    "mysql": MysqlOptions,
    "postgres": PostgresOptions,
    "sqlite": SqliteOptions,
    "redis": RedisOptions,
    "http": HttpOptions,
    "mongo": MongoOptions,
    "es": EsOptions,
}


def updated(page: str) -> str:
    """Return a page with its tables of options as they are declared."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{_table(found[2])}\n{found[3]}", page)


def _table(kind: str) -> str:
    declared = options(_DECLARATIONS[kind])

    if kind in {"postgres", "sqlite"}:  # the rest is in the table above it
        known = options(MysqlOptions)
        declared = {name: entry for name, entry in declared.items() if known.get(name) != entry}

    return "\n".join(["| option | default | |", "|---|---|---|", *_rows(declared.values())])


def _rows(entries: Iterable[Option]) -> Iterable[str]:
    for entry in sorted(entries, key=lambda entry: entry.name != "url"):
        others = "".join(f", `{other}`" for other in entry.aliases)
        yield f"| `{entry.name}`{others} | {entry.shown} | {entry.meaning} |"


def main() -> None:
    """Write all tables anew."""
    for path in PAGES:
        page = path.read_text("utf-8")

        if (new := updated(page)) != page:
            path.write_text(new, "utf-8")
            print(f"{path}: tables of options written")


if __name__ == "__main__":
    main()
