"""``wintersweet check`` and ``routes``, in process where that is possible."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.all._support import WORD_APP, wintersweet
from wintersweet._cli import check, project, routes
from ws_core.component import Health
from ws_core.errors import ConfigError, UnavailableError
from ws_web import Settings, create_app
from ws_web import settings as current_settings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield an empty project directory, which the command stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in list(os.environ):
        if name.startswith(("WS_", "WINTERSWEET_")):
            monkeypatch.delenv(name)

    current_settings.use(None)
    yield tmp_path
    current_settings.use(None)


class FakeComponent:
    """A component that follows its script."""

    after: Collection[str] = ()
    settings_key = "FAKE"
    name = "fake"

    def __init__(self, health: Health | None = None, error: Exception | None = None) -> None:
        self._health = health
        self._error = error
        self.closed = 0

    def configure(self, section: object) -> None:
        """Take anything."""

    async def start(self) -> None:
        """Start, or not."""
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Count."""
        self.closed += 1

    async def health(self) -> Health:
        """Return the script's answer."""
        assert self._health is not None
        return self._health

    def status(self) -> dict[str, object]:
        """Return nothing."""
        return {}


class TestReach:
    """Trying to reach every server."""

    async def test_pools_are_told_one_by_one(self) -> None:
        """Each part of a component's health is a line of its own, with its time."""
        parts = {"default": Health(ok=True, latency=0.0021), "other": Health(ok=False, detail="no route")}
        component = FakeComponent(Health(ok=False, parts=parts))

        assert await check.reach({"FAKE": component}) == [
            check.Reached("FAKE.default", ok=True, milliseconds=2.1, detail=""),
            check.Reached("FAKE.other", ok=False, milliseconds=None, detail="no route"),
        ]
        assert component.closed == 1

    async def test_a_component_without_parts(self) -> None:
        """It is reported as a whole."""
        (one,) = await check.reach({"FAKE": FakeComponent(Health(ok=True, latency=0.5))})

        assert (one.name, one.ok, one.milliseconds) == ("FAKE", True, 500.0)

    @pytest.mark.parametrize(
        ("error", "detail"),
        [(UnavailableError("it is away"), "it is away"), (TimeoutError(), "no answer in 10 s")],
    )
    async def test_a_component_that_does_not_start(self, error: Exception, detail: str) -> None:
        """The reason is reported, and it is closed all the same."""
        component = FakeComponent(error=error)

        assert await check.reach({"FAKE": component}) == [
            check.Reached("FAKE", ok=False, milliseconds=None, detail=detail)
        ]
        assert component.closed == 1


class TestCheck:
    """The whole command."""

    def test_without_pools(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """There is nothing to reach, and that is all right."""
        assert check.check_all() == 0
        assert "nothing to reach" in capsys.readouterr().out

    def test_a_table_of_servers(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Settings with their sources, servers with their times, secrets masked."""
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("WS_SECRET", "hunter2")
        monkeypatch.setenv("WS_DATABASES__default__url", f"sqlite:///{place}/x.db")

        assert check.check_all() == 0
        out = capsys.readouterr().out
        assert re.search(r"DATABASES\.default\.url +sqlite:///\S+ +environment", out)
        assert re.search(r"DATABASES\.default +ok +[\d.]+ ms", out)
        assert "hunter2" not in out

    def test_a_server_that_is_away(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The status is 1, and the JSON says which and why."""
        monkeypatch.setenv("WS_REDIS_CONFIG__default__url", f"unix://{place}/no.sock")

        assert check.check_all(as_json=True) == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] is False
        assert [(one["name"], one["ok"]) for one in answer["reached"]] == [("REDIS_CONFIG", False)]
        assert "no.sock" in answer["reached"][0]["detail"]

    @pytest.mark.parametrize("database", ["mysql_url", "postgres_url"])
    def test_on_real_servers(
        self, database: str, request: pytest.FixtureRequest, tmp_path: Path, redis_url: str
    ) -> None:
        """The command line prints one JSON document on stdout, whichever database the URL names."""
        url = request.getfixturevalue(database)
        outcome = wintersweet(
            "check",
            "--json",
            cwd=tmp_path,
            env={"WS_DATABASES__default__url": url, "WS_REDIS_CONFIG__default__url": redis_url},
        )
        reached = outcome.json()["reached"]

        assert (outcome.status, outcome.err) == (0, "")
        assert [(one["name"], one["ok"]) for one in reached] == [
            ("DATABASES.default", True),
            ("REDIS_CONFIG.default", True),
        ]
        assert all(one["milliseconds"] > 0 for one in reached)


class TestRoutes:
    """The routes of an application."""

    def test_names_of_endpoints(self) -> None:
        """A partial function has the name of its function; the ops page those of its own."""

        def home(word: str) -> str:
            return word

        app = create_app(Settings(OPS=True))
        app.add_api_route("/home", functools.partial(home, "here"))
        found = {line.path: line.endpoint.rpartition(".")[2] for line in routes.lines(app.routes)}
        assert (found["/home"], found["/_ops/state"], found["/_ops/level"]) == ("home", "state", "level")

    def test_kinds_of_routes(self) -> None:
        """Routes, included routers, sockets and mounts are listed, in order."""
        from fastapi import APIRouter, WebSocket
        from starlette.applications import Starlette

        router = APIRouter(prefix="/items")

        @router.get("/{number}")
        @router.delete("/{number}")
        def item(number: int) -> int:
            """Return it. And more."""
            return number

        app = create_app(Settings(), health=False, docs_url=None, redoc_url=None, openapi_url=None)
        app.include_router(router, prefix="/v1")

        @app.websocket("/live")
        async def live(socket: WebSocket) -> None: ...

        app.mount("/files", Starlette())
        found = [(line.methods, line.path, line.summary) for line in routes.lines(app.routes)]

        assert sorted(found) == [
            ("DELETE", "/v1/items/{number}", "Return it. And more."),
            ("GET", "/v1/items/{number}", "Return it. And more."),
            ("MOUNT", "/files", ""),
            ("WS", "/live", ""),
        ]

    def test_a_table(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The application is the project's, found by its table."""
        monkeypatch.setenv("COLUMNS", "200")
        (place / "pyproject.toml").write_text('[tool.wintersweet]\napp = "table_app:create"\n')
        (place / "table_app.py").write_text(WORD_APP)
        routes.show(None)

        assert re.search(r"GET +/word +table_app\.word +Say a word\.", capsys.readouterr().out)

    def test_at_80_columns(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The user's own routes come first, and no word is broken; a name is put as it is."""
        monkeypatch.setenv("COLUMNS", "80")
        (place / "narrow_app.py").write_text(
            WORD_APP.replace("Say a word.", "Say [bold]" + 20 * " a word" + ".")
        )
        routes.show("narrow_app:create")
        lines = capsys.readouterr().out.splitlines()

        assert max(map(len, lines)) <= 80
        assert re.match(r" GET +/word +narrow_app\.word *$", lines[2])
        assert re.match(r" +Say \[bold\]( a word)+ *$", lines[3])
        assert re.match(r" GET +/livez +ws_web\.health\.livez *$", lines[-3])

    def test_a_route_of_another_kind(self) -> None:
        """What has neither a path nor an endpoint, such as a host of its own, is passed over."""
        from starlette.applications import Starlette
        from starlette.routing import Host, Route

        async def home(request: Request) -> Response:
            """Come home."""
            raise NotImplementedError

        found = routes.lines([Host("files.example", Starlette()), Route("/home", home)])

        assert [(line.methods, line.path, line.summary) for line in found] == [("GET", "/home", "Come home.")]

    def test_something_else(self, place: Path) -> None:
        """An object that is not an application is an error that names its type."""
        (place / "thing.py").write_text("def create():\n    return 42\n")

        with pytest.raises(ConfigError, match="thing:create returns a int, not a FastAPI application"):
            routes.show("thing:create")


class TestProject:
    """The project's table."""

    def test_its_settings_module_is_the_environments(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The module is used unless the environment names another."""
        (place / "pyproject.toml").write_text('[tool.wintersweet]\nsettings = "mine.settings"\n')
        monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", "")
        monkeypatch.delenv("WINTERSWEET_SETTINGS_MODULE")
        project.use()
        assert os.environ["WINTERSWEET_SETTINGS_MODULE"] == "mine.settings"

        monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", "other.settings")
        project.use()
        assert os.environ["WINTERSWEET_SETTINGS_MODULE"] == "other.settings"

    def test_a_src_layout(self, place: Path) -> None:
        """Modules below src are found too."""
        (place / "src").mkdir()
        project.use()

        assert sys.path[:2] == [str(place), str(place / "src")]
