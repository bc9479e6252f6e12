"""schemathesis over an application with every feature: no 5xx, and replies that fit the document."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any

import schemathesis
from fastapi import Depends, File, Form, Header, HTTPException, Query, UploadFile
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from ws_web import APIRouter, ErrorCode, ErrResponse, Settings, create_app, ok_raw
from ws_web.caching import MemoryCache, cached
from ws_web.idempotency import MemoryStore, idempotent
from ws_web.pages import OffsetParams, Page, by_offset


class OrderError(ErrorCode):
    """Errors of the sample."""

    SOLD_OUT = 9001, "Sold out", 409, {"de": "Ausverkauft"}


class Part(BaseModel):
    """A part of an order, which may have parts."""

    name: str = Field(max_length=20)
    count: int = Field(ge=0, le=10**9)
    parts: list[Part] = []


class Order(BaseModel):
    """An order."""

    id: uuid.UUID
    at: dt.datetime
    price: Decimal = Field(max_digits=8, decimal_places=2)
    note: str | None = None
    parts: list[Part] = []
    tags: dict[str, Any] = {}


def orders() -> APIRouter:
    """Return routes with errors, keys, pages and kept replies."""
    router = APIRouter(prefix="/orders", tags=["orders"])

    @router.post("", errors=[OrderError.SOLD_OUT], dependencies=[Depends(idempotent(MemoryStore()))])
    async def order(order: Order) -> Order:
        if order.note == "sold":
            raise ErrResponse(code=OrderError.SOLD_OUT)

        return order

    @router.get("/{number}", errors=[404], cancel_on_disconnect=True)
    async def read(number: int, q: Annotated[str | None, Query(max_length=5)] = None) -> dict[str, Any]:
        if number > 10:
            raise HTTPException(404, "no such order")

        return {"number": number, "q": q}

    @router.get("", dependencies=[Depends(cached(MemoryCache(), 5, tags=["orders"]))])
    async def pages(page: Annotated[OffsetParams, Depends(by_offset())]) -> Page[int]:
        return Page(items=list(range(page.limit))[:3], limit=page.limit, offset=page.offset, total=3)

    return router


def build() -> Any:
    """Return the application."""
    app = create_app(Settings(ACCESS_LOG="off"), deadline=30, title="Sample", version="1")
    app.include_router(orders())

    @app.post("/any")
    async def anything(body: Any, x_name: Annotated[str, Header()] = "") -> Any:
        return [body, x_name]

    @app.post("/form")
    async def form(name: Annotated[str, Form()], file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        return {"name": name, "size": len(await file.read())}

    @app.get("/text", response_class=PlainTextResponse)
    async def text(q: str = "") -> str:
        return q

    @app.get("/raw")
    async def raw() -> Part:
        return ok_raw(b'{"name":"a","count":1,"parts":[]}')  # type: ignore[return-value]  # ready JSON

    @app.put("/when/{day}")
    def when(day: dt.date, hour: dt.time, minutes: dt.timedelta) -> list[str]:
        return [str(day), str(hour), str(minutes)]

    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", build())
schema.config.generation.update(max_examples=60)


@schema.parametrize()
def test_replies(case: Any) -> None:
    """Whatever is sent, the reply is not a failure, and is what the document says."""
    case.call_and_validate(checks=[not_a_server_error, content_type_conformance, response_schema_conformance])
