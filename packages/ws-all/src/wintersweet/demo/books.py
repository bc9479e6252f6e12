"""The sale's books: opening a sale, and counting it from the database."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import case, func, insert, select, update

from wintersweet.demo.tables import (
    CATALOGUE,
    PAID,
    RELEASED,
    RESERVED,
    items,
    metadata,
    orders,
    receipts,
    split_stock,
)
from ws_pool.errors import IntegrityViolation
from ws_pool.mysql import sql_pool_manager

__all__ = (
    "Totals",
    "count",
    "deliver",
    "latest",
    "open_sale",
    "paid_orders",
    "receipt_writers",
    "write_receipt",
)


@dataclass(frozen=True, slots=True)
class Totals:
    """
    The sale counted from the database.

    ``oversold`` counts pieces sold or held beyond the stock; ``drift`` counts pieces that the books
    lost or invented: stock minus what is available, held and sold. Both are 0 unless something is broken.
    """

    stock: int
    sold: int
    reserved: int
    oversold: int
    drift: int
    available: dict[int, int]
    stocks: dict[int, int]


async def open_sale(stock: int) -> None:
    """Begin a sale of so many pieces: make the tables anew and put the stock on the shelf."""
    shelf = [
        {"id": article.id, "stock": pieces, "available": pieces, "fence": 0}
        for article, pieces in zip(CATALOGUE, split_stock(stock), strict=True)
    ]

    async with sql_pool_manager.get_client() as sql:
        await sql.drop_all(metadata)
        await sql.create_all(metadata)
        await sql.insert_many(items, shelf)


async def deliver(stock: int) -> None:
    """Make the stock of the whole sale, with those sold already, so large; repeated, it delivers once."""
    totals = await count()

    for article, pieces in zip(CATALOGUE, split_stock(stock), strict=True):
        before = totals.stocks[article.id]

        if pieces > before:
            more = items.c.id == article.id, items.c.stock == before
            await sql_pool_manager.update(
                update(items).where(*more).values(stock=pieces, available=items.c.available + pieces - before)
            )


async def count() -> Totals:
    """Count the sale, in one statement, so that the figures fit together."""
    held = func.sum(case((orders.c.state == RESERVED, 1), else_=0)).label("held")
    paid = func.sum(case((orders.c.state == PAID, 1), else_=0)).label("paid")
    ordered = select(orders.c.item_id, held, paid).group_by(orders.c.item_id).subquery()
    books = (
        select(
            items.c.id,
            items.c.stock,
            items.c.available,
            func.coalesce(ordered.c.held, 0).label("held"),
            func.coalesce(ordered.c.paid, 0).label("paid"),
        )
        .select_from(items.outerjoin(ordered, ordered.c.item_id == items.c.id))
        .order_by(items.c.id)
    )

    rows = [
        (row.id, row.stock, row.available, int(row.held), int(row.paid))
        for row in await sql_pool_manager.select(books)
    ]

    return Totals(
        stock=sum(stock for _, stock, _, _, _ in rows),
        sold=sum(paid for *_, paid in rows),
        reserved=sum(held for *_, held, _ in rows),
        oversold=sum(max(0, held + paid - stock) for _, stock, _, held, paid in rows),
        drift=sum(abs(stock - available - held - paid) for _, stock, available, held, paid in rows),
        available={item: available for item, _, available, _, _ in rows},
        stocks={item: stock for item, stock, *_ in rows},
    )


async def latest(count: int) -> list[dict[str, int | str]]:
    """Return so many of the latest sales, the newest first, as they are sent to the page."""
    sold = (
        select(orders.c.id, orders.c.item_id, orders.c.buyer)
        .where(orders.c.state != RELEASED)
        .order_by(orders.c.id.desc())
        .limit(count)
    )

    async with sql_pool_manager.get_client(read_only=True) as sql:
        return [{"order": row.id, "item": row.item_id, "buyer": row.buyer} for row in await sql.select(sold)]


async def paid_orders(buyers: str) -> set[int]:
    """Return the ids of paid orders of buyers whose names begin so."""
    paid = select(orders.c.id).where(
        orders.c.state == PAID, orders.c.buyer.startswith(buyers, autoescape=True)
    )

    return {row.id for row in await sql_pool_manager.select(paid)}


async def write_receipt(order: int, worker: int) -> None:
    """Write the receipt of a paid order, from the process ``worker``; repeated, it is written once."""
    with suppress(IntegrityViolation):  # a job is run at least once
        await sql_pool_manager.insert(insert(receipts).values(order_id=order, worker=worker))


async def receipt_writers() -> dict[int, int]:
    """Return the orders that have a receipt, each with the process that wrote it."""
    return {row.order_id: row.worker for row in await sql_pool_manager.select(select(receipts))}
