"""The rules of the sale: who gets a piece, who has paid, what goes back on the shelf.

Three guards stand between two buyers and one last piece, each enough on its own:

1. a `MutexLock` per item, so that one process at a time takes a piece of it;
2. its fencing token in the update, so that a holder whose lease ran out cannot write any more;
3. ``available > 0`` in the update itself, inside one `atomic` transaction with the order.

An order carries the buyer's idempotency key under a unique index: the same key again returns the same
order. This module knows SQL and locks; requests, sockets and tasks are the application's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, insert, select, update

from wintersweet.demo.tables import PAID, RELEASED, RESERVED, items, orders
from ws_core.errors import WsError
from ws_pool import Prepared, atomic, sql_pool_manager
from ws_pool.errors import IntegrityViolation
from ws_pool.redis import RedisPool
from ws_redislock import LockLost, LockNotAcquired, MutexLock

__all__ = (
    "Busy",
    "Expired",
    "KeyTaken",
    "Order",
    "Released",
    "Shop",
    "SoldOut",
    "UnknownItem",
    "UnknownOrder",
)


class SoldOut(WsError):
    """No piece of this item is left; the context's ``available`` names items that have some."""

    default_code = "sold_out"


class Busy(WsError):
    """The item could not be taken just now, though some is left; ask again with the same key."""

    default_code = "busy"


class KeyTaken(WsError):
    """Another buyer has used this idempotency key."""

    default_code = "key_taken"


class UnknownItem(WsError):
    """There is no such item."""

    default_code = "unknown_item"


class UnknownOrder(WsError):
    """This buyer has no such order."""

    default_code = "unknown_order"


class Expired(WsError):
    """The order was not paid in time, and its piece is on sale again."""

    default_code = "expired"


_HEARTBEAT = 1.0
"""Seconds after which the line passes over a buyer whose worker has died."""

# Statements are built once and prepared, so that only their values are left to be filled in.
_LOOK = Prepared(
    select(
        items.c.available, orders.c.id, orders.c.item_id, orders.c.state, orders.c.pay_until, orders.c.buyer
    )
    .select_from(items.outerjoin(orders, orders.c.idempotency_key == bindparam("key")))
    .where(items.c.id == bindparam("item"))
)
_TAKE = Prepared(
    update(items)
    .where(items.c.id == bindparam("item"), items.c.available > 0, items.c.fence < bindparam("token"))
    .values(available=items.c.available - 1, fence=bindparam("token"))
)
_ORDER = Prepared(insert(orders))
_MINE = and_(orders.c.id == bindparam("number"), orders.c.buyer == bindparam("who"))
_PAY = Prepared(update(orders).where(_MINE, orders.c.state == RESERVED).values(state=PAID))
_FIND = Prepared(select(orders.c.id, orders.c.item_id, orders.c.state, orders.c.pay_until).where(_MINE))
_OPEN = Prepared(select(items.c.id).where(items.c.available > 0).order_by(items.c.id))
_DUE = Prepared(
    select(orders.c.id, orders.c.item_id)
    .where(orders.c.state == RESERVED, orders.c.pay_until < bindparam("now"))
    .order_by(orders.c.id)
    .limit(500)
)
_RELEASE = Prepared(
    update(orders)
    .where(orders.c.id == bindparam("number"), orders.c.state == RESERVED)
    .values(state=RELEASED)
)
_PUT_BACK = Prepared(
    update(items)
    .where(items.c.id == bindparam("item"))
    .values(available=items.c.available + bindparam("pieces"))
)


@dataclass(frozen=True, slots=True)
class Order:
    """One order, as its buyer may see it; ``pay_until`` in seconds since the epoch."""

    id: int
    item: int
    state: str
    pay_until: float


@dataclass(frozen=True, slots=True)
class Released:
    """Orders of one item whose pieces went back on sale."""

    item: int
    orders: list[int]


class Shop:
    """
    The shop on the default SQL pool and one Redis pool, where its locks live.

    Args:
        redis: The pool.
        hold: Seconds that a buyer has to pay.
        lease: Seconds after which the lock of a dead worker is free again.
        worker: Process id written into orders.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        redis: RedisPool,
        *,
        hold: float = 20.0,
        lease: float = 2.0,
        worker: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.hold = hold
        self._redis = redis
        self._lease = lease
        self._worker = worker
        self._clock = clock

    def lock(self, item: int) -> MutexLock:
        """Return the lock of one item, not yet acquired."""
        return MutexLock(self._redis, f"wintersweet-demo:item:{item}", self._lease, heartbeat=_HEARTBEAT)

    async def buy(self, item: int, buyer: str, key: str) -> tuple[Order, bool]:
        """
        Reserve one piece; the same idempotency key returns the same order.

        Returns:
            The order, and whether it is new.

        Raises:
            SoldOut: No piece is left.
            Busy: The item could not be taken just now; ask again.
            UnknownItem: There is no such item.
            KeyTaken: The key is another buyer's.
        """
        # A look without the lock answers repeated questions and the many who come too late.
        known, available = await self._look(item, buyer, key)

        if known is not None:
            return known, False

        if not available:
            raise await self._why_not(item)

        try:
            async with self.lock(item).hold(timeout=10) as held:
                taken = await self._take(item, buyer, key, held.fence)
        except IntegrityViolation:  # an earlier attempt under the same key was just in front of this one
            known, _ = await self._look(item, buyer, key)

            if known is None:
                raise

            return known, False
        except (LockLost, LockNotAcquired) as error:
            raise Busy(f"item {item} is busy: ask again", item=item) from error

        if taken is None:
            raise await self._why_not(item)

        return taken, True

    async def pay(self, order: int, buyer: str) -> Order:
        """
        Pay for an order and return it; paying again changes nothing.

        Raises:
            UnknownOrder: This buyer has no such order.
            Expired: The time to pay ran out.
        """
        async with sql_pool_manager.get_client() as sql:
            await sql.update(_PAY, number=order, who=buyer)
            row = await sql.find(_FIND, number=order, who=buyer)

        if row is None:
            raise UnknownOrder(f"{buyer} has no order {order}", order=order)

        if row.state == RELEASED:
            raise Expired(f"order {order} was not paid in time; its piece is on sale again", order=order)

        return Order(row.id, row.item_id, row.state, row.pay_until)

    async def release_unpaid(self) -> list[Released]:
        """Put the pieces of orders that were not paid in time back on sale."""
        rows = await sql_pool_manager.select(_DUE, now=self._clock())
        by_item: dict[int, list[int]] = {}

        for row in rows:
            by_item.setdefault(row.item_id, []).append(row.id)

        return [await self._release(item, ids) for item, ids in sorted(by_item.items())]

    async def _look(self, item: int, buyer: str, key: str) -> tuple[Order | None, int]:
        """Return the order under this key, if there is one, and how many pieces of the item are left."""
        row = await sql_pool_manager.find(_LOOK, item=item, key=key)

        if row is None:
            raise UnknownItem(f"there is no item {item}", item=item)

        if row.id is not None and row.buyer != buyer:
            raise KeyTaken(f"the idempotency key {key} is another buyer's: draw a random one", key=key)

        return None if row.id is None else Order(row.id, row.item_id, row.state, row.pay_until), row.available

    async def _why_not(self, item: int) -> SoldOut | Busy:
        available = [row.id for row in await sql_pool_manager.select(_OPEN)]

        if item in available:  # another holder of the lock has come in between: the fence refused this one
            return Busy(f"item {item} is busy: ask again", item=item)

        return SoldOut(f"item {item} is sold out", item=item, available=available)

    @atomic()
    async def _take(self, item: int, buyer: str, key: str, fence: int) -> Order | None:
        """Take one piece and write the order, both or neither; None when nothing is left."""
        if not await sql_pool_manager.update(_TAKE, item=item, token=fence):
            return None

        pay_until = self._clock() + self.hold
        number = await sql_pool_manager.insert(
            _ORDER,
            item_id=item,
            buyer=buyer,
            idempotency_key=key,
            state=RESERVED,
            pay_until=pay_until,
            worker=self._worker,
        )

        return Order(number, item, RESERVED, pay_until)

    async def _release(self, item: int, due: list[int]) -> Released:
        async with self.lock(item).hold(timeout=10):
            return Released(item, await self._put_back(item, due))

    @atomic()
    async def _put_back(self, item: int, due: list[int]) -> list[int]:
        """Release the orders that are still unpaid; the state in the update lets each be counted once."""
        released = [number for number in due if await sql_pool_manager.update(_RELEASE, number=number)]

        if released:
            await sql_pool_manager.update(_PUT_BACK, item=item, pieces=len(released))

        return released
