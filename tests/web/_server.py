"""A server process of the tests, and the application that it serves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHOP = """
import asyncio, os, time
from pathlib import Path
from contextlib import asynccontextmanager
from fastapi import Request, WebSocket
from fastapi.sse import EventSourceResponse
from ws_core.errors import UnavailableError
from ws_web import MessageHandler, Settings, WsChatConnectionManager, create_app

HERE = Path(__file__).parent


@asynccontextmanager
async def lifespan(app):
    if (HERE / "broken").exists():
        raise UnavailableError("pool 'default' cannot reach redis://nowhere")
    if (HERE / "bug").exists():
        raise ZeroDivisionError("a bug")
    yield
    with (HERE / "closed").open("a") as file:
        file.write(f"{os.getpid()}\\n")


app = create_app(lifespan=lifespan)
manager = WsChatConnectionManager(queue_size=20)


def create():
    return app


def needs(argument):
    return app


text = "no application"


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/slow")
async def slow() -> str:
    (HERE / "slow").touch()
    await asyncio.sleep(0.5)
    return "done"


@app.get("/unread")
async def unread() -> str:
    (HERE / "unread").touch()

    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)

    return "for nobody"


@app.get("/stuck")
async def stuck() -> None:
    (HERE / "stuck").touch()
    await asyncio.sleep(600)


@app.post("/length")
async def length(request: Request) -> int:
    return len(await request.body())


@app.get("/events", response_class=EventSourceResponse)
async def events():
    while True:
        yield {"n": 1}
        await asyncio.sleep(0.05)


@app.get("/die")
async def die() -> None:
    os._exit(9)


class Echo(MessageHandler):
    async def on_message(self, key, ws, message):
        await manager.broadcast(f"{key}: {message}")


@app.websocket("/ws/{key}")
async def endpoint(ws: WebSocket, key: str):
    await manager.append(key, ws, Echo())
    await manager.handle_message(key)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Write the application to serve; files in the directory change what it does."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


class Served:
    """A server process of ours."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self.process = process
        self.place = place
        self.said: list[str] = []
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        line = self.wait_for(r"(?:serving on|running on|Listening at:) http://127\.0\.0\.1:(\d+)")
        self.port = int(line.group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def _listen(self) -> None:
        assert self.process.stderr is not None

        for line in self.process.stderr:
            with self._news:
                self.said.append(line)
                self._news.notify_all()

    def wait_for(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until the process says something."""
        deadline = time.monotonic() + timeout

        with self._news:
            while True:
                match = re.search(pattern, "".join(self.said))

                if match is not None:
                    return match

                left = deadline - time.monotonic()
                assert left > 0, f"never said {pattern!r}: {self.said}"
                self._news.wait(min(left, 0.5))

    def get(self, path: str) -> Any:
        """Request, and wait for a server that is just starting: its socket listens already."""
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return json.load(reply)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def serve(shop: Path) -> Iterator[Callable[..., Served]]:
    """Start servers, and end those that a test leaves."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: str = "", app: str = "'shop:app'", **environment: str) -> Served:
        quiet = {"WS_ACCESS_LOG": "off", **environment}
        process = launch(shop, f"from ws_web.server import run; run({app}, port=0, {arguments})", quiet)
        started.append(process)
        return Served(process, shop)

    yield start
    end(started)


SERVERS = {
    "run": "from ws_web.server import run; run('shop:{app}', port=0, workers={workers}, access_log=True)",
    "uvicorn": "import runpy;"
    " sys.argv[1:] = 'shop:{app} --port 0 --workers {workers}'.split();"
    " runpy.run_module('uvicorn', run_name='__main__')",
    "factory": "import runpy;"
    " sys.argv[1:] = 'shop:{app} --factory --port 0 --workers {workers}'.split();"
    " runpy.run_module('uvicorn', run_name='__main__')",
    "gunicorn": (
        "import runpy; sys.argv[1:] = 'shop:{app} -b 127.0.0.1:0 -w {workers} --access-logfile -"
        " -k uvicorn_worker.UvicornWorker'.split(); runpy.run_module('gunicorn', run_name='__main__')"
    ),
}
"""The servers that people deploy with; what they write to stdout is in ``said`` as well."""


@pytest.fixture
def deploy(shop: Path) -> Iterator[Callable[..., Served]]:
    """Start servers of any kind, and end those that a test leaves."""
    started: list[subprocess.Popen[str]] = []

    def start(server: str, *, workers: int = 1, app: str = "app", **environment: str) -> Served:
        run = SERVERS[server].format(workers=workers, app=app)
        code = f"import os, sys; os.dup2(2, 1); sys.path.insert(0, '.'); {run}"
        started.append(launch(shop, code, {"PYTHONPATH": ".", "PYTHONUNBUFFERED": "1", **environment}))
        return Served(started[-1], shop)

    yield start
    end(started)


def end(started: list[subprocess.Popen[str]]) -> None:
    """End processes that a test has left."""
    for process in started:
        if process.poll() is None:
            process.terminate()

            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)

        if process.poll() is None:
            process.kill()

        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def launch(place: Path, code: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start an interpreter in a place."""
    env = {**os.environ, "WS_DRAIN_DELAY": "0", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, env=env, stderr=subprocess.PIPE, text=True
    )


def fails(place: Path, code: str, **environment: str) -> str:
    """Run what must fail: one line on stderr, no traceback, exit code 1. Return the line."""
    with launch(place, f"from ws_web.server import run; {code}", environment) as process:
        _, said = process.communicate(timeout=90)

    lines = said.splitlines()
    assert process.returncode == 1, said
    assert len(lines) == 1, said
    assert lines[0].startswith("wintersweet: error: ")
    return lines[0]


def both(served: Served) -> set[int]:
    """Ask until two workers have answered."""
    deadline = time.monotonic() + 60
    found: set[int] = set()

    while len(found) < 2 and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found.add(served.get("/pid")["data"])

    assert len(found) == 2
    return found
