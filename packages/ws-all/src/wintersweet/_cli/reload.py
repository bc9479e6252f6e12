"""Start a server anew when a source file changes; for development."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_LOOK = 0.4
"""Seconds between two looks at the files."""
_PARENT = "WINTERSWEET_RELOADER"
"""Environment variable of a child: the descriptor of a pipe whose other end the parent holds."""
_SUFFIXES = frozenset({".py", ".toml", ".env", ".html", ".js", ".css"})
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


def snapshot(directory: Path) -> dict[Path, int]:
    """Note the times of all source files."""
    found: dict[Path, int] = {}

    for path in _sources(directory):
        try:
            found[path] = path.stat().st_mtime_ns
        except OSError:  # removed between the two looks
            continue

    return found


def changed(before: Mapping[Path, int], now: Mapping[Path, int]) -> list[Path]:
    """
    Return the files that are new, gone or different.

    Example:
        >>> a, b = Path("a.py"), Path("b.py")
        >>> changed({a: 1, b: 1}, {a: 2, b: 1})
        [PosixPath('a.py')]
    """
    return sorted(path for path in {*before, *now} if before.get(path) != now.get(path))


def _sources(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_dir():
            if (
                not path.name.startswith(".")
                and path.name not in _SKIPPED
                and not (path / "pyvenv.cfg").exists()
            ):
                yield from _sources(path)
        elif path.suffix in _SUFFIXES or path.name == ".env":
            yield path


def end_with_parent() -> None:
    """End in order when the reloader that has started this process dies, also by SIGKILL."""
    if (descriptor := os.environ.pop(_PARENT, None)) is not None:
        threading.Thread(target=_watch_parent, args=(int(descriptor),), daemon=True, name="reloader").start()


def _watch_parent(descriptor: int) -> None:
    """Wait until the other end of the pipe is closed, which only the parent's death does."""
    while os.read(descriptor, 1):
        pass

    os.kill(os.getpid(), signal.SIGINT)


class Reloader:
    """
    Keep one child process and start it anew at each change.

    A child that ends by itself, say by a syntax error, is started again at the next change only.
    """

    def __init__(
        self,
        command: list[str],
        directory: Path,
        *,
        say: Callable[[str], None],
        look: float = _LOOK,
        grace: float = 10.0,
    ) -> None:
        self._command = command
        self._directory = directory
        self._say = say
        self._look = look
        self._grace = grace
        self._received: int | None = None
        self._wake = threading.Event()
        self._pipe: int | None = None  # our end; the kernel closes it when this process dies

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM; return the exit status."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        seen = snapshot(self._directory)
        child = self._start()

        try:
            while self._received is None:
                self._wake.wait(self._look)
                now = snapshot(self._directory)
                news = changed(seen, now)

                if news:
                    self._say(f"{news[0].name} changed: starting anew")
                    seen = now
                    self._end(child)
                    child = self._start()
        finally:
            self._end(child)

            for number, handler in before.items():
                signal.signal(number, handler)

        return 130 if self._received == signal.SIGINT else 0

    def _stop(self, number: int, frame: object) -> None:
        self._received = number
        self._wake.set()

    def _start(self) -> subprocess.Popen[bytes]:
        childs_end, self._pipe = os.pipe()

        try:
            return subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                process_group=0,
                pass_fds=(childs_end,),
                env={**os.environ, _PARENT: str(childs_end)},
            )
        finally:
            os.close(childs_end)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            child.terminate()

            try:
                child.wait(self._grace)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
