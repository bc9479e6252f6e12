"""Nothing is lost under the servers that people deploy with: uvicorn, gunicorn, hypercorn, on a slow disk.

Each server gets a request that queues 20,000 messages while the disk does not answer, and then SIGTERM.
When the disk goes on, every message must be in the file, and so must the last line of all: the one
that the application logs at the end of its lifespan.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.deployment

Hold = Callable[[Path], AbstractContextManager[None]]

MESSAGES = 20_000

# An ASGI application without a framework. WHERE says when logging is set up.
APP = """
import os
from pathlib import Path
from ws_logging import QueuedFileSink, logger, register_logger

directory = Path(os.environ["LOG_DIRECTORY"])
where = os.environ["LOG_WHERE"]

if os.environ.get("LOG_BROKEN"):
    QueuedFileSink.stop = lambda self: None  # the twin: it does not drain

def set_up():
    register_logger("info", file_path=directory, file_name="app.log", file_rotation=None)

if where == "import":
    set_up()

filled = False

def fill():
    global filled
    for number in range(0 if filled else int(os.environ["LOG_MESSAGES"])):
        logger.info("m {} web {} ", os.getpid(), number)
    filled = True

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if where == "lifespan":
                    set_up()
                await send({"type": "lifespan.startup.complete"})
            else:
                logger.info("m {} last 0 ", os.getpid())
                await send({"type": "lifespan.shutdown.complete"})
                return
    if scope["path"] == "/log":
        fill()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

WSGI = """
import os
import asgi

def app(environ, start_response):
    if environ["PATH_INFO"] == "/log":
        asgi.fill()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def uvicorn(port: int, *options: str) -> list[str]:
    """Return the command line of uvicorn."""
    return [sys.executable, "-m", "uvicorn", "asgi:app", "--port", str(port), *options]


def gunicorn(port: int, application: str, *options: str) -> list[str]:
    """Return the command line of gunicorn."""
    return [sys.executable, "-m", "gunicorn", application, "--bind", f"127.0.0.1:{port}", *options]


def hypercorn(port: int, *options: str) -> list[str]:
    """Return the command line of hypercorn."""
    return [sys.executable, "-m", "hypercorn", "asgi:app", "--bind", f"127.0.0.1:{port}", *options]


class Deployment:
    """A server that is running, and its log."""

    def __init__(
        self, directory: Path, words: list[str], port: int, where: str, *, broken: bool = False
    ) -> None:
        self.directory, self.port = directory, port
        self.log = directory / "app.log"
        environment = {
            **os.environ,
            "LOG_DIRECTORY": str(directory),
            "LOG_MESSAGES": str(MESSAGES),
            "LOG_WHERE": where,
            "LOG_BROKEN": "1" if broken else "",
            "PYTHONWARNINGS": "ignore",
            "HOME": str(directory),  # where gunicorn puts a socket
        }
        self.process = subprocess.Popen(
            words, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def get(self, path: str) -> int:
        """Send a request; return the id of the process that answered."""
        deadline = time.monotonic() + 60

        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
                    return int(response.read())
            except OSError:
                assert self.process.poll() is None, self.output()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def fill_workers(self, count: int) -> set[int]:
        """Let that many workers queue their messages."""
        pids: set[int] = set()
        deadline = time.monotonic() + 60

        while len(pids) < count:
            pids.add(self.get("/log"))  # each worker does it once
            assert time.monotonic() < deadline

        return pids

    def output(self) -> str:
        """Return what the server printed."""
        return self.process.communicate(timeout=60)[0].decode()

    def messages(self) -> dict[tuple[int, str], list[int]]:
        """Return the numbers that the log has of each process and place."""
        found: dict[tuple[int, str], list[int]] = {}

        for line in self.log.read_text().splitlines():
            _, mark, text = line.partition(" - m ")

            if mark:
                pid, thread, number = text.split()[:3]
                found.setdefault((int(pid), thread), []).append(int(number))

        return found

    def end(self) -> None:
        """Kill what is left of it."""
        if self.process.poll() is None:
            family = [psutil.Process(self.process.pid)]
            family += family[0].children(recursive=True)

            for member in family:
                member.kill()

        if self.process.stdout is not None:
            self.process.stdout.close()

        self.process.wait()


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Start servers, and end them after the test."""
    (tmp_path / "asgi.py").write_text(APP)
    (tmp_path / "wsgi.py").write_text(WSGI)
    started: list[Deployment] = []

    def start(
        command: Callable[..., list[str]], *options: str, where: str, broken: bool = False
    ) -> Deployment:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        started.append(Deployment(tmp_path, command(port, *options), port, where, broken=broken))
        return started[-1]

    yield start

    for one in started:
        one.end()


def terminate_on_a_slow_disk(server: Deployment, hold: Hold, workers: int, number: int) -> set[int]:
    """Queue messages while the disk does not answer, send the signal, and let the disk go on."""
    server.get("/pid")

    with hold(server.log):
        pids = server.fill_workers(workers)
        server.process.send_signal(number)
        time.sleep(0.5)  # the server shuts down meanwhile; nothing here waits for a particular time

    server.process.wait(60)
    return pids


class TestServers:
    """SIGTERM, and 20,000 messages that wait for the disk in each worker."""

    @pytest.mark.parametrize("where", ["import", "lifespan"])
    @pytest.mark.parametrize(
        ("command", "options", "workers"),
        [
            (uvicorn, (), 1),
            (uvicorn, ("--workers", "2"), 2),
            (uvicorn, ("--reload",), 1),
            (gunicorn, ("asgi:app", "-k", "uvicorn_worker.UvicornWorker"), 1),
            (gunicorn, ("asgi:app", "-k", "uvicorn_worker.UvicornWorker", "--preload", "-w", "2"), 2),
            (hypercorn, (), 1),
            (hypercorn, ("--workers", "2"), 2),
        ],
        ids=[
            "uvicorn",
            "uvicorn-2",
            "uvicorn-reload",
            "gunicorn",
            "gunicorn-preload-2",
            "hypercorn",
            "hypercorn-2",
        ],
    )
    def test_sigterm(
        self,
        deploy: Callable[..., Deployment],
        hold: Hold,
        command: Callable[..., list[str]],
        options: tuple[str, ...],
        workers: int,
        where: str,
    ) -> None:
        """Every message of every worker is written, and the line that is logged at the very end."""
        server = deploy(command, *options, where=where)
        pids = terminate_on_a_slow_disk(server, hold, workers, signal.SIGTERM)
        found = server.messages()

        for pid in pids:
            assert found.get((pid, "web")) == list(range(MESSAGES)), server.output()
            assert found.get((pid, "last")) == [0], server.output()

    @pytest.mark.parametrize(
        "options", [("wsgi:app",), ("wsgi:app", "--preload"), ("wsgi:app", "--threads", "2")]
    )
    def test_wsgi(self, deploy: Callable[..., Deployment], hold: Hold, options: tuple[str, ...]) -> None:
        """Gunicorn's own workers, with and without preloading."""
        server = deploy(gunicorn, *options, where="import")
        pids = terminate_on_a_slow_disk(server, hold, 1, signal.SIGTERM)

        assert server.messages() == {(pid, "web"): list(range(MESSAGES)) for pid in pids}, server.output()

    @pytest.mark.parametrize("options", [(), ("--log-config", "log.json"), ("run",)])
    def test_uvicorns_own_lines(
        self, deploy: Callable[..., Deployment], tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        """They are in the log, also when uvicorn configures logging after us, or by a file of the user."""
        handler = {"class": "logging.StreamHandler"}
        own = {"handlers": ["own"], "level": "INFO", "propagate": False}
        loggers = {"uvicorn": own, "uvicorn.access": own}
        (tmp_path / "log.json").write_text(
            json.dumps({"version": 1, "handlers": {"own": handler}, "loggers": loggers})
        )
        (tmp_path / "run.py").write_text(
            "import sys, uvicorn\nimport asgi\nuvicorn.run(asgi.app, port=int(sys.argv[1]))\n"
        )
        command = uvicorn if options != ("run",) else lambda port, _: [sys.executable, "run.py", str(port)]
        server = deploy(command, *options, where="import")
        server.get("/pid")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        text = server.log.read_text()

        assert "uvicorn" in text
        assert "GET /pid HTTP/1.1" in text
        assert "Finished server process" in text

    def test_sigint(self, deploy: Callable[..., Deployment], hold: Hold) -> None:
        """Ctrl-C ends a server like SIGTERM does."""
        server = deploy(uvicorn, where="import")
        (pid,) = terminate_on_a_slow_disk(server, hold, 1, signal.SIGINT)

        assert server.messages() == {(pid, "web"): list(range(MESSAGES)), (pid, "last"): [0]}, server.output()

    def test_the_broken_twin_is_found_out(self, deploy: Callable[..., Deployment], hold: Hold) -> None:
        """A sink that does not drain fails these very checks."""
        server = deploy(uvicorn, where="import", broken=True)
        (pid,) = terminate_on_a_slow_disk(server, hold, 1, signal.SIGTERM)

        assert server.messages().get((pid, "web")) != list(range(MESSAGES))
