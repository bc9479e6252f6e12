"""A user's program, for mypy: what the types of a statement's columns become. It is never run."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ws_pool import Row, SqlitePool, atomic, sql_pool_manager


class Base(DeclarativeBase):
    """The declarations."""


class Item(Base):
    """A thing for sale."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[float | None]


async def shop(pool: SqlitePool) -> list[str]:
    """Use the verbs of a client, of a pool and of a manager."""
    columns = select(Item.id, Item.name)
    by_id = pool.prepare(columns.where(Item.id == bindparam("id")))

    async with pool.get_client() as client:
        rows = await client.select(columns)
        assert_type(rows, list[Row[tuple[int, str]]])
        assert_type(await client.find(select(Item.price)), Row[tuple[float | None]] | None)
        assert_type(await client.select(columns, row_type=dict), list[dict[str, Any]])
        assert_type(await client.find(columns, row_type=dict), dict[str, Any] | None)
        assert_type(await client.select(by_id, id=1), list[Row[tuple[int, str]]])
        assert_type(await client.select("SELECT 1"), list[Any])
        assert_type(await client.count(columns), int)

    number, name = rows[0]._tuple()
    assert_type(number, int)
    assert_type(name, str)
    assert_type(await pool.find(by_id, id=1), Row[tuple[int, str]] | None)
    assert_type(await sql_pool_manager.select(select(func.count(Item.id))), list[Row[tuple[int]]])

    async with atomic(pool) as client:
        first = await client.find(columns)
        return [] if first is None else [first.name, *first._asdict()]
