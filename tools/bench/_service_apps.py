"""The service that `bench_service` compares, written on ours and as teams write it on the common stack.

Its one route selects a row, increments a counter in Redis, logs a line, and returns both in an envelope
with the request's id. Where its servers and its log file are stands in the environment.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Generic, TypeVar

from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import Depends, FastAPI, HTTPException, Request
from loguru import logger
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from ws_pool import sql_pool_manager
from ws_pool.redis import redis_pool_manager
from ws_web import Settings, create_app

__all__ = ("ITEM", "common", "ours")

SIZE = 10  # connections of each pool, on both sides
FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} - {message}"
ITEM = Table(
    "item",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(30), nullable=False),
    Column("price", Integer, nullable=False),
)
Data = TypeVar("Data")


class Item(BaseModel):
    """What the route returns."""

    id: int
    name: str
    price: int
    seen: int


class Envelope(BaseModel, Generic[Data]):
    """What every reply of the common stack has around its data."""

    code: int = 0
    msg: str = ""
    data: Data
    request_id: str | None = None


def ours() -> FastAPI:
    """Build the service on wintersweet."""
    settings = Settings(
        ACCESS_LOG="off",
        DATABASES={"default": {"url": os.environ["BENCH_SQL"], "max_size": SIZE}},
        REDIS_CONFIG={"default": {"url": os.environ["BENCH_REDIS"]}},
        LOGGING_CONFIG={"file_path": os.environ["BENCH_LOG"], "file_name": "ours.log"},
    )
    app = create_app(settings)
    by_id = select(ITEM).where(ITEM.c.id == bindparam("id"))

    @app.get("/item/{number}")
    async def item(number: int) -> Item:
        row = await sql_pool_manager.get_pool().find(by_id, id=number)

        if row is None:
            raise HTTPException(404)

        seen = await redis_pool_manager.get_pool().redis.incr(f"seen:{number}")
        logger.info("item {} was seen {} times", number, seen)
        return Item(id=row.id, name=row.name, price=row.price, seen=seen)

    return app


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Open a session for a request of the common stack."""
    async with request.app.state.sessions() as session:
        yield session


def common() -> FastAPI:
    """Build the service on FastAPI, SQLAlchemy, redis-py, loguru and asgi-correlation-id."""
    scheme, _, rest = os.environ["BENCH_SQL"].partition("://")
    engine = create_async_engine(f"{scheme if '+' in scheme else 'mysql+aiomysql'}://{rest}", pool_size=SIZE)
    redis = Redis.from_url(os.environ["BENCH_REDIS"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        logger.remove()
        logger.add(f"{os.environ['BENCH_LOG']}/common.log", format=FORMAT, enqueue=True)
        yield
        await redis.aclose()
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.add_middleware(CorrelationIdMiddleware)

    @app.get("/item/{number}")
    async def item(number: int, session: Annotated[AsyncSession, Depends(open_session)]) -> Envelope[Item]:
        row = (await session.execute(select(ITEM).where(ITEM.c.id == number))).one_or_none()

        if row is None:
            raise HTTPException(404)

        seen = await redis.incr(f"seen:{number}")
        logger.info("item {} was seen {} times", number, seen)
        found = Item(id=row.id, name=row.name, price=row.price, seen=seen)
        return Envelope(data=found, request_id=correlation_id.get())

    return app
