"""The pool of the tests of PostgreSQL; files about several drivers have one of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.pool.sql._postgres import ITEM, METADATA, QUICK, over
from tests.pool.sql.backends import POSTGRES
from ws_pool import PostgresPool


@pytest.fixture(params=POSTGRES)
def driver(request: pytest.FixtureRequest) -> str:
    """Name each driver of PostgreSQL."""
    return str(request.param)


@pytest.fixture
def driver_url(driver: str, postgres_url: str) -> str:
    """Return the URL of a database made for the test, for each driver."""
    return over(driver, postgres_url)


@pytest.fixture
async def pool(driver_url: str) -> AsyncIterator[PostgresPool]:
    """Yield a pool with three items, over each driver."""
    async with PostgresPool(driver_url, max_size=10, server_settings=QUICK) as made:
        await made.create_all(METADATA)
        await made.insert_many(ITEM, [{"name": f"n{n}", "stock": 100} for n in (1, 2, 3)])
        yield made
