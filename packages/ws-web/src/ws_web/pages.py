"""Pages of long lists, inside the envelope: by limit and offset, or by a cursor.

An offset is simple, and has a total; a far page costs the database all pages before it, and what is inserted
meanwhile moves the list. A cursor goes on after the last key that was seen, at the same cost for each page.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from ws_core.errors import UsageError
from ws_web._json import plain_rows
from ws_web.response import ErrResponse

__all__ = (
    "CursorParams",
    "OffsetParams",
    "Page",
    "SqlClient",
    "by_cursor",
    "by_offset",
    "paginate",
    "paginate_after",
)

# Any below: statements, columns and rows are of SQLAlchemy and of drivers.

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """
    A part of a list.

    Example:
        >>> Page[int](items=[1, 2], limit=2, next="WyJpIiwyXQ").model_dump()
        {'items': [1, 2], 'limit': 2, 'offset': None, 'total': None, 'next': 'WyJpIiwyXQ'}
    """

    items: list[T]
    limit: int = Field(description="How many items a page has at most.")
    offset: int | None = Field(default=None, description="How many items stand before this page.")
    total: int | None = Field(default=None, description="How many items there are in all.")
    next: str | None = Field(default=None, description="The cursor of the next page; null at the end.")


@dataclass(frozen=True, slots=True)
class OffsetParams:
    """Which page is wanted; made by `by_offset`."""

    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class CursorParams:
    """Which page is wanted; made by `by_cursor`."""

    limit: int
    cursor: str | None


class SqlClient(Protocol):
    """What `paginate` needs of a client; those of ws-pool's SQL pools fit."""

    def select(self, statement: Any, /) -> Awaitable[Sequence[Any]]:
        """Run a query, and return its rows."""
        ...

    def count(self, statement: Any, /) -> Awaitable[int]:
        """Return how many rows a query has."""
        ...


def by_offset(*, default: int = 50, most: int = 500) -> Callable[..., OffsetParams]:
    """
    Return a dependency: ``limit`` and ``offset`` from the query.

    Args:
        default: The limit of a request that has none.
        most: The largest limit; more is 422.

    Returns:
        A function for `fastapi.Depends`.
    """

    def read(
        limit: Annotated[int, Query(ge=1, le=most)] = default,
        offset: Annotated[int, Query(ge=0, le=2**63 - 1 - most)] = 0,
    ) -> OffsetParams:
        return OffsetParams(limit, offset)

    _with_types(read, most)
    return read


def by_cursor(*, default: int = 50, most: int = 500) -> Callable[..., CursorParams]:
    """
    Return a dependency: ``limit`` and ``cursor`` from the query.

    Args:
        default: The limit of a request that has none.
        most: The largest limit; more is 422.

    Returns:
        A function for `fastapi.Depends`.
    """

    def read(
        limit: Annotated[int, Query(ge=1, le=most)] = default,
        cursor: Annotated[str | None, Query(max_length=1000)] = None,
    ) -> CursorParams:
        return CursorParams(limit, cursor)

    _with_types(read, most)
    return read


def _with_types(read: Callable[..., object], most: int) -> None:
    """Replace annotations that are text, and name a local variable, by types."""
    annotations = read.__annotations__
    annotations["limit"] = Annotated[int, Query(ge=1, le=most)]

    if "offset" in annotations:
        annotations["offset"] = Annotated[int, Query(ge=0, le=2**63 - 1 - most)]


async def paginate(client: SqlClient, statement: Any, page: OffsetParams, *, total: bool = True) -> Page[Any]:
    """
    Return a page of a query by limit and offset.

    Args:
        client: A SQL client.
        statement: A select of SQLAlchemy, with an order.
        page: Which page; see `by_offset`.
        total: Whether to count all rows, which is a second query.
    """
    rows = await client.select(statement.limit(page.limit).offset(page.offset))
    count = await client.count(statement) if total else None
    return Page(items=_plain(rows), limit=page.limit, offset=page.offset, total=count)


async def paginate_after(
    client: SqlClient, statement: Any, page: CursorParams, key: Any, *, descending: bool = False
) -> Page[Any]:
    """
    Return a page of a query that goes on after a cursor.

    Args:
        client: A SQL client.
        statement: A select of SQLAlchemy without an order; the key must be among its columns.
        page: Which page; see `by_cursor`.
        key: The column that orders the list: unique, not null, a number, a text or a time.
        descending: Whether the largest key comes first.

    Raises:
        ErrResponse: 422, for a cursor that was not made here.
        UsageError: The key is not among the columns, or its values cannot be in a cursor.
    """
    if page.cursor is not None:
        value = _decode(page.cursor)
        statement = statement.where(key < value if descending else key > value)

    order = key.desc() if descending else key.asc()
    rows = await client.select(statement.order_by(order).limit(page.limit + 1))
    items = rows[: page.limit]
    following = _encode(_value(items[-1], key.key)) if len(rows) > page.limit else None
    return Page(items=_plain(items), limit=page.limit, next=following)


def _plain(rows: Sequence[Any]) -> list[Any]:
    return [plain_rows(row) for row in rows]


def _value(row: Any, name: str) -> Any:
    """Return the value of a column of a row, which is an object or a mapping."""
    try:
        return row[name] if isinstance(row, dict) else getattr(row, name)
    except (KeyError, AttributeError):
        raise UsageError(f"the key {name!r} is not among the columns of the query: select it too") from None


_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "i": (int, int, int),
    "f": (float, float, float),
    "s": (str, str, str),
    "t": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "d": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
}


def _encode(value: object) -> str:
    """Write a key as text that is safe in a URL."""
    for letter, (known, write, _) in _KINDS.items():
        if type(value) is known:
            text = json.dumps([letter, write(value)], separators=(",", ":"))
            return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    raise UsageError(
        f"a key of type {type(value).__name__} cannot be in a cursor: take a number, text or time"
    )


def _decode(cursor: str) -> Any:
    """Return the key in a cursor; it comes from outside."""
    try:
        letter, value = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        kind, write, read = _KINDS[letter]
        found: Any = read(value)

        # JSON has numbers of any length, and Python reads 1e999 as infinity: databases have neither.
        is_possible = abs(found) < 2**63 if kind in (int, float) else True

        written = write(found)

        if type(written) is type(value) and written == value and is_possible:
            return found
    except (ValueError, TypeError, KeyError, RecursionError, UnicodeError, OverflowError):
        pass

    message = "The cursor is not one of this list"
    problem = {"loc": ["query", "cursor"], "msg": message, "type": "cursor"}
    raise ErrResponse([problem], 422, 422, msg=message)
