"""A user's program, for mypy: what the types of a statement's columns become. It is never run."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ws_pool import MysqlPool, PostgresPool, Row, SqlitePool, atomic, sql_pool_manager
from ws_pool.mysql import MysqlClient, SqlClient
from ws_pool.postgres import PostgresClient


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


async def load(mysql: MysqlPool, postgres: PostgresPool, sqlite: SqlitePool, file: bytes) -> int:
    """Use what the clients of one database alone have, in transactions too."""
    async with atomic(mysql) as client:
        assert_type(client, MysqlClient)
        loaded = await client.load_data("LOAD DATA LOCAL INFILE 'x' INTO TABLE item", file)

    async with mysql.atomic() as client, mysql.get_client() as same:
        assert_type(client, MysqlClient)
        assert_type(same, MysqlClient)

    async with postgres.atomic() as other, atomic(postgres, read_only=True) as reader:
        assert_type(reader, PostgresClient)
        loaded += await other.copy_from("item", [(1, "book", 2.5)])

    async with sqlite.atomic() as third, atomic("default") as fourth:
        assert_type(third, SqlClient)
        assert_type(fourth, SqlClient)

    return loaded


@atomic
async def rename(number: int, name: str) -> bool:
    """Keep the types of a decorated function."""
    return number > len(name)


async def call(mysql: MysqlPool) -> None:
    """Call decorated functions."""
    assert_type(await rename(1, name="x"), bool)
    assert_type(await mysql.atomic(retry_deadlocks=3)(rename)(1, name="x"), bool)
