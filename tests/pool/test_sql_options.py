"""Options of the SQL pools: what is wrong is told before anything starts, and nothing secret with it."""

from __future__ import annotations

import traceback

import pytest

from ws_pool import MysqlPool, SqlitePool
from ws_pool.errors import ConfigError


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter[2@h/db", "mysql://u:hunter\u21002@h/db", "mysql://u:hunter2]@[h/db"]
)
def test_a_url_that_cannot_be_split_keeps_its_password(url: str):
    """Neither the message nor a traceback shows it."""
    with pytest.raises(ConfigError, match=r"MysqlPool\.url") as caught:
        MysqlPool(url)

    told = "".join(traceback.format_exception(caught.value)).split("ConfigError: ")[-1]
    assert "hunter" not in told
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_sqlite_url_that_cannot_be_split_is_told():
    """As for MySQL."""
    with pytest.raises(ConfigError, match=r"SqlitePool\.url"):
        SqlitePool("sqlite://[x/y.db?key=hunter2")
