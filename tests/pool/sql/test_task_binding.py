"""Whose connection is whose: a task's blocks share one, and no other task has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.pool.sql._accounts import ACCOUNT, ADD, BACKENDS, accounts, balance
from ws_pool import atomic
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import UsageError


@pytest.fixture(params=BACKENDS)
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with ten accounts of 100 each."""
    async with accounts(request, tmp_path) as pool:
        yield pool


class TestBinding:
    """Clients of blocks in blocks, and of child tasks."""

    async def test_nested_blocks_of_a_task_share_their_connection(self, pool: SqlPool):
        """Inside a block the same task gets the same client, unless it wants one alone."""
        async with pool.get_client() as outer:
            async with pool.get_client() as inner:
                assert inner is outer

            async with pool.get_client(alone=True) as other:
                assert other is not outer
                assert other.raw is not outer.raw

            assert await outer.count(ACCOUNT) == 10

        async with pool.get_client() as later:
            assert later is not outer

    async def test_a_child_task_never_shares_an_open_transaction(self, pool: SqlPool):
        """The original's trap: a task started inside of a transaction is not a part of it."""

        async def child() -> int:
            async with pool.get_client() as client:
                assert client is not parent
                assert not client.in_transaction
                found = await client.select(select(ACCOUNT.c.balance).where(ACCOUNT.c.id == 1))
                return int(found[0].balance)

        with pytest.raises(ZeroDivisionError):
            async with atomic(pool) as parent:
                await parent.update(ADD, which=1, much=50)
                seen = await asyncio.gather(*(child() for _ in range(3)))
                assert seen == [100, 100, 100]
                _ = 1 / 0

        assert await balance(pool, 1) == 100
        assert pool.bound == {}

    async def test_an_inherited_binding_is_caught(self, pool: SqlPool):
        """The broken twin, which hands its client to child tasks as the original did, fails that test."""
        seen: list[bool] = []

        async def child() -> None:
            async with pool.get_client() as client:
                seen.append(client.in_transaction)

        async with atomic(pool):
            task = asyncio.create_task(child())
            pool.bound[task] = next(iter(pool.bound.values()))  # what an inherited context variable does
            await task
            del pool.bound[task]

        assert seen == [True]

    async def test_a_client_that_only_reads_is_not_given_to_one_that_writes(self, pool: SqlPool):
        """In a read-only block a writing one has its own connection; in a writing one, reading refuses."""
        async with pool.get_client(read_only=True) as reading, pool.get_client() as writing:
            assert reading is not writing
            await writing.update(ADD, which=1, much=1)

        async with pool.get_client(read_only=True) as reading:
            async with pool.get_client():
                pass

            async with pool.get_client(read_only=True) as again:
                assert again is reading  # the outer block's client is the task's again

        assert not pool.bound

        async with pool.get_client() as writing, writing.begin():
            await writing.update(ADD, which=1, much=1)
            seen = await writing.select(select(ACCOUNT))

            async with pool.get_client(read_only=True) as reading:
                assert reading._own is None  # it looks through
                assert reading.in_transaction
                assert await reading.select(select(ACCOUNT)) == seen

                with pytest.raises(UsageError, match="only reads, and UPDATE"):
                    await reading.update(ADD, which=1, much=1)

                with pytest.raises(UsageError, match="has begun before"):
                    await reading.__aenter__()

            with pytest.raises(UsageError, match="outside of its block"):
                await reading.select(select(ACCOUNT))
