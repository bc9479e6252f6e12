"""The access log: one line for each request, which no client can forge, under every server."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.responses import PlainTextResponse, StreamingResponse

from tests.web._server import Served, deploy, shop
from ws_web import Settings, create_app
from ws_web._access_log import logger
from ws_web.errors import SettingsError
from ws_web.testing import AppClient, SocketClosed

__all__ = ("deploy", "shop")  # fixtures

Lines = list[logging.LogRecord]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The records of the access log."""
    found: Lines = []

    def keep(record: logging.LogRecord) -> bool:
        if record.name == logger.name:
            found.append(record)

        return True

    caplog.handler.addFilter(keep)
    return found


def texts(lines: Lines) -> list[str]:
    """Return the lines without their times and ids."""
    return [re.sub(r" \d+\.\d+ms| [0-9a-f]{32}$", "", line.getMessage()) for line in lines]


def shop_app(**settings: Any) -> FastAPI:
    """Return an application with a route of each kind."""
    app = create_app(Settings(**settings))

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError

    @app.websocket("/ws/{key}")
    async def socket(ws: WebSocket, key: str) -> None:
        if key != "nobody":
            await ws.accept()
            await ws.send_text("é")
            await ws.send_bytes(b"123")

        await ws.close()

    return app


class TestLine:
    """What a line says."""

    async def test_a_request(self, lines: Lines) -> None:
        """Method, template, status, milliseconds, bytes, client and id; the same as fields."""
        async with AppClient(shop_app()) as client:
            reply = await client.get("/items/3", headers={"x-request-id": "r-1"})

        size = len(reply.content)
        assert re.fullmatch(
            rf"GET /items/\{{item}} 200 \d+\.\dms {size}B 127\.0\.0\.1 r-1", lines[0].getMessage()
        )
        fields = vars(lines[0])
        assert fields.pop("duration") > 0
        assert {name: value for name, value in fields.items() if "." in name} == {
            "http.request.method": "GET",
            "http.route": "/items/{item}",
            "http.response.status_code": 200,
            "http.response.body.size": size,
            "client.address": "127.0.0.1",
        }

    async def test_records_are_as_those_of_logging(self, lines: Lines) -> None:
        """They have every field, of this process and thread, and the time of their request."""
        app = shop_app()
        before = logging.makeLogRecord({})

        async with AppClient(app) as client:
            for _ in range(2):
                await client.get("/items/3")

            elsewhere = threading.Thread(
                target=lambda: asyncio.run(ask(app, path="/items/4")), name="elsewhere"
            )
            elsewhere.start()
            await asyncio.to_thread(elsewhere.join)

        after = logging.makeLogRecord({})
        assert [line.threadName for line in lines] == ["MainThread", "MainThread", "elsewhere"]

        for line in lines:
            assert vars(before).keys() <= vars(line).keys()
            assert (line.process, line.levelname, line.filename) == (os.getpid(), "INFO", "_access_log.py")
            assert before.created <= line.created <= after.created
            assert before.relativeCreated <= line.relativeCreated <= after.relativeCreated + 1
            assert line.msecs == int((line.created - int(line.created)) * 1000)
            assert getattr(line, "taskName", None) != ""

    async def test_the_factory_of_the_user_makes_the_records(self, lines: Lines) -> None:
        """One that adds fields, for example."""
        factory = logging.getLogRecordFactory()

        def with_shop(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = factory(*args, **kwargs)
            record.shop = "lamps"
            return record

        logging.setLogRecordFactory(with_shop)

        try:
            async with AppClient(shop_app()) as client:
                await client.get("/items/3")
        finally:
            logging.setLogRecordFactory(factory)

        assert vars(lines[0])["shop"] == "lamps"

    async def test_failures(self, lines: Lines) -> None:
        """What fails has its status, and what fits no route its path."""
        async with AppClient(shop_app()) as client:
            for path in ("/items/x", "/fails", "/nothing"):
                await client.get(path)

        assert [line[: line.index("B")].rpartition(" ")[0] for line in texts(lines)] == [
            "GET /items/{item} 422",
            "GET /fails 500",
            "GET /nothing 404",
        ]

    async def test_sockets(self, lines: Lines) -> None:
        """A WebSocket has one line, when it ends; a refused one too."""
        async with AppClient(shop_app()) as client:
            async with client.websocket("/ws/a") as socket:
                assert await socket.receive_text() == "é"

            with pytest.raises(SocketClosed):
                async with client.websocket("/ws/nobody"):
                    pass

        assert texts(lines) == [
            "WEBSOCKET /ws/{key} 101 5B 127.0.0.1",
            "WEBSOCKET /ws/{key} 403 0B 127.0.0.1",
        ]

    async def test_mounted_applications(self, lines: Lines, tmp_path: Any) -> None:
        """One line with the templates of mounts and route; never a value of a path."""
        (tmp_path / "a.txt").write_text("hello")
        app = create_app()
        app.mount("/{tenant}/shop", shop_app())
        app.mount("/static", StaticFiles(directory=tmp_path))

        async with AppClient(app) as client:
            for path in ("/acme/shop/items/1", "/acme/shop/nothing", "/static/a.txt"):
                await client.get(path)

        assert [line.split()[1] for line in texts(lines)] == [
            "/{tenant}/shop/items/{item}",
            "/{tenant}/shop/{path}",
            "/static/{path}",
        ]

    async def test_head_has_no_bytes(self, lines: Lines) -> None:
        """The body of HEAD is not sent."""
        app = create_app()
        app.add_route("/", lambda _: PlainTextResponse("hello"), methods=["GET", "HEAD"])

        async with AppClient(app) as client:
            await client.request("HEAD", "/")

        assert texts(lines) == ["HEAD / 200 0B 127.0.0.1"]

    async def test_a_reply_ends_before_its_background_tasks(self, lines: Lines) -> None:
        """The line is written when the last byte is sent, once, and does not wait for what follows."""
        app = create_app()
        seen: list[int] = []

        @app.get("/")
        async def route(tasks: BackgroundTasks) -> None:
            tasks.add_task(lambda: seen.append(len(lines)))

        async with AppClient(app) as client:
            await client.get("/")

        assert (seen, len(lines)) == ([1], 1)

    async def test_proxies(self, lines: Lines) -> None:
        """The client is that of trusted proxies, and of nobody else."""
        headers = {"x-forwarded-for": "198.51.100.7"}

        for trusted in ([], ["127.0.0.0/8"]):
            async with AppClient(shop_app(TRUSTED_PROXIES=trusted)) as client:
                await client.get("/items/1", headers=headers)

        assert [vars(line)["client.address"] for line in lines] == ["127.0.0.1", "198.51.100.7"]


class TestForging:
    """Nothing that a client sends can look like another line, or like another field."""

    @pytest.mark.parametrize(
        "path", ["/a\nGET /b 200", "/\x1b[31m", "/a b", "/é\u2028", "/" + "x" * 9000, "/%0a"]
    )
    async def test_paths(self, lines: Lines, path: str) -> None:
        """A path that fits no route is encoded and cut."""
        await ask(shop_app(), path=path)
        (line,) = lines
        assert line.getMessage().isprintable()
        assert line.getMessage().isascii()
        assert len(line.getMessage().split(" ")) == 7
        assert len(line.getMessage()) < 1000

    async def test_the_rest(self, lines: Lines) -> None:
        """So are methods and addresses, as far as a server lets them through."""
        await ask(shop_app(), method="GET 200\n", client=("9.9.9.9 200\n", 1))
        await ask(shop_app(), client=None)
        assert [line.getMessage().split(" ")[0] for line in lines] == ["GET%20200%0A", "GET"]
        assert [line.getMessage().split(" ")[5] for line in lines] == ["9.9.9.9%20200%0A", "-"]


class TestLeaving:
    """A client that goes away is 499, whatever is sent to nobody afterwards."""

    async def test_before_the_reply(self, lines: Lines) -> None:
        """The application noticed, and replied to nobody."""
        app = create_app()

        @app.post("/")
        async def route(request: Request) -> str:
            assert await request.is_disconnected()
            return "for nobody"

        await ask(app, method="POST", leaves=True)
        assert texts(lines)[0].startswith("POST / 499")

    async def test_without_a_reply(self, lines: Lines) -> None:
        """The application ended without a reply."""
        app = create_app()

        async def silent(scope: Any, receive: Any, send: Any) -> None:
            await receive()

        app.mount("/", silent)
        await ask(app, leaves=True)
        assert texts(lines)[0].startswith("GET /{path} 499")

    async def test_in_the_reply(self, lines: Lines) -> None:
        """A reply that had begun has its status."""
        app = create_app()

        @app.get("/")
        async def route() -> StreamingResponse:
            async def parts() -> Any:
                yield b"one"
                await asyncio.Event().wait()

            return StreamingResponse(parts())

        await ask(app, leaves=True, later=True)
        assert texts(lines)[0].startswith("GET / 200 3B")

    async def test_cancelled_by_the_server(self, lines: Lines) -> None:
        """A request that is cut without a reply, although its client is there, is 500."""
        app = create_app()
        begun = asyncio.Event()

        @app.get("/")
        async def route() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(ask(app))
        await begun.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert texts(lines)[0].startswith("GET / 500")


class TestSettings:
    """ACCESS_LOG: text, JSON or off."""

    async def test_off(self, lines: Lines) -> None:
        """No line; with false as well."""
        for value in ("off", False):
            async with AppClient(shop_app(ACCESS_LOG=value)) as client:
                await client.get("/items/1")

        assert lines == []

    async def test_json(self, lines: Lines) -> None:
        """A line is an object with the names of OpenTelemetry."""
        async with AppClient(shop_app(ACCESS_LOG="json")) as client:
            await client.get("/items/1", headers={"x-request-id": "r-1"})

        line = json.loads(lines[0].getMessage())
        assert (line["http.route"], line["http.response.status_code"], line["request_id"]) == (
            "/items/{item}",
            200,
            "r-1",
        )

    def test_anything_else_is_refused(self) -> None:
        """The setting is named with what it may be."""
        with pytest.raises(SettingsError, match=r"ACCESS_LOG = 'loud'.*'text', 'json' or 'off'"):
            Settings(ACCESS_LOG="loud")

    async def test_probes_are_left_out(self, lines: Lines) -> None:
        """Health routes are not logged, whatever they answer."""
        async with AppClient(shop_app()) as client:
            for path in ("/livez", "/readyz", "/startupz"):
                await client.get(path)

        assert lines == []

    async def test_a_level_of_the_user(self, lines: Lines) -> None:
        """A level that is set stays, and is restored otherwise."""
        assert logger.level == logging.NOTSET

        async with AppClient(shop_app()) as client:
            assert logger.level == logging.INFO
            logger.setLevel(logging.WARNING)
            await client.get("/items/1")

        assert (lines, logger.level) == ([], logging.NOTSET)


class TestStderr:
    """While nobody has configured logging, lines go to stderr."""

    @pytest.mark.parametrize("form", ["text", "json"])
    async def test_lines(
        self, form: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the time before them; a handler that is added later takes over."""
        monkeypatch.setattr(logging.root, "handlers", [])

        async with AppClient(shop_app(ACCESS_LOG=form)) as client:
            await client.get("/items/1")
            logger.warning("by hand")
            first, second = capsys.readouterr().err.splitlines()
            found: Lines = []
            late = logging.Handler()
            monkeypatch.setattr(late, "emit", found.append)
            logging.root.handlers.append(late)
            await client.get("/items/2")

        assert "/items/{item}" in first
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ by hand", second)
        assert (len(found), capsys.readouterr().err, logger.handlers) == (1, "", [])

        if form == "json":
            assert json.loads(first)["time"] == second.split()[0]

    async def test_nobody_reads_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A closed stderr does not fail requests."""
        monkeypatch.setattr(logging.root, "handlers", [])
        broken = io.StringIO()
        broken.close()
        monkeypatch.setattr("sys.stderr", broken)

        async with AppClient(shop_app()) as client:
            assert (await client.get("/items/1")).status_code == 200


class TestServers:
    """Under every server there is one line for a request, ours."""

    @pytest.mark.parametrize("server", ["run", "uvicorn", "gunicorn"])
    def test_one_line(self, server: str, deploy: Callable[..., Served]) -> None:
        """The server's own line is not written beside it."""
        served = deploy(server)
        served.get("/pid")
        served.get("/livez")
        served.get("/pid?last")
        served.wait_for(r"(?s)GET /pid 200.*GET /pid 200.*\n")
        served.stop()
        said = "".join(served.said)
        assert len(re.findall(r"GET /pid", said)) == 2, said
        assert "/livez" not in said
        assert "HTTP/1.1" not in said

    @pytest.mark.parametrize("server", ["run", "uvicorn", "gunicorn"])
    def test_a_client_that_left_unnoticed(self, server: str, deploy: Callable[..., Served]) -> None:
        """The handler of a GET reads nothing and is not notified, but the server knows."""
        served = deploy(server)

        with socket.create_connection(("127.0.0.1", served.port), 60) as client:
            client.sendall(b"GET /unread HTTP/1.1\r\nhost: shop\r\n\r\n")

            while not (served.place / "unread").exists():
                time.sleep(0.01)

        served.get("/pid")  # answered by the loop after it has seen the end of the first connection
        (served.place / "go").touch()
        served.wait_for("GET /unread 499 ")
        served.stop()

    @pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
    def test_off(self, server: str, deploy: Callable[..., Served]) -> None:
        """Without ours, the server's own line is there as ever."""
        served = deploy(server, WS_ACCESS_LOG="off")
        served.get("/pid")
        served.wait_for("GET /pid HTTP/1.1")
        served.stop()
        assert len(re.findall(r"GET /pid", "".join(served.said))) == 1


async def ask(app: Any, *, leaves: bool = False, later: bool = False, **scope: Any) -> None:
    """Send one request as a server does; a client may leave at once, or with the first part of the reply."""
    full = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 9),
        "server": ("127.0.0.1", 80),
        **scope,
    }
    messages = [{"type": "http.request", "body": b"", "more_body": False}][: 0 if leaves else 1]
    gone = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()

        if later or not leaves:
            await gone.wait()

        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if later and message["type"] == "http.response.body":
            gone.set()

    async with app.router.lifespan_context(app):
        await app(full, receive, send)
