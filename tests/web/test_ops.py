"""The ops page: who may read it, who may act, what it shows, and how it looks in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.all._browser import BROWSER, browser
from tests.web._server import Served, both, deploy, shop
from ws_core.inspection import publish
from ws_web import Settings, create_app
from ws_web._worker_group import WorkerGroup, set_parent
from ws_web.ops._logs import Logs
from ws_web.ops._watchdog import Watchdog
from ws_web.testing import AppClient, Reply

__all__ = ("deploy", "shop")  # fixtures

TOKEN = "open sesame"
BEARER = {"authorization": f"Bearer {TOKEN}"}
LOCAL = {"host": "localhost:8080"}
SECRET = "hunter2"


def ops(**settings: Any) -> FastAPI:
    """Return an application with the page."""
    return create_app(Settings(OPS=True, ACCESS_LOG="off", **{"OPS_TOKEN": TOKEN, **settings}))


class Chores:
    """Tasks of a library."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def inspect(self) -> list[dict[str, object]]:
        """Show one, which carries a secret."""
        return [
            {
                "name": "sweep",
                "state": "running",
                "last_error": None,
                "password": SECRET,
                "when": Path("x"),
                "rate": math.nan,
            }
        ]

    def act(self, action: str, name: str) -> bool:
        """Run it."""
        self.ran.append(f"{action} {name}")
        return name == "sweep"


class TestReading:
    """The right to read."""

    async def test_off(self) -> None:
        """Without OPS there is nothing."""
        async with AppClient(create_app()) as client:
            for path in ("/_ops", "/_ops/state", "/_ops/page.html"):
                assert (await client.get(path)).status_code == 404

    async def test_the_page_itself(self) -> None:
        """It holds nothing, so anybody may have it; no other file, and nothing from elsewhere in it."""
        async with AppClient(ops()) as client:
            assert (await client.get("/_ops")).headers["location"] == "_ops/page.html"

            for name in ("page.html", "page.js", "page.css", "uplot.js", "uplot.css"):
                reply = await client.get(f"/_ops/{name}")
                assert reply.status_code == 200
                assert "default-src 'none'" in reply.headers["content-security-policy"]
                assert reply.headers["x-frame-options"] == "DENY"
                assert b"http://" not in reply.content.replace(b"http://www.w3.org", b"")

            for name in ("uplot.LICENSE", "..%2f__init__.py", "__init__.py"):
                assert (await client.get(f"/_ops/{name}")).status_code == 404

    @pytest.mark.parametrize("path", ["state", "settings", "events"])
    @pytest.mark.parametrize(
        ("peer", "headers"),
        [
            ("203.0.113.5", LOCAL),
            ("127.0.0.1", {"host": "evil.example"}),
            ("127.0.0.1", {"host": "[::1"}),
            ("127.0.0.1", {**LOCAL, "x-forwarded-for": "127.0.0.1"}),
            ("127.0.0.1", {**LOCAL, "forwarded": "for=127.0.0.1"}),
            ("127.0.0.1", {**LOCAL, "x-real-ip": "127.0.0.1"}),
            ("127.0.0.1", {**LOCAL, "via": "1.1 proxy"}),
            ("127.0.0.1", {**LOCAL, "x-forwarded-proto": "https"}),
            ("127.0.0.1", {**LOCAL, "cf-connecting-ip": "127.0.0.1"}),
            ("127.0.0.1", {**LOCAL, "origin": "https://evil.example"}),
            ("127.0.0.1", {**LOCAL, "origin": "http://[::1"}),
            ("127.0.0.1", {**LOCAL, "sec-fetch-site": "cross-site"}),
            ("203.0.113.5", {**LOCAL, "authorization": "Bearer "}),
            ("203.0.113.5", {**LOCAL, "authorization": f"Bearer {TOKEN}x"}),
            ("203.0.113.5", {**LOCAL, "authorization": TOKEN}),
            ("not an address", LOCAL),
        ],
    )
    async def test_refused(self, path: str, peer: str, headers: dict[str, str]) -> None:
        """Without the token, only programs on this machine are let in, and nothing in between."""
        async with AppClient(ops(), peer=peer) as client:
            reply = await client.get(f"/_ops/{path}", headers=headers)

        assert (reply.status_code, reply.json()) == (401, {"error": "the token is missing or wrong"})

    @pytest.mark.parametrize(
        ("peer", "headers"),
        [
            ("127.0.0.1", LOCAL),
            ("::1", {"host": "[::1]:8080"}),
            ("203.0.113.5", {**BEARER, "host": "shop.example"}),
        ],
    )
    async def test_allowed(self, peer: str, headers: dict[str, str]) -> None:
        """A program on this machine, or whoever has the token."""
        async with AppClient(ops(), peer=peer) as client:
            reply = await client.get("/_ops/state", headers=headers)

        assert reply.status_code == 200
        assert reply.json()["acts"] is ("authorization" in headers)

    async def test_no_token_is_not_an_empty_one(self) -> None:
        """Without OPS_TOKEN nobody has it."""
        async with AppClient(ops(OPS_TOKEN=""), peer="203.0.113.5") as client:
            for sent in ("Bearer ", "Bearer", ""):
                assert (await client.get("/_ops/state", headers={"authorization": sent})).status_code == 401

            reply = await client.post("/_ops/run", headers=LOCAL, json={"name": "sweep"})
            assert (reply.status_code, reply.json()["error"]) == (403, "set OPS_TOKEN to allow actions")


async def do(client: AppClient, path: str, body: object, **headers: str) -> Reply:
    """Act with the token."""
    return await client.post(
        f"/_ops/{path}", headers={"host": "shop.example", **BEARER, **headers}, json=body
    )


class TestActing:
    """The right to act, and what happens then."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Bearer wrong"},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://["},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    async def test_refused(self, headers: dict[str, str]) -> None:
        """The token is not enough for a page of another site; being on this machine is not either."""
        chores = Chores()
        publish("tasks", chores)

        async with AppClient(ops()) as client:
            assert (await do(client, "run", {"name": "sweep"}, **headers)).status_code == 403
            assert (await client.get("/_ops/run", headers=BEARER)).status_code == 404  # a file of this name

        assert chores.ran == []

    async def test_run_now(self) -> None:
        """A task is run by its name."""
        chores = Chores()
        publish("tasks", chores)

        async with AppClient(ops()) as client:
            assert (
                await do(client, "run", {"name": "sweep"}, origin="https://shop.example")
            ).status_code == 200
            assert (await do(client, "run", {"name": "nothing"})).status_code == 404

        assert chores.ran == ["run sweep", "run nothing"]

    @pytest.mark.parametrize("body", [[], {}, {"name": 1}, {"name": "x" * 201}, {"name": "a\nb"}, "text"])
    async def test_nonsense(self, body: object) -> None:
        """It is answered with what is expected."""
        async with AppClient(ops()) as client:
            assert (await do(client, "run", body)).status_code == 422
            reply = await client.request("POST", "/_ops/level", headers=BEARER, content=b"{")
            assert reply.status_code == 422

    async def test_levels(self) -> None:
        """A level is changed while the service runs, and restored when it ends."""
        logger = logging.getLogger("test_ops.shop")

        async with AppClient(ops()) as client:
            reply = await do(client, "level", {"module": "test_ops.shop", "level": "DEBUG"})
            assert (reply.status_code, logger.level) == (200, logging.DEBUG)
            shown = (await client.get("/_ops/state", headers=BEARER)).json()["workers"][0]["levels"]
            assert shown["test_ops.shop"] == "DEBUG"
            reply = await do(client, "level", {"module": "test_ops.shop", "level": "LOUD"})
            assert "level must be one of DEBUG" in reply.json()["error"]

        assert logger.level == logging.NOTSET

    async def test_levels_of_all_workers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker follows what another one was asked."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr("ws_web._publishing._EVERY", 0.01)
        set_parent(os.getpid())
        logger = logging.getLogger("test_ops.shop")

        try:
            async with AppClient(ops()) as client:
                group = WorkerGroup.of_this_process()
                assert group is not None
                await do(client, "level", {"module": "test_ops.other", "level": "ERROR"})
                assert group.receive("levels") == {"test_ops.other": "ERROR"}
                group.send("levels", {"test_ops.shop": "DEBUG"})

                while logger.level != logging.DEBUG:
                    await asyncio.sleep(0.01)
        finally:
            set_parent(0)
            from ws_web import _worker_group

            _worker_group._parents.clear()


class TestState:
    """What is shown."""

    async def test_what_is_under_way(self, caplog: pytest.LogCaptureFixture) -> None:
        """Requests with their age, tasks, the log and numbers; the page's own requests are left out."""
        chores = Chores()
        publish("tasks", chores)
        app = ops()
        go = asyncio.Event()

        @app.get("/wait/{item}")
        async def wait(item: int) -> None:
            logging.getLogger("test_ops").warning("password=%s", SECRET)
            await go.wait()

        async with AppClient(app) as client:
            waiting = asyncio.create_task(client.get("/wait/1", headers={"x-request-id": "r-1"}))

            while not (state := (await client.get("/_ops/state", headers=BEARER)).json())["workers"][0][
                "requests"
            ]:
                await asyncio.sleep(0)

            go.set()
            await waiting

        (worker,) = state["workers"]
        (request,) = worker["requests"]
        assert request.pop("age") >= 0
        assert request == {"method": "GET", "route": "/wait/{item}", "id": "r-1"}
        (row,) = [row for row in worker["tasks"] if row["name"] == "sweep"]
        assert (row["password"], row["when"], row["rate"]) == ("***", "x", None)
        assert any("test_ops password=***" in line for line in worker["log"])
        assert SECRET not in json.dumps(state)
        assert {"http.server.active_requests", "wintersweet.websocket.connections"} <= {
            one["name"] for one in state["metrics"]
        }

    async def test_events(self) -> None:
        """The same comes once a second as an event, which a browser can read."""
        publish("tasks", chores := Chores())
        app = ops()
        sent: list[bytes] = []
        enough = asyncio.Event()

        async def receive() -> Any:
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

            if sum(map(bool, sent)) == 2:
                enough.set()

        scope = {
            "type": "http", "method": "GET", "path": "/_ops/events", "query_string": b"",
            "http_version": "1.1", "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80),
            "scheme": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip

        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

        events = [json.loads(part.removeprefix(b"data: ")) for part in sent if part]
        assert [event["workers"][0]["pid"] for event in events] == [os.getpid()] * 2
        assert b"NaN" not in b"".join(sent)
        assert chores.ran == []

    async def test_settings(self) -> None:
        """Each with its source, and masked."""
        app = ops(DATABASES={}, REDIS_CONFIG={}, APP_CONFIG={"title": "Shop"}, SHOP_PASSWORD=SECRET)

        async with AppClient(app) as client:
            reply = await client.get("/_ops/settings", headers=BEARER)

        shown = {row["name"]: (row["value"], row["source"]) for row in reply.json()}
        assert shown["APP_CONFIG.title"] == ("Shop", "arguments")
        assert shown["LISTEN_PORT"][1] == "default"
        assert SECRET not in reply.text
        assert TOKEN not in reply.text

    async def test_a_component_that_fails(self, publish: Callable[[str, str], None]) -> None:
        """It is shown, and the rest of the page is too."""
        publish(
            """
            class Broken:
                name, settings_key, after = "broken", "BROKEN", ()
                def configure(self, section): pass
                async def start(self): pass
                async def close(self): pass
                async def health(self): pass
                def status(self): raise ZeroDivisionError
            """,
            "BROKEN = {module}:Broken",
        )

        async with AppClient(ops(BROKEN={"on": True})) as client:
            state = (await client.get("/_ops/state", headers=BEARER)).json()

        assert state["workers"][0]["components"] == {"BROKEN": {"error": "ZeroDivisionError"}}


class Handle:
    """What a logging component has."""

    def __init__(self) -> None:
        self.changed: list[tuple[str | None, str | None]] = []

    def tail(self, count: int) -> list[str]:
        """Return a line."""
        return ["a line\n"]

    def set_level(self, level: str | None, module: str | None = None) -> None:
        """Note the change."""
        self.changed.append((level, module))


def test_logs_of_a_component() -> None:
    """Its lines are shown, and it changes levels."""

    class Component:
        handle = Handle()

        def add_context(self) -> None: ...

    logs = Logs({"LOGGING_CONFIG": Component()})  # type: ignore[dict-item]

    with logs.running():
        assert logs.tail() == ["a line"]
        logs.set_level("test_ops.x", "DEBUG")

    assert Component.handle.changed == [("DEBUG", "test_ops.x")]


async def test_watchdog() -> None:
    """A callback that blocks the loop is shown with its place; a loop that only waits is not."""
    watchdog = Watchdog(limit=0.05)

    async with watchdog.running():
        await asyncio.sleep(0.2)
        time.sleep(0.3)  # noqa: ASYNC251 - this is what is noticed
        await asyncio.sleep(0.1)

    assert any("test_watchdog" in str(one["where"]) for one in watchdog.slow())


@contextlib.contextmanager
def load(served: Served) -> Iterator[None]:
    """Send requests meanwhile."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{served.url}/pid", timeout=20).read()

    thread = threading.Thread(target=run)
    thread.start()

    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
async def test_in_a_browser(deploy: Callable[..., Served], tmp_path: Path) -> None:
    """Live under load with two workers; the token, an action, phone, dark, keyboard; nothing complains."""
    served = await asyncio.to_thread(
        deploy, "run", workers=2, WS_OPS="true", WS_OPS_TOKEN=TOKEN, WS_ACCESS_LOG="off"
    )
    await asyncio.to_thread(both, served)

    with load(served):
        async with browser(tmp_path / "profile") as page:
            await page.size(1280, 900)
            await page.command("Page.navigate", url=f"{served.url}/_ops")
            await page.until("document.getElementById('link')?.dataset.state === 'live'")
            await page.until("document.querySelectorAll('#workers tbody tr').length === 2")
            row = "[...document.querySelectorAll('#routes tr')].find(row => row.textContent.includes('/pid'))"
            count = f"Number({row}?.cells[1].textContent || 0)"
            first = await page.until(count)
            await page.until(f"{count} > {first}")
            await page.until("document.querySelectorAll('#settings tbody tr').length > 10")
            assert await page.look("document.querySelectorAll('.charts canvas').length") == 4
            assert await page.look("document.querySelector('#level button').disabled") is True

            # With the token, by keyboard: a level is changed, and both workers show it.
            await page.look(f"sessionStorage.setItem('ops token', '{TOKEN}')")
            await page.command("Page.reload")
            await page.until("document.querySelector('#level button')?.disabled === false")
            await page.look("document.getElementById('module').value = 'shop.stock'")
            await page.look("document.getElementById('chosen').value = 'ERROR'")
            await page.look("document.querySelector('#level button').focus()")
            await page.press("Enter", 13)
            await page.until("document.getElementById('said').textContent.includes('shop.stock is ERROR')")
            await page.until("document.getElementById('levels').textContent.includes('shop.stock: ERROR')")

            # On a telephone nothing is wider than the screen, in both themes.
            await page.size(390, 800, mobile=True)

            for theme in ("light", "dark"):
                await page.command(
                    "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
                )
                await page.until("document.documentElement.scrollWidth <= innerWidth")

            # A wrong token from elsewhere: the page asks for it.
            await page.command("Network.enable")
            await page.command("Network.setExtraHTTPHeaders", headers={"x-forwarded-for": "203.0.113.5"})
            await page.look("sessionStorage.setItem('ops token', 'wrong')")
            await page.command("Page.reload")
            await page.until("document.getElementById('link')?.dataset.state === 'locked'")
            assert await page.look("document.getElementById('main').hidden") is True
            await page.look(f"document.getElementById('token').value = '{TOKEN}'")
            await page.press("Enter", 13)
            await page.until("document.getElementById('link').dataset.state === 'live'")
            assert [one for one in page.complaints if "401" not in one] == []
