"""Every option of every pool, cache and health check refuses what it cannot use, at construction."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientTimeout

from ws_core.errors import ConfigError, UsageError
from ws_pool.cache import CacheWrap, LRUCache, ShareCache
from ws_pool.es import ElasticsearchPool
from ws_pool.health import HealthChecker, ProcessHealthChecker
from ws_pool.http import HttpPool
from ws_pool.mongo import MongoPool
from ws_pool.mysql import MysqlPool
from ws_pool.postgres import PostgresPool
from ws_pool.redis import RedisPool
from ws_pool.sqlite import SqlitePool

MADE: list[tuple[Callable[..., Any], dict[str, object], str]] = [
    (HttpPool, {}, "ws_pool._http.options"),
    (MongoPool, {"url": "mongodb://127.0.0.1:1/x"}, "ws_pool._mongo.options"),
    (ElasticsearchPool, {"url": "http://127.0.0.1:1"}, "ws_pool.es"),
    (RedisPool, {"url": "redis://127.0.0.1:1"}, "ws_pool._redis.options"),
    (MysqlPool, {"url": "mysql://u@127.0.0.1:1/x"}, "ws_pool._sql.mysql.options"),
    (SqlitePool, {"url": "sqlite:///:memory:"}, "ws_pool._sql.sqlite.options"),
    (PostgresPool, {"url": "postgresql://u@127.0.0.1:1/x"}, "ws_pool._sql.postgres.options"),
    (ShareCache, {"tag": "prices"}, ""),
    (CacheWrap, {}, ""),
    (LRUCache, {}, ""),
    (HealthChecker, {}, ""),
    (ProcessHealthChecker, {}, ""),
]

WRONG = object()  # fits no option
VALUES: list[object] = [
    *(WRONG, [WRONG], {1: 2}, {"a": [1]}, (1, 2), {1}, -1, 0, True, int),
    *(float("nan"), float("inf"), 10**400, "9" * 5000, "no\n\0", "", b"\xff", None),
]


def names_of(cls: Callable[..., Any], module: str) -> list[str]:
    """Return the options of a class: its parameters, and the fields of its table of options."""
    names = {
        found.name
        for found in inspect.signature(cls).parameters.values()
        if found.kind in {found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY}
    }

    if module:
        for declared in vars(importlib.import_module(module)).values():
            if inspect.isclass(declared) and dataclasses.is_dataclass(declared):
                names |= {found.name for found in dataclasses.fields(declared)}

    return sorted(names - {"setting"})  # the prefix of messages, not an option


@pytest.mark.parametrize(("cls", "given", "module"), MADE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_value_is_an_error_that_says_so(
    cls: Callable[..., Any], given: dict[str, object], module: str
) -> None:
    """A value of any type is taken or a ConfigError, never a raw error; an object is what no option takes."""
    raw: list[str] = []
    taken: list[str] = []

    for name in names_of(cls, module):
        for value in VALUES:
            try:
                cls(**{**given, name: value})
            except ConfigError:
                continue
            except Exception as error:  # noqa: BLE001 - all are collected
                raw.append(f"{name}={value!r:.20}: {error!r:.80}")
            else:
                if value is WRONG:
                    taken.append(name)

    assert (raw, taken) == ([], [])


@pytest.mark.parametrize(
    ("cls", "given", "said"),
    [
        (HttpPool, {"auth": ("a", "b", "nonsense"), "base_url": "http://x"}, "cannot be encoded"),
        (HttpPool, {"auth": ("a", "\u20ac", "latin-1"), "base_url": "http://x"}, "cannot be encoded"),
        (HttpPool, {"auth": ("a:b", "c"), "base_url": "http://x"}, "without a colon"),
        (HttpPool, {"auth": ("a", "b"), "base_url": "http://u:p@x"}, "exclude each other"),
        (HttpPool, {"headers": {"\u00e9": "c"}}, "name of a header"),
        (HttpPool, {"headers": {"a b": "c"}}, "name of a header"),
        (HttpPool, {"timeout": ClientTimeout(total=3), "connect_timeout": 5}, "say it there"),
        (MongoPool, {"url": "mongodb://h/x", "db": "a.b"}, "name of a database"),
    ],
)
def test_options_that_do_not_fit(cls: Callable[..., Any], given: dict[str, Any], said: str) -> None:
    """Combinations that would fail, or be ignored, at the first request are refused too."""
    with pytest.raises(ConfigError, match=said):
        cls(**given)


@pytest.mark.parametrize(
    ("cls", "url"),
    [
        *(
            (cls, url)
            for cls in (MysqlPool, PostgresPool)
            for url in ("{0}:/u:{1}@h/d", "{0}:u:{1}@h", " {0}://u:{1}@h")
        ),
        *(
            (cls, url)
            for cls in (RedisPool, HttpPool)
            for url in ("{0}:/u:{1}@h", "{0}:u:{1}@h", "{0}//u:{1}@h")
        ),
        *((cls, url) for cls in (ElasticsearchPool, SqlitePool) for url in ("{0}:/u:{1}@h", "u:{1}@h")),
    ],
)
def test_urls_without_slashes(cls: Callable[..., Any], url: str) -> None:
    """They are refused, not taken for localhost, and the message does not show their password."""
    scheme = {
        "MysqlPool": "mysql",
        "PostgresPool": "postgresql",
        "RedisPool": "redis",
        "SqlitePool": "sqlite",
    }
    name = "base_url" if cls is HttpPool else "url"

    with pytest.raises(ConfigError, match=rf"\.{name}.*\*\*\*@h") as refused:
        cls(**{name: url.format(scheme.get(cls.__name__, "http"), "hunter2")})

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["sqlite:x.db", "sqlite:/x.db"])
def test_files_without_slashes(url: str) -> None:
    """They are not another file."""
    with pytest.raises(ConfigError, match="must be sqlite:///path"):
        SqlitePool(url=url)


async def test_credentials_in_a_base_url() -> None:
    """Neither the pool nor its client, nor the error of another URL shows them."""
    async with HttpPool(base_url="http://ann:hunter2@127.0.0.1:1") as pool:
        shown = f"{pool!r} {pool.client!r}"
        assert shown.count("http://ann:***@127.0.0.1:1") == 2

    async with HttpPool() as pool:
        with pytest.raises(UsageError, match=r"htp://ann:\*\*\*@h/: a URL must begin with http"):
            await pool.client.get("htp://ann:hunter2@h/")


async def test_headers_of_the_context() -> None:
    """A function that returns no headers is named, and not an error from within aiohttp."""
    async with HttpPool(context_headers=lambda: 3) as pool:
        with pytest.raises(ConfigError, match="context_headers"):
            await pool.client.get("http://127.0.0.1:1/")

    with pytest.raises(ConfigError):
        HttpPool(context_headers=3)
