"""Job queues for `bench_tasks`: two workers and an enqueuer each, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from tools.servers import RedisServer

__all__ = ("JobQueue",)

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".dev" / "bench-peers"
PROGRAM = Path(__file__).with_name("_job_worker.py")
# arq and SAQ want older versions of redis-py than ours: each peer has an environment of its own. All
# have hiredis, which ours and arq come with.
NEEDS = {
    "taskiq": ("taskiq-redis>=1.2,<1.3", "hiredis>=3,<4"),
    "arq": ("arq>=0.28,<0.29",),
    "saq": ("saq[redis]>=0.26,<0.27", "typing-extensions", "hiredis>=3,<4"),
}
TIMEOUT = 120.0
WORKERS = 2


def python(kind: str) -> str:
    """Return the interpreter of a peer's environment; ours is this one."""
    if kind not in NEEDS:
        return sys.executable

    place = PLACE / kind
    interpreter = place / "bin" / "python"

    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *NEEDS[kind]], check=True)
        (place / "ready").touch()

    return str(interpreter)


class JobQueue:
    """A queue with two workers; `run` enqueues jobs and returns when they are done."""

    def __init__(self, kind: str, jobs: int) -> None:
        self._kind, self._jobs = kind, jobs
        self._server = RedisServer()
        self._processes: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, str(number)) for number in range(WORKERS)]

    def open(self) -> None:
        """Start a server, the workers and the enqueuer."""
        self._server.start()

        for file in self._files:
            file.write_bytes(bytes(8))
            self._start("work", str(file))

        self._enqueuer = self._start("enqueue")
        self._expect("ready")

    def close(self) -> None:
        """End all processes, and the server."""
        for process in self._processes:
            process.kill()
            process.communicate()

        self._server.stop()
        self._folder.cleanup()

    def run(self) -> None:
        """Enqueue jobs, and wait until they are done."""
        expected = self._done() + self._jobs
        assert self._enqueuer.stdin is not None
        self._enqueuer.stdin.write(f"{self._jobs}\n")
        self._enqueuer.stdin.flush()
        self._expect("enqueued")
        deadline = time.monotonic() + TIMEOUT

        while self._done() < expected:
            if time.monotonic() > deadline:
                left = expected - self._done()
                raise TimeoutError(f"{self._kind}: {left} of {self._jobs} jobs are not done")

            time.sleep(0.002)

    def _start(self, mode: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [python(self._kind), str(PROGRAM), self._kind, mode, self._server.url, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            text=True,
        )
        self._processes.append(process)
        return process

    def _expect(self, word: str) -> None:
        assert self._enqueuer.stdout is not None
        found = self._enqueuer.stdout.readline().strip()

        if found != word:
            raise RuntimeError(f"the enqueuer of {self._kind} has ended")

    def _done(self) -> int:
        return sum(int.from_bytes(file.read_bytes(), "little") for file in self._files)
