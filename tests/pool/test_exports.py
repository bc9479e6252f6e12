"""The names of the top level: each is there, and says what to install when its library is not."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import ws_pool

HIDE = """
import sys
from ws_core.errors import MissingExtraError
sys.modules[sys.argv[1]] = None
import ws_pool
try:
    getattr(ws_pool, sys.argv[2])
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ws_pool.__all__)
def test_every_name_is_there(name: str) -> None:
    """Every exported name can be imported, and is listed."""
    assert getattr(ws_pool, name) is getattr(ws_pool, name)
    assert name in dir(ws_pool)


def test_an_unknown_name() -> None:
    """A wrong name is an attribute error, as everywhere."""
    with pytest.raises(AttributeError, match="has no attribute 'PostgresPool'"):
        _ = ws_pool.PostgresPool


@pytest.mark.parametrize(
    ("library", "name", "extra"),
    [
        ("cachetools", "LRUCache", "cache"),
        ("sqlalchemy", "MysqlPool", "mysql"),
        ("pymongo", "MongoPool", "mongo"),
        ("aiohttp", "HttpPool", "http"),
    ],
)
def test_a_missing_library(library: str, name: str, extra: str) -> None:
    """Without its library a name tells which extra brings it."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE, library, name], capture_output=True, text=True, check=True
    )

    assert f"pip install 'ws-pool[{extra}]'" in done.stdout
    assert f"{name} needs {library}" in done.stdout


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of ours that is missing is told as it is: no extra would bring it."""
    monkeypatch.setitem(ws_pool._MODULES, "Nothing", "no_such_module")

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("ws_pool").Nothing  # noqa: B018 - looking it up is the test
