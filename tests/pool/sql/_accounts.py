"""Ten accounts of 100 each, for the tests of transactions on every driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, func, select, update

from tests.pool.sql.backends import POSTGRES, make_requested
from ws_pool._sql.pool import SqlPool

METADATA = MetaData()
ACCOUNT = Table(
    "account",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("owner", String(20), nullable=False, unique=True),
    Column("balance", Integer, nullable=False),
)
BACKENDS = ("aiomysql", "asyncmy", "sqlite", *POSTGRES)
ADD = (
    update(ACCOUNT)
    .where(ACCOUNT.c.id == bindparam("which"))
    .values(balance=ACCOUNT.c.balance + bindparam("much"))
)


@asynccontextmanager
async def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """Open a pool of the requested driver, with the accounts."""
    async with make_requested(request, tmp_path, max_size=10) as pool:
        await pool.create_all(METADATA)
        await pool.insert_many(ACCOUNT, [{"id": n, "owner": f"o{n}", "balance": 100} for n in range(1, 11)])
        yield pool


async def total(pool: SqlPool) -> int:
    """Sum all balances up."""
    return int((await pool.find(select(func.sum(ACCOUNT.c.balance).label("n")))).n)


async def balance(pool: SqlPool, which: int) -> int:
    """Look one balance up, from outside of any transaction."""
    async with pool.get_client(alone=True) as client:
        found = await client.select(select(ACCOUNT.c.balance).where(ACCOUNT.c.id == which))
        return int(found[0].balance)
