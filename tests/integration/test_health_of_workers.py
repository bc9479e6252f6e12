"""ProcessHealthChecker in the workers of real servers: a killed one is missed, its replacement counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

APP = """
import json, os
from pathlib import Path
from ws_pool.health import ProcessHealthChecker

checker = ProcessHealthChecker(2, interval=0.1, timeout=10, directory=Path(__file__).parent / "run")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await checker.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await checker.close()
        await send({"type": "lifespan.shutdown.complete"})
        return

    body = json.dumps({"pid": os.getpid(), "ok": checker.health, "detail": checker.detail}).encode()
    headers = [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
SERVERS = {
    "uvicorn": "uvicorn health_app:app --port {port} --workers 2 --log-level error",
    "gunicorn": "gunicorn health_app:app -b 127.0.0.1:{port} -w 2 -k uvicorn_worker.UvicornWorker",
}


def ask(port: int) -> dict[str, Any]:
    """Ask whichever worker answers; an empty answer when none does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


def until(port: int, *, ok: bool) -> dict[str, Any]:
    """Ask until the node is as wanted."""
    deadline = time.monotonic() + 90

    while (answer := ask(port)).get("ok") is not ok:
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)

    return answer


@pytest.mark.parametrize("server", list(SERVERS))
def test_a_killed_worker(server: str, tmp_path: Path, unused_tcp_port: int) -> None:
    """A worker that is killed makes the node unhealthy at once, and its replacement makes it healthy."""
    port = unused_tcp_port
    (tmp_path / "health_app.py").write_text(APP)
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-m", *SERVERS[server].format(port=port).split()]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}

    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            killed = until(port, ok=True)["pid"]
            os.kill(killed, signal.SIGKILL)
            found = until(port, ok=False)
            assert found["pid"] != killed
            assert found["detail"].startswith("1 of 2 workers are healthy")
            until(port, ok=True)
        finally:
            process.terminate()
            process.wait(60)

    assert list((tmp_path / "run").iterdir()) == []
