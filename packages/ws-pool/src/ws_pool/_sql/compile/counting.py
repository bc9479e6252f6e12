"""A query becomes one that counts its rows."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.schema import Table
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import SelectBase

from ws_pool._sql.compile.compiler import Prepared
from ws_pool._sql.compile.parameters import Statement
from ws_pool.errors import UsageError

__all__ = ("counting",)


def counting(statement: Statement | Table) -> ClauseElement | str:
    """Return a statement that counts the rows of a query or a table."""
    if isinstance(statement, Prepared):
        statement = statement.statement

    if isinstance(statement, str):
        return _counted(statement)

    if isinstance(statement, TextClause):
        return text(_counted(statement.text)).bindparams(*statement._bindparams.values())

    if isinstance(statement, Table):
        return select(func.count().label("n")).select_from(statement)

    if isinstance(statement, SelectBase):
        query = cast(
            "Any", statement
        )  # Any: not every query has an order, and those that have no common base
        inner = query.order_by(None) if _order_is_moot(statement) else query
        return select(func.count().label("n")).select_from(inner.subquery("counted"))

    message = f"count() takes a query or a table, not a {type(statement).__name__}"
    raise UsageError(message)


def _counted(sql: str) -> str:
    """Count what a query returns; the line breaks end a comment behind it."""
    plain = sql.strip().rstrip(";")
    return f"SELECT COUNT(*) AS n FROM (\n{plain}\n) AS counted"  # noqa: S608 - the caller's own statement


def _order_is_moot(statement: Any) -> bool:
    """Whether a query's order cannot matter for how many rows it has."""
    return (
        hasattr(statement, "order_by")
        and getattr(statement, "_limit_clause", None) is None
        and getattr(statement, "_offset_clause", None) is None
        and getattr(statement, "_fetch_clause", None) is None
        and not getattr(statement, "_distinct_on", ())
    )
