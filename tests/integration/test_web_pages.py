"""Pages and kept replies of ws-web, over ws-pool's databases and Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends
from pydantic import BaseModel

from ws_pool.redis import RedisPool
from ws_web import Settings, create_app
from ws_web.caching import RedisCache, cached
from ws_web.dependencies import client
from ws_web.pages import CursorParams, OffsetParams, Page, by_cursor, by_offset, paginate, paginate_after
from ws_web.testing import AppClient, rolled_back

ITEMS = sa.Table("page_items", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))


class Item(BaseModel):
    """What a page has."""

    id: int


Sql = Annotated[Any, Depends(client("DATABASES"))]  # Any: a client of a SQL pool


async def test_pages_of_a_table(tmp_path: Path) -> None:
    """By offset with the total, and by cursor to the end."""
    app = create_app(Settings(DATABASES={"default": {"url": f"sqlite:///{tmp_path / 'pages.db'}"}}))

    @app.get("/offset")
    async def offset(sql: Sql, page: Annotated[OffsetParams, Depends(by_offset())]) -> Page[Item]:
        return await paginate(sql, sa.select(ITEMS).order_by(ITEMS.c.id), page)

    @app.get("/cursor")
    async def cursor(sql: Sql, page: Annotated[CursorParams, Depends(by_cursor())]) -> Page[Item]:
        return await paginate_after(sql, sa.select(ITEMS), page, ITEMS.c.id, descending=True)

    async with AppClient(app) as web:
        pools: Any = app.state.components["DATABASES"]

        async with pools.manager.get_client() as sql:
            await sql.create_all(ITEMS.metadata)
            await sql.insert_many(ITEMS, [{"id": number} for number in range(25)])

        page = (await web.get("/offset?limit=10&offset=20")).data()
        assert (page["total"], [item["id"] for item in page["items"]]) == (25, [20, 21, 22, 23, 24])
        seen: list[int] = []
        query = "limit=10"

        while query:
            page = (await web.get(f"/cursor?{query}")).data()
            seen += [item["id"] for item in page["items"]]
            query = f"limit=10&cursor={page['next']}" if page["next"] else ""

        assert seen == list(range(24, -1, -1))


async def test_replies_in_redis(any_redis_url: str) -> None:
    """Kept, sent again, and forgotten with their tag."""
    async with RedisPool(url=any_redis_url) as pool:
        store = RedisCache(pool.redis)
        app = create_app()
        calls: list[int] = []

        @app.get("/items", dependencies=[Depends(cached(store, 60, tags=["items"]))])
        async def items() -> int:
            calls.append(1)
            return len(calls)

        async with AppClient(app) as web:
            assert [(await web.get("/items")).data() for _ in range(3)] == [1, 1, 1]
            await store.invalidate("items")
            assert [(await web.get("/items")).data() for _ in range(3)] == [2, 2, 2]


async def test_a_test_that_leaves_nothing_behind(tmp_path: Path) -> None:
    """Requests share one transaction, which is rolled back; their own are savepoints in it."""
    app = create_app(Settings(DATABASES={"default": {"url": f"sqlite:///{tmp_path / 'rolled.db'}"}}))

    @app.post("/items/{number}")
    async def add(sql: Sql, number: int) -> int:
        async with sql.begin():
            await sql.insert(ITEMS, {"id": number})

        return number

    @app.get("/items")
    async def items(sql: Sql) -> int:
        found: int = await sql.count(sa.select(ITEMS))
        return found

    async with AppClient(app) as web:
        pools: Any = app.state.components["DATABASES"]

        async with pools.manager.get_client() as sql:
            await sql.create_all(ITEMS.metadata)

        for _ in range(2):
            async with rolled_back(app) as sql:
                await sql.insert(ITEMS, {"id": 1})
                assert (await web.post("/items/2")).data() == 2
                assert (await web.get("/items")).data() == 2

            assert (await web.get("/items")).data() == 0
