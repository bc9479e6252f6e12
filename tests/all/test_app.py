"""The shop's application in process: replies, limits, the page, what is sent to pages."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from wintersweet.demo import books, live
from wintersweet.demo.app import Code, create
from wintersweet.demo.chores import NAME
from ws_core.errors import UnavailableError
from ws_pool import sql_pool_manager
from ws_pool.redis import RedisPool, redis_pool_manager
from ws_redislock import FrequencyLimiter
from ws_tasks.taskiq import RedisStreamsBroker
from ws_web import settings
from ws_web.testing import AppClient, SocketClosed, TestSocket

KEY = {"idempotency-key": "key-0001"}


@pytest.fixture
async def client(redis_url: str, tmp_path: Path) -> AsyncIterator[AppClient]:
    """Yield a client of a shop with one piece of each item."""
    databases = {"default": {"url": f"sqlite:///{tmp_path / 'shop.db'}"}}
    sql_pool_manager.register(databases)

    async with sql_pool_manager:
        await books.open_sale(4)

    with settings.override(DATABASES=databases, REDIS_CONFIG={"default": {"url": redis_url}}):
        async with AppClient(create()) as client:
            yield client


async def received(socket: TestSocket, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first event that a page receives and a test waits for."""
    async with asyncio.timeout(20):
        while True:
            for event in json.loads(await socket.receive_text()):
                if wanted(event):
                    return dict(event)


class TestReplies:
    """What buyers get."""

    async def test_from_wish_to_payment(self, client: AppClient) -> None:
        """An order is reserved, then paid; the state follows."""
        order = (await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)).data()
        assert (order["item"], order["state"]) == (1, "reserved")

        paid = (await client.post("/api/pay", json={"order": order["order"], "buyer": "ann"})).data()
        assert paid == {**order, "state": "paid"}

        state = (await client.get("/api/state")).data()
        assert [item["available"] for item in state["items"]] == [0, 1, 1, 1]
        assert (state["reserved"], state["oversold"], state["hold"]) == (0, 0, 20.0)
        assert state["latest"] == [{"order": order["order"], "item": 1, "buyer": "ann"}]

    async def test_sold_out(self, client: AppClient) -> None:
        """409, with what can be had instead."""
        await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)
        reply = await client.post(
            "/api/buy", json={"item": 1, "buyer": "bob"}, headers={"idempotency-key": "key-0002"}
        )
        error = reply.error()

        assert (reply.status_code, error["code"]) == (409, Code.SOLD_OUT.value)
        assert (error["msg"], error["extra"]) == ("item 1 is sold out", {"available": [2, 3, 4]})

    async def test_too_fast(self, client: AppClient) -> None:
        """The sixth request within the window, here an hour, is answered with when to come again."""
        sale = client._app.state.sale  # type: ignore[attr-defined]
        sale._limiter = FrequencyLimiter(redis_pool_manager.get_pool(), 3600, 5)
        replies = [
            await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY) for _ in range(6)
        ]

        assert [reply.status_code for reply in replies] == [200] * 5 + [429]
        assert replies[-1].error()["code"] == Code.TOO_FAST.value
        assert 3000 < int(replies[-1].headers["retry-after"]) < 4000

    async def test_a_key_of_another_buyer(self, client: AppClient) -> None:
        """422, and nothing of the other's order."""
        await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)
        reply = await client.post("/api/buy", json={"item": 2, "buyer": "bob"}, headers=KEY)

        assert (reply.status_code, reply.error()["code"]) == (422, Code.KEY_TAKEN.value)
        assert reply.error()["data"] is None

    async def test_an_item_that_is_not_there(self, client: AppClient) -> None:
        """404 in the envelope."""
        reply = await client.post("/api/buy", json={"item": 99, "buyer": "ann"}, headers=KEY)

        assert (reply.status_code, reply.error()["msg"]) == (404, "there is no item 99")

    async def test_an_item_that_is_busy(self, client: AppClient) -> None:
        """503, upon which buyers ask again."""
        await sql_pool_manager.execute("UPDATE wintersweet_demo_items SET fence = 4611686018427387904")
        reply = await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)

        assert (reply.status_code, reply.error()["code"]) == (503, Code.BUSY.value)

    async def test_an_order_that_is_not_there(self, client: AppClient) -> None:
        """404 in the envelope."""
        reply = await client.post("/api/pay", json={"order": 99, "buyer": "ann"})

        assert (reply.status_code, reply.error()["msg"]) == (404, "ann has no order 99")

    async def test_an_order_that_was_released(self, client: AppClient) -> None:
        """The interval task releases it, the page is notified, and paying it is 410."""
        async with client.websocket("/live") as socket:
            order = (await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)).data()
            await sql_pool_manager.execute("UPDATE wintersweet_demo_orders SET pay_until = 0")
            event = await received(socket, lambda event: event["type"] == "released")
            assert (event["item"], event["orders"]) == (1, [order["order"]])

        reply = await client.post("/api/pay", json={"order": order["order"], "buyer": "ann"})
        assert (reply.status_code, reply.error()["code"]) == (410, Code.EXPIRED.value)

    @pytest.mark.parametrize("key", ["", "short", "a b c d e f", "x" * 65, "semi;colon"])
    async def test_a_key_that_is_none(self, client: AppClient, key: str) -> None:
        """An idempotency key has a form, and must be there."""
        headers = {"idempotency-key": key} if key else {}
        reply = await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=headers)

        assert reply.status_code == 422


class TestJobs:
    """Payments of a shop whose receipts are jobs."""

    @pytest.fixture(autouse=True)
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the chores enqueued."""
        monkeypatch.setenv("WINTERSWEET_DEMO_ENGINE", "taskiq")

    async def test_a_payment_enqueues_a_receipt(
        self, client: AppClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before it is confirmed; without a job it is not, and the buyer pays again."""
        order = (await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)).data()
        payment = {"order": order["order"], "buyer": "ann"}
        sale = client._app.state.sale  # type: ignore[attr-defined]

        async def fail(_: int) -> None:
            raise UnavailableError("Redis did not answer")

        with monkeypatch.context() as patch:
            patch.setattr(sale.chores, "confirm", fail)
            refused = await client.post("/api/pay", json=payment)

        assert (refused.status_code, refused.json()["code"]) == (503, Code.BUSY.value)
        assert "without a receipt: Redis did not answer" in refused.json()["msg"]
        assert (await client.post("/api/pay", json=payment)).data()["state"] == "paid"

        async with RedisPool(url=redis_url) as pool:
            broker = RedisStreamsBroker(pool, queue=NAME)
            assert await broker.outcomes() == {}
            assert (await broker.depth())["normal"] >= 1
            await broker.shutdown()

        # Nobody has run it yet: this process only enqueues.
        assert await books.receipt_writers() == {}


class TestPages:
    """What browsers get."""

    async def test_the_page_and_its_parts(self, client: AppClient) -> None:
        """All files of the page are served from here, under a policy that allows no others."""
        page = await client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]

        for part in ("style.css", "sale.js", "flower.svg", "icons.svg"):
            assert (await client.get(f"/page/{part}")).status_code == 200

        assert "http://" not in page.text
        assert "https://" not in page.text

    async def test_a_sale_is_told(self, client: AppClient) -> None:
        """A page receives events of a sale, of the payment, of the worker and of the totals."""
        async with client.websocket("/live") as socket:
            order = (await client.post("/api/buy", json={"item": 2, "buyer": "ann"}, headers=KEY)).data()
            event = await received(socket, lambda event: event["type"] == "sold")
            assert event == {"type": "sold", "item": 2, "buyer": "ann", "order": order["order"]}

            await client.post("/api/pay", json={"order": order["order"], "buyer": "ann"})
            assert (await received(socket, lambda event: event["type"] == "paid"))["order"] == order["order"]

            worker = await received(socket, lambda event: event["type"] == "worker" and event["sales"] == 1)
            assert worker["pid"] == os.getpid()
            totals = await received(socket, lambda event: event["type"] == "totals")
            assert totals["available"] == [[1, 1], [2, 0], [3, 1], [4, 1]]

    async def test_too_many_pages(self, client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page beyond the limit is asked to come later."""
        board = client._app.state.sale.board  # type: ignore[attr-defined]
        monkeypatch.setattr(board._pages._places, "_total", 0)

        with pytest.raises(SocketClosed):
            async with client.websocket("/live"):
                pass

    async def test_a_report_is_told(self, client: AppClient) -> None:
        """The crontab task's report reaches the pages."""
        app: Any = client._app

        async with client.websocket("/live") as socket:
            await app.state.sale.chores.report()
            event = await received(socket, lambda event: event["type"] == "report")

        assert event["text"] == "0 of 4 sold, 0 waiting for payment"

    async def test_a_bus_that_fails_harms_no_sale(
        self, client: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A sale is answered all the same, and the failure is logged."""
        board = client._app.state.sale.board  # type: ignore[attr-defined]

        async def fail(*_: object, **__: object) -> int:
            raise ConnectionError("no bus")

        monkeypatch.setattr(board._bus, "publish", fail)
        reply = await client.post("/api/buy", json={"item": 1, "buyer": "ann"}, headers=KEY)
        assert reply.status_code == 200

        async with asyncio.timeout(10):
            while "could not publish sold" not in caplog.text:
                await asyncio.sleep(0.01)


def test_every_kind_of_event_is_known_to_the_page() -> None:
    """The page has a function for each tag of the board."""
    script = (Path(live.__file__).parent / "page" / "sale.js").read_text()
    body = script[script.index("const handlers = {") : script.index("let pause")]

    assert [tag for tag in live.TAGS if f"  {tag}(" not in body] == []
