"""Pages by limit and offset, and by cursor; tests/integration read them from databases."""

from __future__ import annotations

import base64
import datetime as dt
import json
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from ws_core.errors import UsageError
from ws_web import create_app
from ws_web.pages import CursorParams, OffsetParams, Page, by_cursor, by_offset, paginate, paginate_after
from ws_web.testing import AppClient


class Item(BaseModel):
    """What a page has."""

    id: int


class Column:
    """A column of a query, as far as pages need one."""

    key = "id"

    def __gt__(self, value: Any) -> Any:
        return lambda row: row["id"] > value

    def __lt__(self, value: Any) -> Any:
        return lambda row: row["id"] < value

    def asc(self) -> int:
        """Return the order."""
        return 1

    def desc(self) -> int:
        """Return the order."""
        return -1


class Query:
    """A query over a list."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def where(self, condition: Any) -> Query:
        """Keep some rows."""
        return Query([row for row in self.rows if condition(row)])

    def order_by(self, order: int) -> Query:
        """Order the rows."""
        return Query(self.rows[::order])

    def limit(self, limit: int) -> Query:
        """Keep the first rows; an offset comes first."""
        query = Query(self.rows[:limit])
        query.offset = lambda offset: Query(self.rows[offset : offset + limit])  # type: ignore[method-assign]
        return query

    def offset(self, offset: int) -> Query:
        """Leave rows out."""
        raise NotImplementedError


class Client:
    """A client of a SQL pool."""

    async def select(self, statement: Query) -> list[Any]:
        """Return the rows."""
        return statement.rows

    async def count(self, statement: Query) -> int:
        """Return how many there are."""
        return len(statement.rows)


ALL = Query([{"id": number} for number in range(7)])


@pytest.fixture
def app() -> Any:
    """An application with a list in both ways."""
    app = create_app()

    @app.get("/offset")
    async def offset(page: Annotated[OffsetParams, Depends(by_offset(default=3, most=5))]) -> Page[Item]:
        return await paginate(Client(), ALL, page)

    @app.get("/cursor")
    async def cursor(
        page: Annotated[CursorParams, Depends(by_cursor(default=3, most=5))], down: bool = False
    ) -> Page[Item]:
        return await paginate_after(Client(), ALL, page, Column(), descending=down)

    return app


class TestPages:
    """What a client reads, inside the envelope."""

    async def test_by_offset(self, app: Any) -> None:
        """With the total, and limits of the request's own."""
        async with AppClient(app) as client:
            first = (await client.get("/offset")).data()
            last = (await client.get("/offset?limit=5&offset=5")).data()
            wrong = [
                (await client.get(f"/offset?{q}")).status_code for q in ("limit=6", "limit=0", "offset=-1")
            ]

        assert first == {
            "items": [{"id": 0}, {"id": 1}, {"id": 2}],
            "limit": 3,
            "offset": 0,
            "total": 7,
            "next": None,
        }
        assert ([item["id"] for item in last["items"]], last["total"]) == ([5, 6], 7)
        assert wrong == [422, 422, 422]
        page = await paginate(Client(), ALL, OffsetParams(2, 0), total=False)
        assert page.total is None

    @pytest.mark.parametrize("down", [False, True])
    async def test_by_cursor(self, app: Any, down: bool) -> None:
        """Each item once, in both directions, until there is no next page."""
        seen: list[int] = []
        cursor = ""

        async with AppClient(app) as client:
            while True:
                page = (await client.get(f"/cursor?down={down}{cursor}")).data()
                seen += [item["id"] for item in page["items"]]

                if page["next"] is None:
                    break

                cursor = f"&cursor={page['next']}"

        assert seen == (list(range(6, -1, -1)) if down else list(range(7)))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"x",
            b"[]",
            b'["i"]',
            b'["i",true]',
            b'["i","1"]',
            b'["x",1]',
            b'["t","yesterday"]',
            b'["f",1e999]',
            b'["i",%d]' % 10**30,
            b'["i",' + b"[" * 500,
            b"\xff\xfe",
        ],
    )
    async def test_cursors_from_outside(self, app: Any, content: bytes) -> None:
        """They are refused with 422, whatever they are."""
        cursor = base64.urlsafe_b64encode(content).decode().rstrip("=")

        async with AppClient(app) as client:
            reply = await client.get("/cursor", params={"cursor": cursor or "%%%"})

        assert reply.status_code == 422

    @pytest.mark.parametrize(
        "value", [1, 1.5, "é", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), dt.date(2026, 1, 2)]
    )
    async def test_kinds_of_keys(self, value: Any) -> None:
        """A key comes back from a cursor as what it was."""

        class Key(Column):
            def __gt__(self, found: Any) -> Any:
                seen.append(found)
                return lambda _: True

        seen: list[Any] = []
        rows = Query([SimpleNamespace(id=value)] * 3)
        page = await paginate_after(Client(), rows, CursorParams(2, None), Key())
        await paginate_after(Client(), rows, CursorParams(2, page.next), Key())
        assert seen == [value]
        assert type(seen[0]) is type(value)

    async def test_keys_that_cannot_be(self) -> None:
        """A column that was not selected, and a type that has no order in text."""
        for rows, message in (
            ([SimpleNamespace(id=b"x")] * 2, "a key of type bytes cannot be in a cursor"),
            ([SimpleNamespace(name=1)] * 2, "'id' is not among the columns"),
            ([{"name": 1}] * 2, "'id' is not among the columns"),
        ):
            with pytest.raises(UsageError, match=message):
                await paginate_after(Client(), Query(list(rows)), CursorParams(1, None), Column())

    def test_openapi(self, app: Any) -> None:
        """The page stands in the envelope, and the parameters have their limits."""
        document = json.dumps(app.openapi())
        assert "Envelope_Page_Item__" in document
        assert '"maximum": 5' in document
