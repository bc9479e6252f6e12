"""The buyers: what they do when the shop answers, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from wintersweet._cli.output import percentile
from wintersweet.demo.load import Crowd, Post, Reply, Unanswered


class FakeShop:
    """A shop in memory that can lose replies and be out of order."""

    def __init__(self, stock: int, *, items: int = 2) -> None:
        self.left = {item + 1: stock for item in range(items)}
        self.orders: dict[str, int] = {}
        self.paid: set[int] = set()
        self.lose = 0
        self.refuse: list[Reply] = []

    async def post(self, path: str, body: Mapping[str, object], key: str) -> Reply:
        """Answer as the shop does."""
        await asyncio.sleep(0)

        if self.refuse:
            return self.refuse.pop()

        reply = self.buy(body, key) if path == "/api/buy" else self.pay(body)

        if self.lose:
            self.lose -= 1
            raise Unanswered("the reply was lost")

        return reply

    def buy(self, body: Mapping[str, object], key: str) -> Reply:
        """Reserve a piece."""
        item = int(str(body["item"]))

        if key not in self.orders:
            if not self.left[item]:
                return Reply(409, {"extra": {"available": [i for i, left in self.left.items() if left]}})

            self.left[item] -= 1
            self.orders[key] = len(self.orders) + 1

        return Reply(200, {"data": {"order": self.orders[key]}})

    def pay(self, body: Mapping[str, object]) -> Reply:
        """Take the money."""
        self.paid.add(int(str(body["order"])))
        return Reply(200, {"data": {}})


async def turn(_: float) -> None:
    """A turn of the loop stands for each pause."""
    await asyncio.sleep(0)


def crowd(post: Post, items: list[int], buyers: int, **options: Any) -> Crowd:
    """Make a crowd that does not wait."""
    return Crowd(post, items, buyers, sleep=turn, seed=1, **options)


class TestCrowd:
    """All buyers together."""

    async def test_everyone_buys_while_stock_lasts(self) -> None:
        """Buyers beyond the stock get the answer that it is sold out."""
        shop = FakeShop(5)
        tally = await crowd(shop.post, [1, 2], 15, at_once=4).run()

        assert (len(tally.orders), tally.sold_out, tally.errors) == (10, 5, 0)
        assert shop.paid == tally.orders

    async def test_a_buyer_takes_another_item_when_the_favourite_is_sold_out(self) -> None:
        """The last pieces of another item find their buyers too."""
        shop = FakeShop(0)
        shop.left[2] = 3
        tally = await crowd(shop.post, [1, 2], 4).run()

        assert (len(tally.orders), tally.sold_out) == (3, 1)

    async def test_a_lost_reply_gives_the_same_order_again(self) -> None:
        """The buyer tries again under the same key, so that no second piece is taken."""
        shop = FakeShop(10)
        shop.lose = 5
        tally = await crowd(shop.post, [1, 2], 3).run()

        assert (len(tally.orders), len(shop.orders), tally.retries) == (3, 3, 5)

    async def test_a_new_key_for_each_attempt_would_sell_twice(self) -> None:
        """Control: without the same key the lost replies of buying take pieces that nobody has."""
        shop = FakeShop(10)
        shop.lose = 2
        attempts = iter(range(100))

        async def forgetful(path: str, body: Mapping[str, object], key: str) -> Reply:
            return await shop.post(path, body, f"{key}-{next(attempts)}")

        tally = await crowd(forgetful, [1, 2], 2, at_once=1).run()

        assert len(shop.orders) > len(tally.orders)

    async def test_a_busy_shop_is_asked_again(self) -> None:
        """Statuses that ask to try later are not a definite answer."""
        shop = FakeShop(10)
        shop.refuse = [Reply(status, {}) for status in (429, 500, 502, 503, 504)]
        tally = await crowd(shop.post, [1, 2], 2).run()

        assert (len(tally.orders), tally.retries, tally.errors) == (2, 5, 0)

    async def test_a_refusal_is_an_error(self) -> None:
        """A status that no retry can mend is counted at once, and the first is remembered."""
        shop = FakeShop(10)
        shop.refuse = [Reply(422, {"msg": "no such thing"})]
        tally = await crowd(shop.post, [1, 2], 1).run()

        assert (tally.errors, tally.requests) == (1, 1)
        assert tally.complaint == (
            "buyer-0 got no definite answer from /api/buy; the last was status 422: no such thing"
        )

    async def test_an_expired_order_is_counted(self) -> None:
        """A buyer who could not pay in time has bought nothing."""
        shop = FakeShop(10)

        async def late(path: str, body: Mapping[str, object], key: str) -> Reply:
            return await shop.post(path, body, key) if path == "/api/buy" else Reply(410, {"msg": "too late"})

        tally = await crowd(late, [1, 2], 1).run()

        assert (tally.expired, tally.errors, tally.orders) == (1, 0, set())
        assert tally.complaint == "buyer-0 could not pay for order 1: too late"

    async def test_retries_end(self) -> None:
        """A shop that never answers is an error after a minute of the clock, not a hang."""
        times = iter(range(10_000))

        async def silent(path: str, body: Mapping[str, object], key: str) -> Reply:
            raise Unanswered("nobody there")

        tally = await crowd(silent, [1], 1, clock=lambda: float(next(times))).run()

        assert (tally.errors, tally.done) == (1, 1)
        assert "no reply: nobody there" in tally.complaint

    async def test_progress_is_told_once_for_each_buyer(self) -> None:
        """The progress bar ends where the buyers end."""
        shop = FakeShop(3)
        seen: list[int] = []
        many: Crowd = crowd(shop.post, [1, 2], 8, progress=lambda: seen.append(many.tally.done))
        await many.run()

        assert seen == list(range(1, 9))


class TestPercentile:
    """The nearest rank."""

    def test_of_nothing_is_zero(self) -> None:
        """No measurement results in 0, not an error."""
        assert percentile([], 0.99) == 0.0

    @pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
    def test_of_a_hundred(self, share: float, expected: float) -> None:
        """Of 1 to 100 each percentile is its own number."""
        assert percentile([float(n) for n in range(100, 0, -1)], share) == expected
