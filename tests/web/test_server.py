"""The server, for real: processes, signals, sockets, and every way not to start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.web._server import Served, both, deploy, fails, launch, serve, shop
from ws_core.errors import ConfigError, MissingExtraError
from ws_web import server
from ws_web.server import bind, load_app

__all__ = ("deploy", "serve", "shop")


FACTORY = """
import os
from ws_web import create_app, settings

def create():
    app = create_app()

    @app.get("/name")
    async def name() -> list[str]:
        return [settings.SHOP_NAME, app.title]

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app
"""


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

    @pytest.mark.parametrize("server", ["run", "factory"])
    def test_factories_have_the_settings(
        self, server: str, shop: Path, deploy: Callable[..., Served]
    ) -> None:
        """In each worker, of ours and of ``uvicorn --factory``, with the settings of the project."""
        (shop / "shop.py").write_text(FACTORY)
        (shop / "project.py").write_text('SHOP_NAME = "lamps"\n')
        served = deploy(
            server,
            workers=2,
            app="create",
            WINTERSWEET_SETTINGS_MODULE="project",
            WS_APP_CONFIG__title="Shop",
        )
        both(served)
        assert served.get("/name")["data"] == ["lamps", "Shop"]
        served.stop()

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
            ("run('shop:text')", "is not an ASGI application but str"),
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
        """An error of the application is for the programmer."""
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
