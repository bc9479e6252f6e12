"""The shop's two tables and what is on sale. Statements and rules live in `shop`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any  # Any: the columns are in the definitions

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table

__all__ = (
    "CATALOGUE",
    "PAID",
    "RELEASED",
    "RESERVED",
    "Article",
    "items",
    "metadata",
    "orders",
    "receipts",
    "split_stock",
)

RESERVED = "reserved"
"""An order that holds a piece and waits for its payment."""
PAID = "paid"
"""An order that is done."""
RELEASED = "released"
"""An order whose time to pay ran out; its piece went back into the stock."""


@dataclass(frozen=True, slots=True)
class Article:
    """What the catalogue says of one item; prices in cents."""

    id: int
    name: str
    price: int
    icon: str


CATALOGUE = (
    Article(1, "Winter honey", 1290, "honey"),
    Article(2, "Plum blossom tea", 1850, "tea"),
    Article(3, "Wool scarf", 4900, "scarf"),
    Article(4, "Night lantern", 3400, "lantern"),
)

metadata: MetaData = MetaData()

items: Table[Any] = Table(
    "wintersweet_demo_items",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("stock", Integer, nullable=False),
    Column("available", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
)
"""``stock`` is what the sale began with, ``available`` what can be bought now."""

orders: Table[Any] = Table(
    "wintersweet_demo_orders",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("item_id", Integer, ForeignKey(items.c.id), nullable=False),
    Column("buyer", String(64), nullable=False),
    Column("idempotency_key", String(64), nullable=False, unique=True),
    Column("state", String(8), nullable=False),
    Column("pay_until", Double, nullable=False),
    Column("worker", Integer, nullable=False),
)
"""``pay_until`` is in seconds since the epoch; ``worker`` is the process that took the order."""

receipts: Table[Any] = Table(
    "wintersweet_demo_receipts",
    metadata,
    Column("order_id", Integer, ForeignKey(orders.c.id), primary_key=True, autoincrement=False),
    Column("worker", Integer, nullable=False),
)
"""What jobs have written for paid orders; ``worker`` is the process that ran the job."""

Index("wintersweet_demo_orders_due", orders.c.state, orders.c.pay_until)
Index("wintersweet_demo_orders_sold", orders.c.item_id, orders.c.state)


def split_stock(total: int) -> list[int]:
    """
    Divide the stock of the sale among the catalogue's items, so that they differ by one at most.

    Example:
        >>> split_stock(10)
        [3, 3, 2, 2]
    """
    each, rest = divmod(total, len(CATALOGUE))

    return [each + (place < rest) for place in range(len(CATALOGUE))]
