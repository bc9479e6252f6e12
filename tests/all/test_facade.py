"""The module paths and names of wintersweet 1.1.4, and a service written for it."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

from tests.all._legacy_names import NAMES
from wintersweet._gone import GONE
from ws_web import settings
from ws_web.testing import AppClient

PATHS = NAMES
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HELPERS: dict[str, tuple[object, ...]] = {
    "ip2int": ("10.0.0.1",),
    "int2ip": (167772161,),
    "time2stamp": ("2026-01-02 03:04:05",),
    "stamp2time": (1767323045,),
    "datetime2time": (NOON,),
    "time2datetime": ("2026-01-02 03:04:05",),
    "timestamp": (),
    "delta_datetime": (True,),
    "format_time": ("%Y",),
    "re_match": ("a+", "aaa"),
    "xml_encode": ({"a": 1},),
    "xml_decode": ("<a>1</a>",),
    "split_int": ("1,2",),
}


class TestPaths:
    """Every module and name is where it was."""

    @pytest.mark.parametrize("path", PATHS)
    def test_names(self, path: str) -> None:
        """The module has its names, and lists them; one that is gone says what to write instead."""
        module = importlib.import_module(f"wintersweet.{path}")
        gone = GONE.get(path, {})

        for name in PATHS[path].split():
            if name in gone:
                with pytest.raises(ImportError, match=f"^wintersweet.{path}.{name} of 1.x is gone: "):
                    exec(f"from wintersweet.{path} import {name}", {})
            else:
                assert getattr(module, name) is not None
                assert name in module.__all__

    def test_what_is_gone_was_there_and_is_documented(self) -> None:
        """The migration page has a row for each name that is gone; no other row is kept."""
        page = Path(__file__).parents[2].joinpath("docs/migration.md").read_text(encoding="utf-8")

        for path, names in GONE.items():
            for name, remedy in names.items():
                assert name in NAMES.get(path, "").split() or path == "asyncs.http"
                assert f"| `{path}.{name}` | {remedy} |" in page

    def test_other_names(self) -> None:
        """A name that never was is an AttributeError, as in any module."""
        module = importlib.import_module("wintersweet.utils.cache")

        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            getattr(module, "nonsense")  # noqa: B009 - the attribute does not exist, which mypy would report

    @pytest.mark.parametrize(("name", "arguments"), HELPERS.items())
    def test_helpers(self, name: str, arguments: tuple[object, ...]) -> None:
        """The class of helpers has them all, and each returns what the function of that name returns."""
        from wintersweet.utils import base

        helper, own = getattr(base.Utils, name), getattr(base, name)

        assert list(inspect.signature(helper).parameters) == list(inspect.signature(own).parameters)

        if name == "timestamp":  # the present second, which may pass between two calls
            assert abs(helper() - own()) <= 1
        else:
            assert str(helper(*arguments)) == str(own(*arguments))

    async def test_helpers_that_need_a_loop(self) -> None:
        """They work inside of one, and there is the log."""
        from wintersweet.utils.base import Utils, install_uvloop
        from ws_core.errors import UsageError
        from ws_logging import logger

        async def answer(number: int) -> int:
            return number

        await Utils.wait_frame(2)
        assert Utils.loop_time() <= asyncio.get_running_loop().time()
        assert await Utils.package_task(answer, 42)() == 42
        assert Utils.log is logger

        with pytest.raises(UsageError, match="too late"):
            install_uvloop()

    def test_the_managers_have_the_libraries_pools(self) -> None:
        """There is one set of pools, whichever name it is used by."""
        from wintersweet.asyncs.pool.mysql import mysql_pool_manager
        from wintersweet.asyncs.pool.redis import redis_pool_manager
        from ws_pool import sql_pool_manager
        from ws_pool.redis import redis_pool_manager as own

        assert mysql_pool_manager.library is sql_pool_manager
        assert redis_pool_manager.library is own


class TestHelpers:
    """Small helpers of 1.x."""

    def test_safestr(self) -> None:
        """Texts are escaped, in mappings too; other values become text."""
        from wintersweet.asyncs.pool.mysql import MysqlClient

        assert MysqlClient.safestr({"a": "o'x", "b": 5}) == {"a": "o\\'x", "b": "5"}

    @pytest.mark.parametrize("options", [{}, {"buffer_size": 10, "buffer_block": True}])
    def test_a_file_that_a_thread_writes(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """It takes the arguments of 1.x."""
        from wintersweet.utils.logging import QueuedFileSink

        sink = QueuedFileSink(tmp_path / "x.log", **options)
        sink.write("hello\n")
        sink.stop()
        assert "hello" in (tmp_path / "x.log").read_text()


class TestHttp:
    """Requests need no setting, as in the original."""

    @pytest.fixture
    async def url(self) -> AsyncIterator[str]:
        """Yield the URL of a server that says what it was asked."""

        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response(text=f"{request.method} {request.path}")

        server = web.Server(answer)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)

        async with listener:
            host, port = listener.sockets[0].getsockname()
            yield f"http://{host}:{port}/lamp"
            await server.shutdown()

    async def test_requests_without_pools(self, url: str, tmp_path: Path) -> None:
        """Each has a pool for itself, and leaves nothing open."""
        from wintersweet.asyncs import http

        for name in ("get", "post", "put", "patch", "delete", "options"):
            assert (await getattr(http, name)(url)).text == f"{name.upper()} /lamp"

        assert (await http.head(url)).status_code == 200
        assert (await http.request("GET", url)).text == "GET /lamp"
        saved = await http.download(url, tmp_path / "lamp")
        assert (tmp_path / "lamp").read_text() == "GET /lamp"
        assert (os.fspath(saved), repr(saved)) == (str(tmp_path / "lamp"), "<DownloadResponse [200]>")
        (tmp_path / "sent").write_bytes(b"lamp")
        assert (await http.request_stream(url, tmp_path / "sent", method="PUT")).text == "PUT /lamp"

        with pytest.raises(ValueError, match="sends GET, not POST"):
            await http.download(url, tmp_path / "lamp", method="POST")

    async def test_pools_that_are_not_started(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where pools are set, they are used, or the error says why they cannot be."""
        from wintersweet.asyncs import http
        from ws_core.errors import NotReadyError
        from ws_pool.http import HttpPoolManager

        manager = HttpPoolManager()
        manager.register({"default": {}})
        monkeypatch.setattr("ws_pool.http.http_pool_manager", manager)

        with pytest.raises(NotReadyError, match="is not started"):
            await http.get(url)

        async with manager:
            assert (await http.get(url)).text == "GET /lamp"


@pytest.fixture
async def service(
    mysql_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[AppClient, ModuleType]]:
    """Yield a client of the running service, and its module."""
    monkeypatch.setenv("LEGACY_MYSQL", mysql_url)
    monkeypatch.setenv("LEGACY_REDIS", redis_url)
    monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", "tests.all._legacy_settings")
    importlib.reload(importlib.import_module("tests.all._legacy_settings"))
    settings.initialize()
    module = importlib.reload(importlib.import_module("tests.all._legacy"))

    try:
        async with AppClient(module.make()) as client:
            yield client, module
    finally:
        settings.use(None)


async def seen(look: Callable[[], object]) -> None:
    """Wait until there is something to see."""
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.01)


class TestService:
    """The service written for the original runs as it is."""

    async def test_all_of_it(self, service: tuple[AppClient, ModuleType]) -> None:
        """SQL, transaction, lock, event, limiter, caches, tasks, envelope, error and WebSocket."""
        client, module = service

        # Insert, select, count, envelope.
        ids = [
            (await client.post("/users", params={"name": name, "money": 10})).data()
            for name in ("ann", "bob")
        ]
        reply = await client.get("/users", headers={"x-request-id": "r-1"})
        assert reply.data() == [{"id": ids[0], "name": "ann"}, {"id": ids[1], "name": "bob"}]
        assert reply.envelope()["extra"] == {"count": 2, "request_id": "r-1", "ip": "127.0.0.1"}

        # A lock, a transaction that commits, an event; then one that is rolled back by ErrResponse.
        move = {"giver": ids[0], "taker": ids[1], "amount": 7}
        assert (await client.post("/users/move", params=move)).data() == {"moved": 7}
        assert (await client.post("/users/move", params=move)).error()["code"] == 4001
        rows = await module.mysql_pool_manager.select(module.users.select().order_by(module.users.c.id))
        assert [row.money for row in rows] == [3, 17]

        await seen(lambda: module.Registry().events)  # the bus delivers on its own time
        assert module.Registry().events == [(ids[0], ids[1], 7)]

        # Limiter, caches, helpers.
        limits = [(await client.get("/users/limited", params={"key": "ann"})).data() for _ in range(3)]
        assert limits == [False, False, True]
        cached = (await client.get("/users/cached")).data()
        assert cached["results"] == [42, 42, 42, 42, 42, 2, 2]
        assert (await client.get("/users/loop")).data() == {
            "loop": [0, 1, 2],
            "setting": "an undeclared setting",
            "ip": "127.0.0.1",
        }

        # The interval task.
        before = module.Registry().ticks
        await seen(lambda: module.Registry().ticks > before)

        # A chat.
        async with client.websocket("/chat/ann") as socket:
            assert await socket.receive_text() == "hello ann"
            await socket.send_text("hi")
            assert await socket.receive_text() == "ann: hi"
