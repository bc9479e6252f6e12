"""A running demo, seen from outside."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import urllib.request
from typing import Any

import psutil

from tests.all._support import TIMEOUT, until


class Demo:
    """A running demo, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.root = psutil.Process(process.pid)
        assert process.stderr is not None
        self.stderr = process.stderr
        self.said: list[str] = []
        self.url = until(lambda: self._find(r"Page\s+(http://\S+)"))

    def _find(self, pattern: str) -> str | None:
        line = self.stderr.readline()
        self.said.append(line)
        assert line or self.process.poll() is None, "".join(self.said)
        found = re.search(pattern, line)

        return found[1] if found else None

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that serve."""
        return self._running("ws_web._worker")

    def job_workers(self) -> list[psutil.Process]:
        """Return those that run jobs."""
        return self._running("wintersweet.demo.worker")

    def _running(self, program: str) -> list[psutil.Process]:
        return [child for child in self.children() if program in _command(child)]

    def kill_worker(self) -> None:
        """Kill a worker, and wait until it is dead: a busy machine lets it linger among the others."""
        worker = self.workers()[0]
        worker.kill()
        until(lambda: not alive(worker))

    def children(self) -> list[psutil.Process]:
        """Return all processes that the demo has started."""
        return self.root.children(recursive=True)

    def state(self) -> dict[str, Any]:  # any JSON
        """Return what the page begins with."""
        with urllib.request.urlopen(f"{self.url}/api/state", timeout=30) as reply:
            return dict(json.load(reply)["data"])

    def taken(self) -> int:
        """Return how many pieces are off the shelf; 0 when the worker that was asked has just died."""
        try:
            items = self.state()["items"]
        except (OSError, http.client.HTTPException):
            return 0

        return sum(item["stock"] - item["available"] for item in items)

    def finish(self) -> dict[str, Any]:  # any JSON
        """Wait for the end and return the JSON line."""
        out, err = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, err
        (line,) = out.splitlines()

        return dict(json.loads(line))


def alive(process: psutil.Process) -> bool:
    """Return whether a process goes on; one that has ended and waits for its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
