"""ws-logging under ws-web's server: SIGTERM while messages wait loses none of them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ws_logging import logger
from ws_web import Settings, create_app
from ws_web.testing import AppClient

MESSAGES = 20_000

SHOP = f"""
from pathlib import Path
from ws_logging import LogFileRotator, logger
from ws_web import Settings, create_app

place = Path(__file__).parent / "logs"
app = create_app(Settings(LOGGING_CONFIG={{"level": "info", "file_path": str(place), "file_rotation": None}}))


@app.get("/log")
async def log() -> int:
    for number in range({MESSAGES}):
        logger.info("m {{}}", number)

    return 1
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_with_messages_queued(tmp_path: Path, workers: int) -> None:
    """The disk stands still while the server is asked to stop; then all is written."""
    (tmp_path / "shop.py").write_text(SHOP)
    code = f"from ws_web.server import run; run('shop:app', port=0, workers={workers})"

    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        port = re.search(r"http://127\.0\.0\.1:(\d+)", server.stderr.readline())
        assert port is not None
        lock = os.open(tmp_path / "logs" / "app.log.lock", os.O_RDWR | os.O_CREAT)

        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            request = urllib.request.Request(
                f"http://127.0.0.1:{port[1]}/log", headers={"x-request-id": "r-1"}
            )

            with urllib.request.urlopen(request, timeout=60) as reply:
                assert reply.headers["x-request-id"] == "r-1"

            server.send_signal(signal.SIGTERM)

            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.3)
        finally:
            os.close(lock)

        assert server.wait(60) == 0

    lines = (tmp_path / "logs" / "app.log").read_text().splitlines()
    found = [line.rpartition(" - m ")[2] for line in lines if " - m " in line]
    assert found == [f"{number} | request_id=r-1" for number in range(MESSAGES)]


@pytest.mark.parametrize("form", [True, "otlp"])
async def test_the_trace_of_a_request(tmp_path: Path, form: bool | str) -> None:
    """Each line that a request has logged carries its trace and its id, by loguru and by standard logging."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    configuration = {"file_path": str(tmp_path), "file_name": "app.log", "json": form}
    app = create_app(Settings(LOGGING_CONFIG=configuration))

    @app.get("/log")
    async def log() -> int:
        logger.info("by loguru")
        logging.getLogger("shop").info("by standard logging")
        return 1

    async with AppClient(app) as client:
        headers = {"traceparent": f"00-{trace}-{span}-01", "x-request-id": "r-1"}
        assert (await client.get("/log", headers=headers)).status_code == 200

    lines = [line for line in (tmp_path / "app.log").read_text().splitlines() if '"by ' in line]
    assert len(lines) == 2

    for line in lines:
        assert f'"{"TraceId" if form is True else "traceId"}":"{trace}"' in line
        assert "r-1" in line
