"""The pool of the tests of PostgreSQL; files about several drivers have one of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.pool.sql._postgres import ITEM, METADATA
from ws_pool import PostgresPool


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[PostgresPool]:
    """Give a pool with three items."""
    async with PostgresPool(postgres_url, max_size=10) as made:
        await made.create_all(METADATA)
        await made.insert_many(ITEM, [{"name": f"n{n}", "stock": 100} for n in (1, 2, 3)])
        yield made
