"""The real command line in a subprocess, and waiting for what another process does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

WINTERSWEET = (sys.executable, "-m", "wintersweet")
UNPRIVILEGED = (
    "setpriv",
    "--inh-caps=-dac_override,-dac_read_search",
    "--bounding-set=-dac_override,-dac_read_search",
)
TIMEOUT = 300.0
"""Seconds that only a failure takes: a sale of seconds lasts a minute on a busy machine."""
T = TypeVar("T")
WORD_APP = """
from ws_web import create_app

def create():
    app = create_app()

    @app.get("/word")
    async def word() -> str:
        \"\"\"Say a word.\"\"\"
        return "WORD"

    return app
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What was said on stderr, without the line breaks that a narrow terminal adds."""
        return " ".join(self.err.split())

    def json(self) -> dict[str, Any]:  # any JSON
        """Return the one JSON line that stdout must hold."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without settings, plus what is given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WS_", "WINTERSWEET_"))}
    return {**kept, "COLUMNS": "200", **extra}


def wintersweet(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    within: float = TIMEOUT,
    unprivileged: bool = False,
) -> Outcome:
    """Run a command to its end; ``unprivileged`` takes root's right to write everywhere away."""
    with running(*arguments, cwd=cwd, env=env, unprivileged=unprivileged) as process:
        out, err = process.communicate(timeout=within)

    return Outcome(process.returncode, out, err)


@contextlib.contextmanager
def running(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    unprivileged: bool = False,
    stdin: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of a block, and kill what it leaves behind."""
    process = subprocess.Popen(
        [*(UNPRIVILEGED if unprivileged and os.geteuid() == 0 else ()), *WINTERSWEET, *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

        if process.poll() is None:
            process.send_signal(signal.SIGKILL)

        process.communicate(timeout=TIMEOUT)


def until(look: Callable[[], T], within: float = TIMEOUT) -> T:
    """Look again and again until there is something to see, and return it."""
    deadline = time.monotonic() + within

    while not (seen := look()):
        assert time.monotonic() < deadline, f"nothing to see within {within:g} s"
        time.sleep(0.01)

    return seen
