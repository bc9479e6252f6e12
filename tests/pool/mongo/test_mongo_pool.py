"""MongoDB pools over real TCP: a server with MongoDB's protocol, or a real one by WS_TEST_MONGO_URL."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure

from tools.servers import MongoServer
from ws_core.component import Health
from ws_pool._mongo.monitoring import CommandMonitor
from ws_pool.errors import (
    ClosedError,
    ConfigError,
    MissingExtraError,
    NotReadyError,
    UnavailableError,
    UsageError,
)
from ws_pool.mongo import MongoPool, MongoPoolManager, convert_mongo_id


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A database of the test's own."""
    given = os.environ.get("WS_TEST_MONGO_URL")
    return given or str(request.getfixturevalue("mongo_url"))


@pytest.fixture(params=["pymongo", "motor"])
async def pool(request: pytest.FixtureRequest, url: str) -> AsyncIterator[MongoPool]:
    """A pool over either driver."""
    async with MongoPool(url=url, driver=request.param) as pool:
        yield pool

    if request.param == "motor":  # its threads are the process's: they would outlive the test
        frameworks: Any = importlib.import_module("motor.frameworks.asyncio")
        await asyncio.to_thread(frameworks._EXECUTOR.shutdown)
        frameworks._reset_global_executor()


class TestUse:
    async def test_documents(self, pool: MongoPool) -> None:
        """Documents go in and out of the default database."""
        items = pool.get_collection(None, "items")
        result = await items.insert_one({"name": "lamp", "price": 7})
        found = await items.find_one({"_id": result.inserted_id})
        assert found == {"_id": result.inserted_id, "name": "lamp", "price": 7}
        await items.update_one({"name": "lamp"}, {"$set": {"price": 8}})
        assert await items.count_documents({"price": 8}) == 1

        with pytest.raises(DuplicateKeyError):
            await items.insert_one({"_id": result.inserted_id})

    async def test_client(self, pool: MongoPool) -> None:
        """The block has the driver's client, which all tasks share."""
        async with pool.get_client() as one, pool.get_client(alone=True) as two:
            assert one is two is pool.client

    async def test_collections(self, pool: MongoPool) -> None:
        """Collections are found by name, day and month, in the database named or the default one."""
        day = date(2026, 3, 9)
        assert pool.get_collection("shop", "items").full_name == "shop.items"
        assert pool.get_collection_by_date("shop", "log", day).name == "log_20260309"
        assert (
            pool.get_collection_by_date("shop", "log", datetime(2026, 3, 9, tzinfo=UTC)).name
            == "log_20260309"
        )
        assert pool.get_collection_by_month("shop", "log", day).name == "log_202603"
        today = pool.get_collection_by_date(None, "log").name
        assert today.startswith(pool.get_collection_by_month(None, "log").name)
        assert len(today) == len("log_20260309")

    async def test_transaction(self, pool: MongoPool) -> None:
        """A block is committed whole, or not at all when it raises."""
        items = pool.get_collection(None, "items")

        async def attempt(name: str, *, fail: bool) -> None:
            async with pool.transaction() as session:
                await items.insert_one({"name": name}, session=session)

                if fail:
                    raise ZeroDivisionError

        try:
            await attempt("kept", fail=False)
        except OperationFailure as error:
            pytest.skip(f"this server cannot do transactions: {error}")

        assert await items.count_documents({"name": "kept"}) == 1

        with pytest.raises(ZeroDivisionError):
            await attempt("lost", fail=True)

        if await items.count_documents({"name": "lost"}):
            pytest.skip("this server takes transactions but does not undo them")

    async def test_statistics(self, url: str) -> None:
        """The driver's events are counted."""
        async with MongoPool(url=url, maxsize=3) as pool:
            items = pool.get_collection(None, "items")
            await asyncio.gather(*(items.insert_one({"n": n}) for n in range(30)))
            statistics = pool.statistics()
            assert 1 <= statistics.size <= 5, "three, and those that watch the server"
            assert (statistics.leased, statistics.waiting, statistics.failures) == (0, 0, 0)
            assert statistics.wait_time.count >= 30
            assert statistics.status()["max_size"] == 3

        assert pool.statistics().opened >= 1


class TestLife:
    async def test_misuse(self, url: str) -> None:
        """Each wrong use is refused with what to do."""
        pool = MongoPool(url=url, name="shop")
        assert repr(pool).startswith("<MongoPool 'shop' new: mongodb://")
        assert pool.name == "shop"

        with pytest.raises(NotReadyError, match="async with"):
            async with pool.get_client():
                pass

        assert await pool.health() == Health(ok=False, detail="mongo pool 'shop' is not open")

        async with pool:
            assert (await pool.health()).ok

            with pytest.raises(UsageError, match="open already"):
                await pool.start()

            async def elsewhere() -> object:
                return pool.client

            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

        await pool.close()

        with pytest.raises(ClosedError):
            pool.get_collection("a", "b")

    async def test_no_database(self, url: str) -> None:
        """Without any database named, that is said; the option names one."""
        server = url.rpartition("/")[0]

        async with MongoPool(url=f"{server}/") as pool:
            with pytest.raises(UsageError, match="no default database"):
                pool.get_collection(None, "items")

        async with MongoPool(url=f"{server}/", db="shop") as pool:
            assert pool.get_collection(None, "items").full_name == "shop.items"

    async def test_nobody_listens(self, unused_tcp_port: int) -> None:
        """A start without a server says where, without the password, and why."""
        pool = MongoPool(url=f"mongodb://me:secret@127.0.0.1:{unused_tcp_port}/x", connect_timeout=0.05)

        with pytest.raises(UnavailableError, match="Errno 111") as caught:
            await pool.start()

        assert f"mongodb://me:***@127.0.0.1:{unused_tcp_port}/x" in str(caught.value)

    # When a client is closed while the driver's monitor connects, the driver forgets that socket.
    @pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
    async def test_a_cancelled_start(self) -> None:
        """A start that is cancelled leaves no client behind."""
        writers: list[asyncio.StreamWriter] = []
        reached = asyncio.Event()

        async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            reached.set()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        pool = MongoPool(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        start = asyncio.create_task(pool.start())
        await reached.wait()
        start.cancel()

        with pytest.raises(asyncio.CancelledError):
            await start

        server.close()

        for writer in writers:
            writer.close()

            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        del start
        gc.collect()

    async def test_the_server_is_gone(self, start_server: Any) -> None:
        """Health says that the server is gone, and that it is back."""
        server = start_server(MongoServer)

        async with MongoPool(url=server.url, connect_timeout=0.2) as pool:
            assert (await pool.health()).ok
            server.kill()
            health = await pool.health()
            assert not health.ok
            assert health.detail
            server.restart()

            async with asyncio.timeout(20):
                while not (await pool.health()).ok:
                    pass

    def test_a_forgotten_pool(self) -> None:
        """A pool that was not closed is warned about when it goes."""
        pool = MongoPool(host="localhost")
        pool._client = object()  # type: ignore[assignment]

        with pytest.warns(ResourceWarning, match="was not closed"):
            pool.__del__()

        pool._client = None

    async def test_manager(self, url: str) -> None:
        """A manager holds named pools and finds collections in them."""
        manager = MongoPoolManager()
        manager.register({"default": {"url": url}, "log": {"url": url, "db": "log"}})
        await manager
        day = date(2026, 3, 9)
        assert manager.get_collection("shop", "items").full_name == "shop.items"
        assert manager.get_collection(None, "items", pool="log").full_name == "log.items"
        assert manager.get_collection_by_date("shop", "a", day).name == "a_20260309"
        assert manager.get_collection_by_month("shop", "a", day).name == "a_202603"

        async with manager.get_client() as client:
            assert isinstance(client, AsyncMongoClient)

        assert await manager.check_health()
        await manager.close()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({}, "MongoPool.url is missing"),
            ({"url": "http://x"}, "MongoPool.url: Invalid URI"),
            ({"url": "mongodb://me:sec:ret@h/"}, "MongoPool.url"),
            ({"url": "mongodb://h", "host": "g"}, "says the same as"),
            ({"host": "h", "port": 0}, "MongoPool.port"),
            ({"url": "mongodb://h", "minsize": 5, "maxsize": 2}, "above"),
            ({"url": "mongodb://h", "timeout": 0}, "MongoPool.timeout"),
            ({"url": "mongodb://h", "driver": "mgo"}, "one of 'pymongo', 'motor'"),
            ({"url": "mongodb://h", "max_sise": 2}, "did you mean"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named, without its secrets, before anything starts."""
        with pytest.raises(ConfigError) as caught:
            MongoPool(**options)

        assert part in str(caught.value)
        assert "ret@" not in str(caught.value)

    def test_parts_make_a_url(self) -> None:
        """Host, port, user and password are put together, with odd characters made safe."""
        make: Any = MongoPool
        assert (
            make(host="h", user="a@b", password="p/w:d")._settings.url == "mongodb://a%40b:p%2Fw%3Ad@h:27017/"
        )
        assert make(port="27018")._settings.url == "mongodb://localhost:27018/"
        assert make(host="h", maxsize=0, minsize=3)._settings.max_size == 0

    def test_motor_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asking for Motor without it says what to install."""
        monkeypatch.setitem(sys.modules, "motor.motor_asyncio", None)

        with pytest.raises(MissingExtraError, match=r"pip install 'ws-pool\[motor\]'"):
            MongoPool(host="h", driver="motor")


class TestListener:
    def test_low_water(self, caplog: pytest.LogCaptureFixture) -> None:
        """When nearly all connections are in use, that is warned about once a minute."""
        now = 0.0
        listener = CommandMonitor("shop", 10, lambda: now)
        event: Any = type("Event", (), {"duration": None})()

        with caplog.at_level(logging.WARNING):
            for _ in range(10):
                listener.connection_check_out_started(event)
                listener.connection_checked_out(event)

            assert len(caplog.records) == 1
            assert caplog.messages == ["mongo pool 'shop' is nearly exhausted: 9 of 10 connections in use"]
            listener.connection_checked_in(event)
            now += 61
            listener.connection_checked_out(event)
            assert len(caplog.records) == 2

        listener.connection_check_out_failed(event)
        listener.connection_closed(event)
        assert listener.statistics().failures == 1


class TestIds:
    def test_good(self) -> None:
        """Text of 24 hexadecimal digits, or an id, is an id."""
        text = "65a000000000000000000001"
        assert convert_mongo_id(text) == ObjectId(text)
        assert convert_mongo_id(ObjectId(text)) == ObjectId(text)

    @pytest.mark.parametrize("value", ["", "lamp", "g" * 24, b"twelve bytes", None, 5, "65a0"])
    def test_bad(self, value: object) -> None:
        """Anything else is an error, or None: never a new random id."""
        with pytest.raises(ValueError, match="is not the id"):
            convert_mongo_id(value, strict=True)

        assert convert_mongo_id(value, strict=False) is None


class TestUrl:
    @pytest.mark.parametrize(
        "query",
        [
            "bogus=1",
            "tls=maybe",
            "maxPoolSize=abc",
            "w=majority&w=1",
            "retryWrites=yes",
            "readPreference=bogus",
            "authMechanism=BOGUS",
            "compressors=foo",
            "socketTimeoutMS=-1",
        ],
    )
    def test_an_option_that_the_driver_leaves_out(self, query: str) -> None:
        """PyMongo warns and goes on without it, be it the encryption: it is refused."""
        with pytest.raises(ConfigError, match=r"MongoPool\.url: "):
            MongoPool(f"mongodb://h/?{query}")

    def test_the_urls_own_options_count(self) -> None:
        """Our defaults do not go before what the URL says; both at once are refused."""
        url = "mongodb://h/?maxPoolSize=7&minpoolsize=3&timeoutMS=1500&connectTimeoutMS=0&appName=shop"
        pool = MongoPool(url + "&serverSelectionTimeoutMS=100")
        client = pool._make_with(AsyncMongoClient)
        options = client.options.pool_options
        assert (options.max_pool_size, options.min_pool_size) == (7, 3)
        assert (client.options.timeout, options.connect_timeout) == (1.5, None)
        assert client.options.server_selection_timeout == 0.1
        assert options.metadata["application"]["name"] == "shop"
        assert (pool._settings.max_size, pool._settings.timeout) == (7, 1.5)

        with pytest.raises(ConfigError, match="max_size says the same as maxpoolsize"):
            MongoPool("mongodb://h/?maxPoolSize=7", max_size=8)

        with pytest.raises(ConfigError, match="min_size is 9, above"):
            MongoPool("mongodb://h/?maxPoolSize=7&minPoolSize=9")

    @pytest.mark.parametrize("host", ["", "a b", "u:p@h", "h/x", "h?tls=false"])
    def test_a_host_that_would_change_the_url(self, host: str) -> None:
        """It is the name of a host, and not another part of a URL."""
        with pytest.raises(ConfigError, match="is not the name of a host"):
            MongoPool(host=host)

    def test_an_address_of_ipv6(self) -> None:
        """It is put into brackets, as URLs want it."""
        assert MongoPool(host="::1")._settings.url == "mongodb://[::1]:27017/"
