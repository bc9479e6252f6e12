"""The shop with its three guards taken away, to prove that the count of the demo notices it."""

from __future__ import annotations

import asyncio
import os
import time

from fastapi import FastAPI
from sqlalchemy import insert, select, update

from wintersweet.demo import app
from wintersweet.demo.shop import Order, Shop
from wintersweet.demo.tables import RESERVED, items, orders
from ws_pool import sql_pool_manager


class BrokenShop(Shop):
    """Reads, thinks, writes: nobody holds a lock, and nothing is checked when it is written."""

    async def buy(self, item: int, buyer: str, key: str) -> tuple[Order, bool]:
        """Take a piece without a guard."""
        known, available = await self._look(item, buyer, key)

        if known is not None:
            return known, False

        if not available:
            raise await self._why_not(item)

        await asyncio.sleep(0.005)
        await sql_pool_manager.update(update(items).where(items.c.id == item).values(available=available - 1))
        number = await sql_pool_manager.insert(
            insert(orders).values(
                item_id=item,
                buyer=buyer,
                idempotency_key=key,
                state=RESERVED,
                pay_until=time.time() + self.hold,
                worker=os.getpid(),
            )
        )
        rows = await sql_pool_manager.select(select(orders.c.pay_until).where(orders.c.id == number))

        return Order(number, item, RESERVED, rows[0].pay_until), True


def create() -> FastAPI:
    """Build the application around the broken shop."""
    vars(app)["Shop"] = BrokenShop  # this process serves nothing else

    return app.create()
