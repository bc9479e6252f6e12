"""ws-logging under ws-web's server: SIGTERM while messages wait loses none of them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

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
