"""The guides show the options as they are declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.option_tables import PAGES, updated
from ws_pool._core.config import options
from ws_pool._http.options import HttpOptions
from ws_pool._redis.options import RedisOptions
from ws_pool._sql.mysql.options import MysqlOptions, mysql_options


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_tables_are_current(path: Path):
    """Every table of options is the one that `python -m tools.option_tables` writes."""
    page = path.read_text("utf-8")
    assert updated(page) == page


def test_a_changed_table_is_seen():
    """A page with another default, or without a row, is not current."""
    page = next(path for path in PAGES if path.name == "pool-sql.md").read_text("utf-8")
    assert updated(page.replace("| `max_size`, `maxsize` | 10 |", "| `max_size`, `maxsize` | 11 |")) == page
    assert updated(page.replace("<!-- end of options -->", "| `x` | | |\n<!-- end of options -->", 1)) == page


@pytest.mark.parametrize("declaration", [HttpOptions, MysqlOptions, RedisOptions])
def test_declared_defaults_pass_their_checks(declaration: type):
    """A default, unless it means "absent", is a value that the option itself would accept."""
    for name, entry in options(declaration).items():
        if entry.default not in (None, (), ""):
            assert entry.check(entry.default, name) == entry.default


def test_secrets_are_not_in_the_repr():
    """Options can be logged: passwords are left out."""
    assert "hunter2" not in repr(mysql_options({"host": "db", "password": "hunter2"}, "DATABASES.default"))
