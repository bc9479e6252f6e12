"""Test a service from outside: processes of its own, which a test may kill.

In process, `ws_web.testing.AppClient` is quicker; what else tests need is in `ws_core.testing` and
`ws_pool.testing`. In pytest these are fixtures and markers: see the how-to on tests.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ws_core.errors import UnavailableError, UsageError

__all__ = ("Service",)

_SERVES = re.compile(r"serving on (\S+?),")


class Service:
    """
    An application, served by ``wintersweet run`` in processes of its own on a free port.

    Args:
        target: Where the application is, such as ``"shop.main:app"``.
        workers: Worker processes, 1 or more; one alone is the server itself.
        env: Further environment variables, such as settings: ``{"WS_DEBUG": "true"}``.
        directory: The directory to run in; by default the present one.
        timeout: Seconds that it has to start, and to stop.

    Example:
        ```python no-run
        with Service("shop.main:app", workers=2) as shop:
            order(shop.url)
            shop.kill_worker()
            order(shop.url)
        ```
    """

    def __init__(
        self,
        target: str,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        directory: str | Path | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.url: str = ""
        self._target = target
        self._workers = workers
        self._env = dict(env or {})
        self._directory = directory
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Service {self._target} {self.url if self._process else 'not running'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the server, which is the parent of several workers."""
        if self._process is None:
            raise UsageError(f"{self!r}: start it first")

        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return _children(self.pid) if self._workers > 1 else [self.pid]

    def start(self) -> None:
        """
        Start it, on the port that it had before, and wait until it serves.

        Raises:
            UnavailableError: It does not start; the message is what it has said.
        """
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "wintersweet", "run", self._target, "--port", port]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_end`
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [*command, "--workers", str(self._workers)],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            cwd=self._directory,
            env={**os.environ, **self._env},
        )

        try:
            self.url = self._wait()
        except BaseException:
            self._process.kill()
            self._end()
            raise

    def stop(self) -> None:
        """Stop it in order (SIGTERM); may be called again."""
        if self._process is None:
            return

        self._process.terminate()

        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._timeout)

        self._process.kill()
        self._end()

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash does; its workers end with it, and `start` brings it back."""
        workers = self.workers
        os.kill(self.pid, signal.SIGKILL)
        self._end()
        _until_gone(workers, self._timeout)

    def kill_worker(self) -> int:
        """
        End one worker by SIGKILL; of several it is replaced, and the others serve on.

        Returns:
            Its process id.
        """
        victim = self.workers[0]

        if victim == self.pid:
            self.kill()
        else:
            os.kill(victim, signal.SIGKILL)
            _until_gone([victim], self._timeout)

        return victim

    def _wait(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + self._timeout

        while (found := _SERVES.search(self._said())) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                how = (
                    "ended"
                    if self._process.poll() is not None
                    else f"does not serve after {self._timeout:g} s"
                )
                raise UnavailableError(f"{self._target} {how}: {self._said()[-2000:].strip()}")

            time.sleep(0.02)

        return found[1]

    def _said(self) -> str:
        assert self._output is not None
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def _end(self) -> None:
        assert self._process is not None and self._output is not None
        self._process.wait()
        self._output.close()
        self._process = self._output = None


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []

    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += map(int, children.read_text().split())

    return sorted(found)


def _until_gone(pids: list[int], timeout: float) -> None:
    deadline = time.monotonic() + timeout

    while any(_runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise UnavailableError(f"processes {pids} have not ended within {timeout:g} s")

        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
