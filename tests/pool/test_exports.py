"""The names of the top level: each is there, and says what to install when its library is not."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import ws_pool
from ws_pool._core.extras import missing

HIDE = """
import sys
from ws_core.errors import MissingExtraError
sys.modules[sys.argv[1]] = None
try:
    exec(sys.argv[2])
except MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
"""


def without(library: str, statement: str) -> str:
    """Run a statement where a library is missing, and give the error's text."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE, library, statement], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", ws_pool.__all__)
def test_every_name_is_there(name: str) -> None:
    """Every exported name can be imported, and is listed."""
    assert getattr(ws_pool, name) is getattr(ws_pool, name)
    assert name in dir(ws_pool)


def test_an_unknown_name() -> None:
    """A wrong name is an attribute error, as everywhere."""
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchPool'"):
        _ = ws_pool.NoSuchPool


@pytest.mark.parametrize(
    ("library", "module", "name", "extra"),
    [
        ("cachetools", "cache", "LRUCache", "cache"),
        ("sqlalchemy", "mysql", "MysqlPool", "mysql"),
        ("sqlalchemy", "sqlite", "SqlitePool", "sqlite"),
        ("redis", "redis", "RedisPool", "redis"),
        ("redis", "events", "RedisEventBus", "redis"),
        ("pymongo", "mongo", "MongoPool", "mongo"),
        ("aiohttp", "http", "HttpPool", "http"),
        ("elasticsearch", "es", "ElasticsearchPool", "es"),
    ],
)
def test_a_missing_library(library: str, module: str, name: str, extra: str) -> None:
    """Without its library, the error of a name and of its module names the extra that brings it."""
    for statement in (f"from ws_pool import {name}", f"import ws_pool.{module}"):
        error = without(library, statement)
        assert f"needs {library}" in error
        assert f"pip install 'ws-pool[{extra}]'" in error


def test_tracing_without_opentelemetry() -> None:
    """The module names its extra; the pools do not need it."""
    assert "pip install 'ws-pool[otel]'" in without("opentelemetry", "import ws_pool.otel")
    assert not without("opentelemetry", "from ws_pool import RedisPool, SqlitePool, HttpPool")


def test_atomic_without_a_library() -> None:
    """The name can be had; its use says what is missing."""
    assert "needs sqlalchemy" in without("sqlalchemy", "from ws_pool import atomic; atomic()")


def test_a_module_of_our_own_that_is_missing() -> None:
    """Its error is unchanged: no extra would bring it."""
    ours = ModuleNotFoundError("No module named 'ws_pool._lost'", name="ws_pool._lost")
    assert missing("ws_pool.redis", ours, "redis") is ours


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a module of ours that is missing is unchanged: no extra would bring it."""
    monkeypatch.setitem(ws_pool._MODULES, "Nothing", "no_such_module")

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("ws_pool").Nothing  # noqa: B018 - looking it up is the test
