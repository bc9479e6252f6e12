"""`count` returns how many rows `select` would, whatever a query's columns are called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, bindparam, func, insert, literal, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

from tests.pool.sql.backends import BACKENDS, POSTGRES, make_requested
from ws_pool._sql.compile.counting import countable
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import QueryError, UsageError


class Base(DeclarativeBase):
    """The declarations."""


class Order(Base):
    """An order with its lines."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    """A line of an order."""

    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[int] = mapped_column(ForeignKey(Order.id))


@pytest.fixture(params=(*BACKENDS, *POSTGRES))
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool of each kind with three orders and five lines."""
    async with make_requested(request, tmp_path) as made:
        await made.create_all(Base.metadata)
        await made.insert_many(insert(Order), [{"id": n, "name": f"50 % of {n}"} for n in (1, 2, 3)])
        await made.insert_many(insert(Line), [{"id": n, "order": 1 + n % 2} for n in range(1, 6)])
        yield made


# A query, and how many rows it has.
CORE: list[tuple[Any, int]] = [  # Any: queries with other types of rows each
    (select(text("1"), func.max(Line.id), text("2")), 1),
    (select(literal(1), literal(1), Line.id), 5),  # two columns of one name
    (select(Line.id, Line.id.label("id")).order_by(Line.id.desc()), 5),
    (select(func.count(), Line.order).group_by(Line.order), 2),
    (select(Order.id, Line.id).join_from(Order, Line, isouter=True), 6),
    (select(Order).options(joinedload(Order.lines)), 6),  # as many rows as select() returns of it
    (select(Order).options(joinedload(Order.lines)).where(Order.id.in_([1, 3])).order_by(Order.name), 3),
    (select(Order.name).where(Order.name.like("50 %")).order_by(Order.id).limit(2), 2),
    (select(Line.id).union_all(select(Order.id)).order_by("id"), 8),
    (select(Line.id).order_by(Line.id).limit(3).subquery("few").select(), 3),
    (text("SELECT 1, max(id), 2 FROM line"), 1),
    (text("SELECT 1, 1 FROM line -- all of them"), 5),
]


@pytest.mark.parametrize("number", range(len(CORE)))
async def test_any_query_is_counted(pool: SqlPool, number: int):
    """As a statement, and as a prepared handle; it is as many as the query returns."""
    statement, rows = CORE[number]

    for query in (statement, pool.prepare(statement)):
        assert await pool.count(query) == rows
        assert len(await pool.select(query)) == rows
        assert await pool.count(query) == rows


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1, max(id), 2 FROM line", 1),
        ("SELECT 1, 1, id FROM line;", 5),
        ("SELECT id, id FROM line WHERE id > :id  # from 3".replace("#", "--"), 3),
        ("SELECT name FROM orders WHERE name LIKE '50 %' AND id >= :id", 2),
    ],
)
async def test_a_query_in_text_is_counted(pool: SqlPool, sql: str, rows: int):
    """With parameters, a percent sign, a comment, columns without a name and two of one name."""
    params = {"id": 2} if ":id" in sql else {}
    assert await pool.count(sql, **params) == len(await pool.select(sql, **params)) == rows
    assert await pool.count(pool.prepare(sql), params) == rows

    async with pool.atomic() as client:
        assert await client.count(sql, **params) == rows


async def test_parameters_of_handles_are_counted_with(pool: SqlPool):
    """By keyword, by a mapping, and as a list."""
    handle = pool.prepare(select(Line).where(Line.id.in_(bindparam("ids", expanding=True))))
    assert await pool.count(handle, ids=[1, 2, 9]) == 2
    assert await pool.count(handle, {"ids": []}) == 0

    with pytest.raises(UsageError, match="ids"):
        await pool.count(handle)


async def test_errors_are_those_of_the_query(pool: SqlPool):
    """Inside a query or not."""
    with pytest.raises(QueryError, match="nowhere"):
        await pool.count("SELECT 1, 1 FROM nowhere")

    with pytest.raises(UsageError, match="takes a query or a table"):
        await pool.count(insert(Line))


def test_only_an_order_that_cannot_matter_is_left_out():
    """A limit makes it matter; without an order the statement is the one that select() has compiled."""
    plain = select(Line.id)
    assert countable(plain) is plain
    ordered = plain.order_by(Line.id)
    assert "ORDER BY" not in str(countable(ordered))
    assert "ORDER BY" in str(countable(ordered.limit(1)))
