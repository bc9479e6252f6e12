"""The server, for real: processes, signals, sockets, and every way not to start."""

from __future__ import annotations

import asyncio
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
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ws_core.errors import ConfigError, MissingExtraError, UsageError
from ws_web import server
from ws_web._supervisor import Supervisor, check_options, restart_delay
from ws_web.server import bind, load_app

SHOP = """
import asyncio, os, time
from pathlib import Path
from contextlib import asynccontextmanager
from fastapi import WebSocket
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
    """Write the application to serve; the directory is the place to tell it what to do."""
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
        line = self.wait_for(r"serving on http://127\.0\.0\.1:(\d+)")
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
        process = launch(shop, f"from ws_web.server import run; run({app}, port=0, {arguments})", environment)
        started.append(process)
        return Served(process, shop)

    yield start

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
    env = {**os.environ, **environment}
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


class TestOneProcess:
    """Serving in the process that called `run`."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_and_stops_cleanly(self, serve: Any, number: int) -> None:
        """Exit code 0, the lifespan's end has run, nothing on stderr but where it listened."""
        served = serve()
        assert served.get("/pid")["data"] == served.process.pid
        assert served.stop(number) == 0
        assert (served.place / "closed").read_text() == f"{served.process.pid}\n"
        assert len(served.said) == 1

    def test_running_requests_are_finished(self, serve: Any) -> None:
        """SIGTERM waits for them."""
        served = serve()
        served.get("/pid")
        replies: list[Any] = []
        thread = threading.Thread(target=lambda: replies.append(served.get("/slow")))
        thread.start()

        while not (served.place / "slow").exists():
            time.sleep(0.01)

        assert served.stop() == 0
        thread.join(30)
        assert replies[0]["data"] == "done"

    def test_headers_of_the_server(self, serve: Any) -> None:
        """No server header; the request id is ours."""
        served = serve()

        with urllib.request.urlopen(served.url + "/pid", timeout=30) as reply:
            assert reply.headers["server"] is None
            assert len(reply.headers.get_all("x-request-id")) == 1

    def test_factories_and_objects(self, serve: Any) -> None:
        """A function without parameters makes the application; an object is served as it is."""
        assert serve(app="'shop:create'").get("/pid")["code"] == 0
        assert serve(app="__import__('shop').app").get("/pid")["code"] == 0

    async def test_websockets(self, serve: Any) -> None:
        """A conversation over a real connection; a peer that is cut off hurts nobody."""
        websockets = pytest.importorskip("websockets.asyncio.client", reason="part of ws-web[server]")
        served = serve()
        url = f"ws://127.0.0.1:{served.port}/ws/"
        await asyncio.to_thread(served.get, "/pid")

        async with websockets.connect(url + "ann") as ann, websockets.connect(url + "bob") as bob:
            await ann.send("hi")
            assert await bob.recv() == await ann.recv() == "ann: hi"
            bob.transport.abort()
            await ann.send("again")
            assert await ann.recv() == "ann: again"

    async def test_a_peer_that_does_not_read(self, serve: Any) -> None:
        """A real socket whose buffers are full is closed; the others get every message."""
        websockets = pytest.importorskip("websockets.asyncio.client", reason="part of ws-web[server]")
        served = serve()
        url = f"ws://127.0.0.1:{served.port}/ws/"
        await asyncio.to_thread(served.get, "/pid")
        big = "x" * 200_000

        async with websockets.connect(url + "ann", compression=None) as ann:
            lazy = await websockets.connect(url + "lazy", compression=None, max_queue=1, ping_interval=None)
            lazy.transport.pause_reading()

            for number in range(150):
                await ann.send(f"{number} {big}")
                assert (await ann.recv()).startswith(f"ann: {number} ")

            lazy.transport.abort()


class TestWorkers:
    """Several processes on one port."""

    def test_requests_are_shared_and_a_killed_worker_is_replaced(self, serve: Any) -> None:
        """The others go on serving; SIGKILL in mid-work is noticed at once."""
        served = serve("workers=2")
        pids = both(served)
        victim = pids.pop()
        os.kill(victim, signal.SIGKILL)
        survivor = pids.pop()

        for _ in range(20):
            with contextlib.suppress(OSError):  # a connection that the dead one had accepted
                assert served.get("/pid")["data"] != victim

        served.wait_for(rf"worker {victim} was killed by SIGKILL; replacing it now")
        assert victim not in both(served)
        assert survivor in both(served)
        assert served.stop() == 0
        assert len((served.place / "closed").read_text().split()) == 2

    def test_connections_are_spread_evenly(self, serve: Any) -> None:
        """The kernel decides by the connection's ports; neither worker gets more than three quarters."""
        served = serve("workers=2")
        both(served)
        counts = Counter(served.get("/pid")["data"] for _ in range(200))
        assert len(counts) == 2
        assert max(counts.values()) < 150, "a fair coin gets there once in 10**13 times"

    def test_two_parents_do_not_share_a_port(self, serve: Any, shop: Path) -> None:
        """Workers share their port with each other, not with those of a second server."""
        served = serve("workers=2")
        line = fails(shop, f"run('shop:app', port={served.port}, workers=2)")
        assert f"127.0.0.1:{served.port} is in use by another program" in line

    def test_a_worker_that_ends_itself_is_replaced(self, serve: Any) -> None:
        """Whatever its exit code."""
        served = serve("workers=2")
        both(served)

        with pytest.raises(OSError):
            served.get("/die")

        served.wait_for(r"worker \d+ ended with code 9; replacing it now")
        assert len(both(served)) == 2

    def test_ctrl_c_stops_all_of_them(self, serve: Any) -> None:
        """Exit code 0, and no process is left."""
        served = serve("workers=2")
        pids = both(served)
        assert served.stop(signal.SIGINT) == 0
        assert not any(psutil.pid_exists(pid) for pid in pids)

    def test_no_orphans(self, serve: Any) -> None:
        """When the parent is killed, the workers stop by themselves, in the normal way."""
        served = serve("workers=2")
        workers = [psutil.Process(pid) for pid in both(served)]
        served.stop(signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert alive == []
        assert len((served.place / "closed").read_text().split()) == 2

    def test_a_broken_replacement_is_tried_again(self, serve: Any) -> None:
        """The one that serves goes on, and when the cause is gone there are two again."""
        served = serve("workers=2")
        victim = both(served).pop()
        (served.place / "broken").touch()
        os.kill(victim, signal.SIGKILL)
        served.wait_for(
            r"worker \d+ ended with code 3: pool 'default' cannot reach redis://nowhere; replacing it in"
        )
        assert served.get("/pid")["code"] == 0
        (served.place / "broken").unlink()
        assert len(both(served)) == 2


def both(served: Served) -> set[int]:
    """Ask until two workers have answered."""
    deadline = time.monotonic() + 60
    found: set[int] = set()

    while len(found) < 2 and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found.add(served.get("/pid")["data"])

    assert len(found) == 2
    return found


class TestNotStarting:
    """One clear line and exit code 1, never a traceback."""

    @pytest.fixture
    def here(
        self, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Iterator[Callable[[str], str]]:
        """Run what must fail in this process; the same checks as `fails`."""
        monkeypatch.chdir(shop)
        monkeypatch.setattr(sys, "path", [str(shop), *sys.path])

        def call(code: str) -> str:
            with pytest.raises(SystemExit) as ended:
                exec(code, {"run": server.run})

            assert ended.value.code == 1
            line = capsys.readouterr().err
            assert line.startswith("wintersweet: error: ")
            assert line.count("\n") == 1
            return line

        yield call
        sys.modules.pop("shop", None)

    def test_an_occupied_port(self, shop: Path) -> None:
        """The message names address and setting."""
        with bind("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            line = fails(shop, f"run('shop:app', port={port})")
            again = fails(shop, "run('shop:app', workers=2)", WS_LISTEN_PORT=str(port))

        assert (
            f"127.0.0.1:{port} is in use by another program: stop it, or choose another LISTEN_PORT" in line
        )
        assert f"127.0.0.1:{port} is in use" in again

    def test_an_address_of_another_machine(self, shop: Path) -> None:
        """The message names the setting."""
        assert "choose another LISTEN_HOST" in fails(shop, "run('shop:app', host='192.0.2.1')")

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_database_that_does_not_answer(self, shop: Path, workers: int) -> None:
        """What the lifespan says, once, however many workers there are."""
        (shop / "broken").touch()
        line = fails(shop, f"run('shop:app', port=0, workers={workers})")
        assert line == "wintersweet: error: pool 'default' cannot reach redis://nowhere"

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("run('shop')", "'shop' does not say where the application is: write 'module:name'"),
            ("run('shop:nothing')", "application: there is no 'nothing' in the module 'shop'"),
            ("run('nosuch:app')", "application: 'nosuch:app' cannot be imported: No module named 'nosuch'"),
            ("run('shop:text')", "is no ASGI application but str"),
            ("run('shop:app', workers=0)", "workers must be at least 1, not 0"),
            ("import shop; run(shop.app, workers=2)", "2 workers need the application's place"),
            ("run('shop:app', workers=2, ssl=object())", "the option ssl must be of a JSON type, not object"),
        ],
    )
    def test_wrong_arguments(self, here: Callable[[str], str], code: str, message: str) -> None:
        """The message says what to write."""
        assert message in here(code)

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"WINTERSWEET_SETTINGS_MODULE": "nosuch"}, "WINTERSWEET_SETTINGS_MODULE names 'nosuch'"),
            ({"WS_LISTEN_PROT": "1"}, "did you mean LISTEN_PORT?"),
            ({"WS_PROCESS_NUM": "many"}, "PROCESS_NUM = 'many' (environment)"),
        ],
    )
    def test_wrong_settings(
        self,
        here: Callable[[str], str],
        monkeypatch: pytest.MonkeyPatch,
        environment: dict[str, str],
        message: str,
    ) -> None:
        """Before anything listens."""
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        assert message in here("run('shop:app')")

    def test_a_bug_keeps_its_traceback(self, shop: Path) -> None:
        """An error that is none of ours is for the programmer."""
        (shop / "bug").touch()

        with launch(shop, "from ws_web.server import run; run('shop:app', port=0)", {}) as process:
            _, said = process.communicate(timeout=60)

        assert process.returncode == 1
        assert "ZeroDivisionError: a bug" in said

    def test_without_uvicorn(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The extra is named."""
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

        with pytest.raises(SystemExit) as ended:
            server.run("shop:app")

        assert ended.value.code == 1
        assert "pip install 'ws-web[server]'" in capsys.readouterr().err
        assert issubclass(MissingExtraError, ConfigError)

    def test_a_function_with_parameters_is_the_application(self) -> None:
        """An ASGI function is not called to make one."""

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            """Serve nothing."""

        assert load_app(asgi) is asgi


class Clock:
    """Time as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


class TestSupervision:
    """Decisions of the supervisor."""

    def test_delays(self) -> None:
        """None for the first death, then doubling up to ten seconds."""
        assert [restart_delay(n) for n in range(12)][-1] == 10.0
        assert restart_delay(0) == restart_delay(1) == 0.0

    def test_options_must_fit_into_json(self) -> None:
        """They go to another process."""
        check_options({"log_level": "info"})

        with pytest.raises(UsageError, match="option ssl"):
            check_options({"ssl": object()})

    def test_a_worker_that_does_not_stop_is_killed(self) -> None:
        """After the grace period, and it is said."""
        said: list[str] = []

        class Stubborn:
            """A worker that ignores SIGTERM."""

            def start(self, report: int, parent: int) -> subprocess.Popen[bytes]:
                """Start it."""
                code = (
                    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                    f"os.write({report}, b'{{\"ready\": 1}}'); time.sleep(60)"
                )
                return subprocess.Popen([sys.executable, "-c", code], pass_fds=(report, parent))

        command: Any = Stubborn()
        supervisor = Supervisor(command, 1, grace=0.2, say=said.append)

        def stop_when_ready() -> None:
            deadline = time.monotonic() + 60

            while not supervisor._served and time.monotonic() < deadline:
                time.sleep(0.01)

            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop_when_ready, daemon=True).start()
        supervisor.run()
        assert len(said) == 1
        assert "did not stop within 0.2 s: killed" in said[0]
        assert supervisor.pids == []
