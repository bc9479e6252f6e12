# ruff: noqa: ANN001, ANN204 - users' code, written as theirs is
"""A small service as one for wintersweet 1.1.4, import lines unchanged."""

import asyncio
from enum import Enum

from fastapi import WebSocket
from sqlalchemy import Column, Integer, MetaData, String, Table

from wintersweet.asyncs.cache import CacheWrap, ShareCache
from wintersweet.asyncs.pool.mysql import atomic, mysql_pool_manager
from wintersweet.asyncs.pool.redis import RedisEventBus, redis_pool_manager
from wintersweet.asyncs.task.tasks import CrontabTask, IntervalTask
from wintersweet.asyncs.tools.circular import AsyncCircularForSecond
from wintersweet.framework.conf import settings
from wintersweet.framework.fastapi.app import create_app
from wintersweet.framework.fastapi.request import APIRouter, Request
from wintersweet.framework.fastapi.response import ErrResponse, Response
from wintersweet.framework.fastapi.ws import MessageHandler, WsChatConnectionManager
from wintersweet.utils.base import Utils
from wintersweet.utils.errors import catch_error
from wintersweet.utils.metaclass import SafeSingleton

metadata = MetaData()
users = Table(
    "tbl_users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False),
    Column("money", Integer, nullable=False),
)


class Code(Enum):
    """Error codes of the service."""

    NO_MONEY = 4001


class Registry(SafeSingleton):
    """What the service has seen; one object, wherever it is made."""

    def __init__(self):
        self.ticks = 0
        self.events = []


router = APIRouter(prefix="/users")
chat = WsChatConnectionManager(limit=10, heartbeat_timeout=10, timeout_count=3)


class Handler(MessageHandler):
    """Echoes."""

    async def hello(self, key, ws, count):
        """Greet."""
        await chat.send_message(key, f"hello {key}")

    async def on_message(self, key, ws, message):
        """Answer."""
        await chat.send_message(key, f"{key}: {message}")


@router.post("")
async def add(name: str, money: int):
    """Insert."""
    return await mysql_pool_manager.insert(users.insert().values(name=name, money=money))


@router.get("")
async def find_all(request: Request):
    """Select, counted and with the request's own properties."""
    rows = await mysql_pool_manager.select(users.select().order_by(users.c.id))
    count = await mysql_pool_manager.count(users.select())

    return Response(
        [{"id": row["id"], "name": row["name"]} for row in rows],
        extra={"count": count, "request_id": request.request_id, "ip": request.client_ip},
    )


@atomic("default")  # type: ignore[untyped-decorator]  # users had no types
async def move(giver: int, taker: int, amount: int):
    """Move money in one transaction."""
    async with mysql_pool_manager.get_client() as client:
        await client.update(users.update().where(users.c.id == taker).values(money=users.c.money + amount))
        await client.update(users.update().where(users.c.id == giver).values(money=users.c.money - amount))
        row = await client.find(users.select().where(users.c.id == giver))

        if row is not None and row["money"] < 0:
            raise ErrResponse(code=Code.NO_MONEY)


@router.post("/move")
async def move_money(giver: int, taker: int, amount: int):
    """Under a lock, in a transaction, with an event."""
    async with redis_pool_manager.allocate_lock("money", expire=10) as lock:
        if not await lock.acquire(timeout=5):
            raise ErrResponse(code=5001)

        await move(giver, taker, amount)

    await Beats.bus.publish("moved", giver, taker, amount=amount)

    return Response({"moved": amount})


@router.get("/limited")
async def limited(key: str):
    """Two in ten seconds."""
    limiter = redis_pool_manager.allocate_limiter(granularity=10, limit=2)
    return await limiter.is_limited(key)


@ShareCache("legacy-slow", ttl=60)
async def slow(number: int):
    """Count how often it was really called."""
    Registry().ticks += 1
    await asyncio.sleep(0.01)
    return number * 2


@CacheWrap(maxsize=10, ttl=60)
async def cached(number: int):
    """Count how often it was really called."""
    Registry().ticks += 1
    return number * 2


@router.get("/cached")
async def get_cached():
    """Ask for the same often."""
    before = Registry().ticks
    results = await asyncio.gather(*(slow(21) for _ in range(5)), cached(1), cached(1))
    return {"results": results, "calls": Registry().ticks - before}


@router.get("/loop")
async def loop():
    """Loops, settings, helpers, and an error that is caught."""
    with catch_error():
        raise ValueError("logged and gone")

    return {
        "loop": [index async for index in AsyncCircularForSecond(3, 0.001)],
        "setting": settings.SHOP_NAME,
        "ip": Utils.int2ip(Utils.ip2int("127.0.0.1")),
    }


async def moved(giver, taker, amount):
    """Note an event of the bus."""
    Registry().events.append((giver, taker, amount))


async def tick():
    """Count."""
    Registry().ticks += 1


class Beats:
    """The tasks and the bus of the service."""

    bus: RedisEventBus

    def __init__(self):
        self.tasks = [IntervalTask(0.05, tick), CrontabTask("* * * * *", tick)]

    async def start(self):
        """Begin."""
        Beats.bus = redis_pool_manager.allocate_event_bus(channel_name="legacy")
        Beats.bus.add_listener("moved", moved)
        await (mysql_pool_manager.get_pool()).create_all(metadata)

        for task in self.tasks:
            task.start()

    async def stop(self):
        """End."""
        for task in self.tasks:
            task.stop()

        await Beats.bus.close()


def make():
    """Build the application."""
    beats = Beats()
    app = create_app(on_startup=[beats.start], on_shutdown=[beats.stop])
    app.include_router(router)

    @app.websocket("/chat/{name}")
    async def join(ws: WebSocket, name: str):
        await chat.append(name, ws, Handler())
        await chat.handle_message(name)

    return app
