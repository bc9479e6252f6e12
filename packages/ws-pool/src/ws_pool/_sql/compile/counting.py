"""A query becomes one that counts its rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import TextClause, func, select
from sqlalchemy.schema import Table
from sqlalchemy.sql.selectable import SelectBase

from ws_pool._sql.compile.compiler import Prepared
from ws_pool._sql.compile.parameters import Statement
from ws_pool.errors import UsageError


def countable(statement: Statement | Table) -> Statement:
    """Return a query without an order that cannot matter, or a table's count; all else is refused."""
    if isinstance(statement, Table):
        return select(func.count().label("n")).select_from(statement)

    if isinstance(statement, str | Prepared | TextClause):
        return statement

    if isinstance(statement, SelectBase):
        query: Any = statement  # Any: not every query has an order, and those that have no common base
        counted_query: Statement = query.order_by(None) if _order_is_moot(query) else query
        return counted_query

    message = f"count() takes a query or a table, not a {type(statement).__name__}"
    raise UsageError(message)


def counted(sql: str) -> str:
    """
    Count what the text of a query returns; the line breaks end a comment behind it.

    The text is the query's own. SQLAlchemy's `subquery()` may be another query: of the ORM's it leaves
    out what is joined for eager loading, and it fails over columns without a name.
    """
    plain = sql.strip().rstrip(";")
    return f"SELECT COUNT(*) AS n FROM (\n{plain}\n) AS counted"  # noqa: S608 - the caller's own statement


def _order_is_moot(statement: Any) -> bool:
    """Whether a query has an order that cannot matter for how many rows it has."""
    return (
        bool(getattr(statement, "_order_by_clauses", ()))
        and getattr(statement, "_limit_clause", None) is None
        and getattr(statement, "_offset_clause", None) is None
        and getattr(statement, "_fetch_clause", None) is None
        and not getattr(statement, "_distinct_on", ())
    )
