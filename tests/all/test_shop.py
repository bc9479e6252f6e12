"""The rules of the sale, on SQLite and on MariaDB, with real locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.clock import Clock
from wintersweet.demo import books
from wintersweet.demo.shop import Busy, Expired, KeyTaken, Shop, SoldOut, UnknownItem, UnknownOrder
from wintersweet.demo.tables import PAID, RELEASED, RESERVED, items, orders
from ws_pool import sql_pool_manager
from ws_pool.errors import IntegrityViolation
from ws_pool.redis import RedisPool


@pytest.fixture(params=["sqlite", "mysql"])
async def redis(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> AsyncIterator[RedisPool]:
    """Yield the pool of the locks, with the SQL pool started beside it."""
    url = (
        f"sqlite:///{tmp_path / 'shop.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("mysql_url")
    )
    sql_pool_manager.register({"default": {"url": url}})

    async with RedisPool(url=redis_url) as pool, sql_pool_manager:
        yield pool


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
async def shop(redis: RedisPool, clock: Clock) -> Shop:
    """Return a shop with two pieces of each item."""
    await books.open_sale(8)
    return Shop(redis, clock=clock, hold=20, worker=7)


async def state(number: int) -> str:
    """Return the state of an order."""
    rows = await sql_pool_manager.select(select(orders.c.state).where(orders.c.id == number))
    return str(rows[0].state)


class TestBuy:
    """Reserving a piece."""

    async def test_a_violation_that_is_no_race_is_an_error(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the database refuses is a repeated question only when there is an order of that key."""

        async def refused(item: int, buyer: str, key: str, fence: int) -> None:
            raise IntegrityViolation("no such item")

        monkeypatch.setattr(shop, "_take", refused)

        with pytest.raises(IntegrityViolation, match="no such item"):
            await shop.buy(1, "ann", "key-0001")

        assert (await books.count()).available[1] == 2

    async def test_a_piece_is_reserved(self, shop: Shop, clock: Clock) -> None:
        """One piece less on the shelf, one order with the time to pay."""
        order, new = await shop.buy(1, "ann", "key-0001")
        totals = await books.count()

        assert (order.item, order.state, order.pay_until, new) == (1, RESERVED, clock.now + 20, True)
        assert (totals.available[1], totals.reserved, totals.sold) == (1, 1, 0)

    async def test_the_same_key_gives_the_same_order(self, shop: Shop) -> None:
        """A repeated question takes no second piece."""
        first, _ = await shop.buy(1, "ann", "key-0001")
        again, new = await shop.buy(1, "ann", "key-0001")

        assert (again, new) == (first, False)
        assert (await books.count()).reserved == 1

    async def test_the_same_key_at_the_same_time(self, shop: Shop) -> None:
        """Attempts that overlap take one piece together."""
        answers = await asyncio.gather(*(shop.buy(1, "ann", "key-0001") for _ in range(6)))

        assert len({order.id for order, _ in answers}) == 1
        assert sum(new for _, new in answers) == 1
        assert (await books.count()).reserved == 1

    async def test_the_last_pieces_go_to_so_many_buyers(self, shop: Shop) -> None:
        """Of twenty who ask at once as many get a piece as there are."""
        answers = await asyncio.gather(
            *(shop.buy(1, f"buyer {n}", f"key-{n:04}") for n in range(20)), return_exceptions=True
        )
        totals = await books.count()

        assert sum(isinstance(answer, tuple) for answer in answers) == 2
        assert sum(isinstance(answer, SoldOut) for answer in answers) == 18
        assert (totals.available[1], totals.oversold, totals.drift) == (0, 0, 0)

    async def test_sold_out_names_what_is_left(self, shop: Shop) -> None:
        """The buyer learns which items can be had instead."""
        for n in range(2):
            await shop.buy(1, "ann", f"key-{n:04}")

        with pytest.raises(SoldOut) as caught:
            await shop.buy(1, "bob", "key-0009")

        assert caught.value.context["available"] == [2, 3, 4]

    async def test_a_known_order_of_a_sold_out_item(self, shop: Shop) -> None:
        """A buyer who got the last piece and lost the reply still gets that order."""
        last, _ = await shop.buy(1, "ann", "key-0001")
        await shop.buy(1, "bob", "key-0002")

        assert await shop.buy(1, "ann", "key-0001") == (last, False)

    async def test_a_key_belongs_to_its_buyer(self, shop: Shop) -> None:
        """Another buyer learns nothing of the order, and gets none by it."""
        await shop.buy(1, "ann", "key-0001")

        with pytest.raises(KeyTaken, match="another buyer's"):
            await shop.buy(1, "bob", "key-0001")

    async def test_an_unknown_item(self, shop: Shop) -> None:
        """What is not in the catalogue cannot be bought."""
        with pytest.raises(UnknownItem, match="there is no item 99"):
            await shop.buy(99, "ann", "key-0001")

    async def test_a_stale_fence_is_refused(self, shop: Shop) -> None:
        """A holder whose lease ran out, with a later one come in between, writes nothing."""
        await sql_pool_manager.update(update(items).where(items.c.id == 1).values(fence=2**62))

        with pytest.raises(Busy, match="item 1 is busy"):
            await shop.buy(1, "ann", "key-0001")

        assert (await books.count()).reserved == 0

    async def test_a_lost_lock_is_busy(self, shop: Shop) -> None:
        """A lock that is taken away in the middle makes the buyer ask again, and nothing is half done."""
        taking = asyncio.Event()
        original = shop._take

        async def slow(*arguments: object) -> object:
            taking.set()
            await asyncio.sleep(30)
            return await original(*arguments)  # type: ignore[arg-type]

        shop._take = slow  # type: ignore[method-assign,assignment]
        buying = asyncio.create_task(shop.buy(1, "ann", "key-0001"))
        await taking.wait()

        async with shop.lock(1) as lock:
            await lock.force_release()

        with pytest.raises(Busy):
            await buying

        assert (await books.count()).available[1] == 2


class TestPay:
    """Paying for an order."""

    async def test_paying_twice_changes_nothing(self, shop: Shop) -> None:
        """The second time returns the same answer."""
        order, _ = await shop.buy(1, "ann", "key-0001")
        paid = await shop.pay(order.id, "ann")

        assert paid.state == PAID
        assert await shop.pay(order.id, "ann") == paid
        assert (await books.count()).sold == 1

    async def test_only_the_buyer_can_pay(self, shop: Shop) -> None:
        """Another one's order is unknown."""
        order, _ = await shop.buy(1, "ann", "key-0001")

        with pytest.raises(UnknownOrder, match=f"bob has no order {order.id}"):
            await shop.pay(order.id, "bob")

    async def test_too_late(self, shop: Shop, clock: Clock) -> None:
        """A released order cannot be paid any more."""
        order, _ = await shop.buy(1, "ann", "key-0001")
        clock.now += 21
        await shop.release_unpaid()

        with pytest.raises(Expired, match=f"order {order.id} was not paid in time"):
            await shop.pay(order.id, "ann")


class TestRelease:
    """Orders that were not paid in time."""

    async def test_their_pieces_are_on_sale_again(self, shop: Shop, clock: Clock) -> None:
        """Only unpaid orders whose time is over are released, each once."""
        paid, _ = await shop.buy(1, "ann", "key-0001")
        await shop.pay(paid.id, "ann")
        late, _ = await shop.buy(1, "bob", "key-0002")
        clock.now += 15
        young, _ = await shop.buy(2, "cid", "key-0003")
        clock.now += 6

        (released,) = await shop.release_unpaid()

        assert (released.item, released.orders) == (1, [late.id])
        assert [await state(order.id) for order in (paid, late, young)] == [PAID, RELEASED, RESERVED]
        assert (await books.count()).available == {1: 1, 2: 1, 3: 2, 4: 2}
        assert await shop.release_unpaid() == []

    async def test_several_workers_release_once(self, shop: Shop, clock: Clock) -> None:
        """All workers look at once, and each piece comes back once."""
        for n in range(2):
            await shop.buy(1, "ann", f"key-{n:04}")

        clock.now += 21
        found = await asyncio.gather(*(shop.release_unpaid() for _ in range(4)))

        assert sum(len(one.orders) for released in found for one in released) == 2
        assert (await books.count()).available[1] == 2
        assert (await books.count()).drift == 0


class TestBooks:
    """Counting from the database."""

    async def test_a_new_sale_begins_anew(self, shop: Shop) -> None:
        """Whatever was before, the shelf is full and no order is there."""
        await shop.buy(1, "ann", "key-0001")
        await books.open_sale(10)
        totals = await books.count()

        assert (totals.stock, totals.reserved, totals.stocks) == (10, 0, {1: 3, 2: 3, 3: 2, 4: 2})

    async def test_what_is_oversold_is_seen(self, shop: Shop) -> None:
        """More orders than stock are counted, and so are pieces that the books lost."""
        await shop.buy(1, "ann", "key-0001")
        await sql_pool_manager.update(update(items).where(items.c.id == 1).values(stock=0, available=0))
        totals = await books.count()

        assert (totals.oversold, totals.drift) == (1, 1)

    async def test_paid_orders_of_some_buyers(self, shop: Shop) -> None:
        """Only paid orders count, and only of buyers whose names begin so."""
        numbers = [
            (await shop.buy(n, buyer, f"key-{n:04}"))[0].id
            for n, buyer in ((1, "b-1"), (2, "b_2"), (3, "b-3"))
        ]
        await shop.pay(numbers[0], "b-1")
        await shop.pay(numbers[1], "b_2")

        assert await books.paid_orders("b-") == {numbers[0]}
        assert await books.paid_orders("b_") == {numbers[1]}
