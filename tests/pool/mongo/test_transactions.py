"""Transactions: repeated when the server says that a failure is transient, and never half."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo.errors import OperationFailure, PyMongoError

from tests.pool.mongo._proxy import FaultyServer, faulty
from ws_pool.mongo import MongoPool

CONFLICT = {"code": 112, "errmsg": "WriteConflict", "errorLabels": ["TransientTransactionError"]}
UNKNOWN = {"code": 64, "errmsg": "no answer", "errorLabels": ["UnknownTransactionCommitResult"]}
FINAL = {"code": 11000, "errmsg": "no"}

pytestmark = pytest.mark.skipif(
    "WS_TEST_MONGO_URL" in os.environ, reason="the proxy speaks to a server without TLS and users"
)


@pytest.fixture
async def server(mongo_url: str) -> AsyncIterator[FaultyServer]:
    """A server that fails on demand."""
    async with faulty(mongo_url) as server:
        yield server


@pytest.fixture(params=["pymongo", "motor"])
async def pool(request: pytest.FixtureRequest, server: FaultyServer) -> AsyncIterator[MongoPool]:
    """A pool over either driver."""
    async with MongoPool(url=server.url, driver=request.param) as pool:
        yield pool

    if request.param == "motor":  # its threads are the process's: they would outlive the test
        frameworks: Any = importlib.import_module("motor.frameworks.asyncio")
        await asyncio.to_thread(frameworks._EXECUTOR.shutdown)
        frameworks._reset_global_executor()


class TestWithTransaction:
    async def test_transient_errors(self, pool: MongoPool, server: FaultyServer) -> None:
        """A conflict, in an operation or at the commit, runs the function again; it is written once."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})
        server.failures = {"insert": [CONFLICT, CONFLICT], "commitTransaction": [CONFLICT]}
        runs = 0

        async def add(session: Any) -> str:
            nonlocal runs
            runs += 1
            await items.insert_one({"run": runs}, session=session)
            return f"run {runs}"

        assert await pool.with_transaction(add) == "run 4"
        assert [item["run"] async for item in items.find({"run": {"$exists": True}})] == [4]

    async def test_a_commit_without_an_answer(self, pool: MongoPool, server: FaultyServer) -> None:
        """It is repeated alone: the function has run once."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})
        server.failures = {"commitTransaction": [UNKNOWN]}
        runs = 0

        async def add(session: Any) -> None:
            nonlocal runs
            runs += 1
            await items.insert_one({"run": runs}, session=session)

        await pool.with_transaction(add)
        assert (runs, await items.count_documents({"run": 1})) == (1, 1)
        assert server.commands["commitTransaction"] == 2

    async def test_other_errors(self, pool: MongoPool, server: FaultyServer) -> None:
        """Errors of the function and final ones of the server come out at once, with nothing written."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})
        runs = 0

        async def add(session: Any) -> None:
            nonlocal runs
            runs += 1
            await items.insert_one({"run": runs}, session=session)

            if runs == 1:
                raise ZeroDivisionError

            server.failures = {"update": [FINAL]}
            await items.update_one({"_id": 0}, {"$set": {"run": runs}}, session=session)

        with pytest.raises(ZeroDivisionError):
            await pool.with_transaction(add)

        with pytest.raises(OperationFailure):
            await pool.with_transaction(add)

        assert (runs, await items.count_documents({"run": {"$exists": True}})) == (2, 0)

    @pytest.mark.parametrize("pool", ["motor"], indirect=True)  # PyMongo has a clock of its own
    async def test_not_for_ever(
        self, pool: MongoPool, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the time limit a transient error comes out, of an operation and of a commit."""
        monkeypatch.setattr("ws_pool._mongo.transactions._LIMIT", 0.0)
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})

        for name, failure in (("insert", CONFLICT), ("commitTransaction", UNKNOWN)):
            server.failures = {name: [failure]}

            with pytest.raises(PyMongoError):
                await pool.with_transaction(lambda session: items.insert_one({"run": 1}, session=session))

    async def test_ended_by_the_function(self, pool: MongoPool, server: FaultyServer) -> None:
        """A function may abort; a commit that is refused for good is an error."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})

        async def abort(session: Any) -> str:
            await items.insert_one({"run": 1}, session=session)
            await session.abort_transaction()
            return "aborted"

        assert await pool.with_transaction(abort) == "aborted"
        server.failures = {"commitTransaction": [{**UNKNOWN, "code": 50}]}

        with pytest.raises(OperationFailure):
            await pool.with_transaction(lambda session: items.find_one({"_id": 0}, session=session))

        assert await items.count_documents({"run": 1}) == 0

    async def test_cancelled(self, pool: MongoPool) -> None:
        """A cancelled transaction is aborted, in both forms."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})
        begun = asyncio.Event()

        async def add(session: Any) -> None:
            await items.insert_one({"run": 1}, session=session)
            begun.set()
            await asyncio.Event().wait()

        async def block() -> None:
            async with pool.transaction() as session:
                await add(session)

        for made in (pool.with_transaction(add), block()):
            begun.clear()
            task = asyncio.ensure_future(made)
            await begun.wait()
            task.cancel()

            with pytest.raises(asyncio.CancelledError):
                await task

        assert await items.count_documents({"run": 1}) == 0

    async def test_a_block_is_not_repeated(self, pool: MongoPool, server: FaultyServer) -> None:
        """The block of `transaction` raises a transient error, and has written nothing."""
        items = pool.get_collection(None, "items")
        await items.insert_one({"_id": 0})
        server.failures = {"commitTransaction": [CONFLICT]}

        with pytest.raises(PyMongoError) as caught:
            async with pool.transaction() as session:
                await items.insert_one({"run": 1}, session=session)

        assert caught.value.has_error_label("TransientTransactionError")
        assert await items.count_documents({"run": 1}) == 0
