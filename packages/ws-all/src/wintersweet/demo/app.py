"""The shop as a web application: routes, tasks and the page around `shop.Shop`.

Everything here is what your own service would contain; nothing is special to the demo's launcher.
The backends come from the settings, as in any service.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, WebSocket
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from wintersweet.demo.books import count, latest
from wintersweet.demo.chores import Chores
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Busy, Expired, KeyTaken, Order, Shop, SoldOut, UnknownItem, UnknownOrder
from wintersweet.demo.tables import CATALOGUE
from ws_core.errors import UnavailableError, WsError
from ws_pool.cache import CachedFunction, ShareCache
from ws_pool.redis import RedisPool, redis_pool_manager
from ws_redislock import FrequencyLimiter
from ws_web import APIRouter, ErrResponse, Request, create_app

__all__ = ("Code", "create")

_PAGE = Path(__file__).with_name("page")
_POLICY = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"
_PER_SECOND = 5
"""Requests that one buyer may send in a second."""
_LATEST = 6
"""Sales that the page shows."""


class Code(Enum):
    """The shop's error codes."""

    SOLD_OUT = 4091
    BUSY = 5031
    TOO_FAST = 4291
    EXPIRED = 4101
    UNKNOWN = 4041
    KEY_TAKEN = 4221


_REFUSALS: Mapping[type[WsError], tuple[Code, int]] = {
    SoldOut: (Code.SOLD_OUT, 409),
    Busy: (Code.BUSY, 503),
    Expired: (Code.EXPIRED, 410),
    UnknownItem: (Code.UNKNOWN, 404),
    UnknownOrder: (Code.UNKNOWN, 404),
    KeyTaken: (Code.KEY_TAKEN, 422),
}
"""What the shop raises, and the code and the status of the reply to it."""


class Wanted(BaseModel):
    """A wish for one piece."""

    item: int
    buyer: str = Field(min_length=1, max_length=64)


class Payment(BaseModel):
    """A payment for an order."""

    order: int
    buyer: str = Field(min_length=1, max_length=64)


class OrderView(BaseModel):
    """An order as the buyer sees it; ``pay_until`` in seconds since the epoch."""

    order: int
    item: int
    state: str
    pay_until: float


Key = Annotated[str, Header(alias="idempotency-key", pattern=r"^[A-Za-z0-9._-]{8,64}$")]

router: APIRouter = APIRouter(prefix="/api", tags=["shop"])


class Sale:
    """What the routes of one worker share, on the default Redis pool."""

    def __init__(self, redis: RedisPool) -> None:
        self.shop: Shop = Shop(redis, worker=os.getpid())
        self.board: Board = Board(redis)
        self.chores: Chores = Chores(self.shop, self.board)
        self.sales = 0
        self._limiter = FrequencyLimiter(redis, 1.0, _PER_SECOND)
        share = ShareCache("wintersweet-demo:state", ttl=0.25, redis=redis)
        self.state: CachedFunction[[], dict[str, Any]] = share(self._state)

    async def admit(self, buyer: str) -> None:
        """Let a buyer in; one with too many requests gets status 429 with Retry-After."""
        verdict = await self._limiter.hit(f"wintersweet-demo:{buyer}")

        if not verdict.allowed:
            raise ErrResponse(
                code=Code.TOO_FAST,
                msg=f"not more than {_PER_SECOND} requests a second: wait a moment",
                status_code=429,
                headers={"retry-after": str(max(1, math.ceil(verdict.retry_after)))},
            )

    async def _state(self) -> dict[str, Any]:  # Any: plain JSON for the page
        totals = await count()

        return {
            "items": [
                {
                    **asdict(article),
                    "stock": totals.stocks[article.id],
                    "available": totals.available[article.id],
                }
                for article in CATALOGUE
            ],
            "reserved": totals.reserved,
            "oversold": totals.oversold,
            "hold": self.shop.hold,
            "latest": await latest(_LATEST),
        }


@router.post("/buy")
async def buy(wanted: Wanted, key: Key, request: Request) -> OrderView:
    """Reserve one piece; the same key again returns the same order."""
    sale: Sale = request.app.state.sale
    await sale.admit(wanted.buyer)

    with _replies_to_refusals():
        order, new = await sale.shop.buy(wanted.item, wanted.buyer, key)

    if new:
        sale.sales += 1
        sale.board.publish("sold", item=order.item, buyer=wanted.buyer, order=order.id)

    return _view(order)


@router.post("/pay")
async def pay(payment: Payment, request: Request) -> OrderView:
    """Pay for an order; paying twice changes nothing."""
    sale: Sale = request.app.state.sale

    with _replies_to_refusals():
        order = await sale.shop.pay(payment.order, payment.buyer)

    # Before the reply: a payment that was confirmed has its job, and one that was not is sent again.
    try:
        await sale.chores.confirm(order.id)
    except UnavailableError as error:
        raise ErrResponse(code=Code.BUSY, msg=f"paid, without a receipt: {error}", status_code=503) from None

    sale.board.publish("paid", order=order.id)

    return _view(order)


@router.get("/state")
async def state(request: Request) -> dict[str, Any]:  # Any: plain JSON for the page
    """Return all that the page needs to begin with; live news come by WebSocket."""
    shown: dict[str, Any] = await request.app.state.sale.state()

    return shown


@contextmanager
def _replies_to_refusals() -> Iterator[None]:
    """Turn what the shop raises into a reply."""
    try:
        yield
    except tuple(_REFUSALS) as error:
        code, status = _REFUSALS[type(error)]
        extra = {"available": error.context["available"]} if isinstance(error, SoldOut) else None
        raise ErrResponse(code=code, msg=str(error), status_code=status, extra=extra) from None


def _view(order: Order) -> OrderView:
    return OrderView(order=order.id, item=order.item, state=order.state, pay_until=order.pay_until)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run what the shop needs beside the pools, which `create_app` has started by now."""
    redis = redis_pool_manager.get_pool()
    sale = app.state.sale = Sale(redis)
    as_jobs = os.environ.get("WINTERSWEET_DEMO_ENGINE") == "taskiq"

    async with sale.board, sale.chores.running(redis, lambda: sale.sales, as_jobs=as_jobs):
        yield


def create() -> FastAPI:
    """Build the application from the settings; its lifespan starts the pools and the shop's tasks."""
    app = create_app(lifespan=_lifespan, title="Winter flash sale")
    app.include_router(router)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(
            _PAGE / "index.html",
            headers={"content-security-policy": _POLICY, "cache-control": "no-cache"},
        )

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await app.state.sale.board.watch(socket)

    return app
