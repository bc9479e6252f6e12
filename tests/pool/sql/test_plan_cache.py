"""The cache of plans: bounded, and cheap to keep so."""

from __future__ import annotations

from heapq import nsmallest
from typing import Any

import pytest
from sqlalchemy import ColumnElement, column, select
from sqlalchemy.dialects.mysql.aiomysql import dialect

from ws_pool._sql.compile import compiler as module
from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.sqlite import statement_text


def test_a_full_cache_is_searched_rarely_and_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch):
    """The oldest plans go, a tenth of them at once, so that not each miss looks at all plans."""
    searches = 0

    def counting(*args: Any, **options: Any) -> list[Any]:  # as of nsmallest
        nonlocal searches
        searches += 1
        return nsmallest(*args, **options)

    monkeypatch.setattr(module, "nsmallest", counting)
    compiler = Compiler(dialect(), statement_text, size=100)
    favourite, _, _ = compiler.plan("SELECT 'often'", None)

    for number in range(1_000):
        compiler.plan(f"SELECT {number}", None)
        assert compiler.plan("SELECT 'often'", None)[0] is favourite
        assert len(compiler) <= 100

    assert 50 < searches < 110


def test_equal_statements_share_a_plan():
    """The second one is not compiled, though its values are others."""
    compiler = Compiler(dialect(), statement_text, size=10)
    name: ColumnElement[str] = column("name")
    first, second = (select(name).where(name.in_(["x"] * n)) for n in (1, 2))
    assert compiler.plan(first, None)[0] is compiler.plan(second, None)[0]


def test_a_cache_of_size_zero_keeps_nothing():
    """Each statement is compiled anew, and nothing fails."""
    compiler = Compiler(dialect(), statement_text, size=0)

    for _ in range(3):
        assert compiler.plan("SELECT 1", None)[0].sql == "SELECT 1"
        assert len(compiler) == 0
