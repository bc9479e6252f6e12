"""``wintersweet ops`` against a running service, and against what is not a service."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import time
from typing import Any

import pytest
from rich.console import Console

from tests.all._service import TOKEN, answering
from tests.all._support import running
from wintersweet._cli import ops
from wintersweet._cli.ops import render, show_ops
from wintersweet._cli.service import base_url, is_local, url_of_settings
from ws_core.errors import ConfigError, UnavailableError
from ws_web import Settings

READY = (200, b'{"data": {"status": "ready"}}')
STATE: dict[str, Any] = {"workers": [], "metrics": []}


pytestmark = pytest.mark.usefixtures("wide_terminal")


class TestService:
    """What a running service shows."""

    def test_tables(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Health, workers, pools, tasks and locks are there, by their names."""
        status = show_ops(url, token=TOKEN, watch=None, as_json=False)
        said = capsys.readouterr().out

        assert status == 0
        assert f"✓ ready  {url}, 1 worker\n" in said
        assert all(title in said for title in ("Workers", "Pools", "Tasks", "Locks that are held"))
        assert all(name in said for name in ("redis default", "tidy up", "the-till"))
        assert "Not reached" not in said

    def test_json(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It is one line, with all that the ops page has."""
        assert show_ops(f"{url}/_ops/", token=TOKEN, watch=None, as_json=True) == 0
        (line,) = capsys.readouterr().out.splitlines()
        state = json.loads(line)

        assert (state["url"], state["status"], len(state["workers"])) == (url, "ready", 1)
        assert [task["name"] for task in state["workers"][0]["tasks"]] == ["tidy up"]
        assert TOKEN not in line

    def test_the_settings_say_where_it_is(
        self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """And how to be let in."""
        host, port = url.removeprefix("http://").split(":")
        monkeypatch.setenv("WS_LISTEN_HOST", host)
        monkeypatch.setenv("WS_LISTEN_PORT", port)
        monkeypatch.setenv("WS_OPS_TOKEN", TOKEN)

        assert show_ops(None, token=None, watch=None, as_json=False) == 0
        assert "the-till" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("token", "said"), [(None, "a token is needed: use --token"), ("guessed", "the token is wrong")]
    )
    def test_without_the_token(self, url: str, token: str | None, said: str) -> None:
        """The message says which of the two it is, and what to do."""
        with pytest.raises(ConfigError, match=said) as caught:
            show_ops(url, token=token, watch=None, as_json=False)

        assert "guessed" not in str(caught.value)

    def test_watching(self, url: str) -> None:
        """One state comes after the other, until Ctrl-C."""
        with running("ops", url, "--token", TOKEN, "--watch", "0.2", "--json") as process:
            assert process.stdout is not None
            states = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)

        assert [state["status"] for state in states] == ["ready", "ready"]
        assert (process.returncode, "Traceback" in err) == (130, False)


class TestErrors:
    """What stands in the way is named, with the remedy."""

    def test_nobody_is_there(self) -> None:
        """A port that is bound, but not listened to, refuses."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]

            with pytest.raises(
                UnavailableError, match=f"no service answers at http://127.0.0.1:{port} .*start it"
            ):
                show_ops(f"127.0.0.1:{port}", token=None, watch=None, as_json=False)

    def test_the_page_is_off(self) -> None:
        """The setting is named."""
        with (
            answering({"/readyz": READY}) as url,
            pytest.raises(UnavailableError, match=r"no ops page: set OPS = True \(WS_OPS=true\)"),
        ):
            show_ops(url, token=None, watch=None, as_json=False)

    @pytest.mark.parametrize(
        "reply", [(200, b"<html>"), (200, b"[]"), (302, b"{}"), (200, b'{"workers": 1}')]
    )
    def test_something_else_is_there(self, reply: tuple[int, bytes]) -> None:
        """It is not shown as a service without workers."""
        with (
            answering({"/_ops/state": reply}) as url,
            pytest.raises(UnavailableError, match="not that of a service on wintersweet"),
        ):
            show_ops(url, token=None, watch=None, as_json=False)

    @pytest.mark.parametrize(
        ("probe", "said"),
        [
            ((503, b'{"data": {"status": "draining"}}'), "✗ draining"),
            ((404, b"{}"), "✗ unknown (status 404)"),
        ],
    )
    def test_not_ready(self, probe: tuple[int, bytes], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The state is shown all the same, and the status is 1."""
        with answering({"/readyz": probe, "/_ops/state": (200, json.dumps(STATE).encode())}) as url:
            assert show_ops(url, token=None, watch=None, as_json=False) == 1

        assert said in capsys.readouterr().out


class TestWatch:
    """The newest state, on a terminal and in a file."""

    async def test_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is refreshed; a service that goes is shown as gone, and the command goes on."""
        shown = io.StringIO()
        monkeypatch.setattr(
            ops, "stdout", lambda: Console(file=shown, force_terminal=True, width=200, height=50)
        )
        replies: dict[str, tuple[int, bytes] | None] = {
            "/readyz": READY,
            "/_ops/state": (200, json.dumps(STATE).encode()),
        }

        with answering(replies) as url:
            first = {"url": url, "status": "starting", **STATE}
            watching = asyncio.create_task(ops._refresh(first, "", 0.01))

            try:
                await seen(shown, "✓ ready")
                replies["/_ops/state"] = None
                await seen(shown, "no service answers")
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

        assert "✗ starting" in shown.getvalue()

    def test_a_terminal_is_told_from_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only a terminal is drawn upon."""
        called: list[str] = []

        async def refresh(*_: object) -> None:
            called.append("refresh")

        async def follow(*_: object, **__: object) -> None:
            called.append("follow")

        monkeypatch.setattr(ops, "_refresh", refresh)
        monkeypatch.setattr(ops, "_follow", follow)

        with answering({"/readyz": READY, "/_ops/state": (200, json.dumps(STATE).encode())}) as url:
            for terminal in (True, False):
                monkeypatch.setattr(ops, "stdout", lambda kind=terminal: Console(force_terminal=kind))
                show_ops(url, token=None, watch=1.0, as_json=False)

        assert called == ["refresh", "follow"]


async def seen(shown: io.StringIO, text: str) -> None:
    """Wait until a text was shown."""
    async with asyncio.timeout(60):
        while text not in shown.getvalue():
            await asyncio.sleep(0.01)


def told(state: dict[str, Any]) -> list[str]:
    """Return the lines of a state, each with single spaces."""
    console = Console(file=io.StringIO(), width=200)
    console.print(render({"url": "http://till", "status": "ready", **STATE, **state}))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def worker(**more: object) -> dict[str, Any]:
    """Return what an idle worker says of itself."""
    idle = {"pid": 7, "python": "3.13.1", "started_at": time.time(), "lag": 0.0, "requests": []}
    return {**idle, "components": {}, "tasks": [], "jobs": [], "locks": [], **more}


class TestTables:
    """What is made of a state."""

    def test_nothing(self) -> None:
        """Tables without rows are left out."""
        assert told({}) == ["✓ ready http://till, 0 workers"]

    def test_requests_under_way(self) -> None:
        """The oldest one is named."""
        requests = [{"method": "GET", "route": f"/{age}", "age": age} for age in (1.0, 2.5)]
        line = told({"workers": [worker(requests=requests, lag=0.0012)]})[-1]

        assert line.startswith("7 3.13.1 ")
        assert line.endswith("1.2 ms 2 GET /2.5 2.500 s")

    def test_pools(self) -> None:
        """Those of databases, Redis and HTTP are in one table, from metrics of all workers."""
        pool = {"db.system.name": "mysql", "db.client.connection.pool.name": "default"}
        prefix = "db.client.connection"
        metrics = [
            {"name": f"{prefix}.count", "labels": {**pool, f"{prefix}.state": "used"}, "value": 3},
            {"name": f"{prefix}.count", "labels": {**pool, f"{prefix}.state": "idle"}, "value": 4},
            {"name": f"{prefix}.max", "labels": pool, "value": 10},
            {"name": f"{prefix}.pending_requests", "labels": pool, "value": 2},
            {"name": f"{prefix}.timeouts", "labels": pool, "value": 1},
            {
                "name": "http.client.open_connections",
                "labels": {"wintersweet.http.client.name": "mail", "http.connection.state": "active"},
                "value": 5,
            },
            {"name": "wintersweet.lock.lost", "labels": {}, "value": 9},
        ]

        assert told({"metrics": metrics})[-2:] == ["http mail 5", "mysql default 3 4 10 2 1"]

    def test_what_is_down(self) -> None:
        """Each worker's view, with its reason; other components have none."""
        components = {
            "DATABASES": {"default": {"down": "refused [1]"}, "other": {"down": ""}},
            "LOGGING_CONFIG": {"level": "INFO"},
            "CUSTOM": "anything",
        }

        assert told({"workers": [worker(components=components)]})[-1] == "DATABASES.default 7 refused [1]"

    def test_tasks_of_all_workers(self) -> None:
        """They are summed up by name; a queue shows its dead letters."""
        task = {"name": "tidy up", "state": "waiting", "next_run": None, "running": 1}
        first = {
            **task,
            "succeeded": 2,
            "failed": 0,
            "last_error": None,
            "next_run": "2020-05-06T07:08:09+00:00",
        }
        second = {**task, "succeeded": 3, "failed": 1, "last_error": "no broom"}
        queue = {"name": "queue mail", "state": "2 normal", "dead": 3}
        lines = told({"workers": [worker(tasks=[first]), worker(pid=8, tasks=[second], jobs=[queue])]})

        assert lines[-2] == "queue mail 2 normal, 3 dead 0 0 0"
        assert lines[-1].startswith("tidy up waiting 2020-05-0")
        assert lines[-1].endswith(" 2 5 1 no broom")

    def test_locks(self) -> None:
        """Their holders, and for how long they hold them."""
        assert told({"workers": [worker(locks=[{"name": "till", "seconds": 1.5}])]})[-1] == "till 7 1.500 s"

    @pytest.mark.parametrize(
        ("seconds", "said"), [(0, "0 s"), (65, "1 min 5 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")]
    )
    def test_spans(self, seconds: float, said: str) -> None:
        """Two units say enough."""
        assert ops._span(seconds) == said


class TestUrls:
    """Where a service is."""

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ("localhost:8080", "http://localhost:8080"),
            ("https://shop.example/", "https://shop.example"),
            ("http://[::1]:8080/_ops/", "http://[::1]:8080"),
            ("http://localhost/shop/_ops", "http://localhost/shop"),
        ],
    )
    def test_what_is_taken(self, given: str, url: str) -> None:
        """A scheme may be left out; the address of the page itself is the service's too."""
        assert base_url(given, "/_ops") == url

    @pytest.mark.parametrize("given", ["", "ftp://x", "http://", "http://u:hunter2@x:port", "http://x:0"])
    def test_what_is_refused(self, given: str) -> None:
        """The message has an example, and no password."""
        with pytest.raises(ConfigError, match="such as http://localhost:8080") as caught:
            base_url(given)

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "url"),
        [("0.0.0.0", "http://127.0.0.1:81"), ("::", "http://[::1]:81"), ("10.0.0.7", "http://10.0.0.7:81")],
    )
    def test_of_settings(self, host: str, url: str) -> None:
        """What listens everywhere is on this machine."""
        assert url_of_settings(Settings(LISTEN_HOST=host, LISTEN_PORT=81)) == url

    def test_a_port_that_nobody_knows(self) -> None:
        """The service alone knows it."""
        with pytest.raises(ConfigError, match=r"LISTEN_PORT is 0.*name the URL"):
            url_of_settings(Settings(LISTEN_PORT=0))

    @pytest.mark.parametrize(
        ("url", "local"),
        [
            ("http://localhost:1", True),
            ("http://127.3.2.1/x", True),
            ("http://[::1]/", True),
            ("http://10.0.0.1", False),
            ("http://localhost.example", False),
            ("http://127.0.0.1.example", False),
            ("http://localhost@example", False),
        ],
    )
    def test_this_machine(self, url: str, local: bool) -> None:
        """A name that merely looks like it is not."""
        assert is_local(url) == local
