"""Follow a page as its reader does: write its files, type its commands, compare what they print.

A fenced block with ``title="path"`` is a whole file. In a ``console`` block, lines after ``$`` are typed at a
shell, the others are the output that the page promises; … stands for anything. A server goes on in a terminal
of its own until the same command is typed again, or until the end. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ("Block", "Reader", "blocks", "matches")

TIMEOUT = 300.0
"""Seconds that only a failure takes."""

_FENCE = re.compile(r"^```(?P<info>[^`\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_INSTALLED = ("pip install ", "python -m venv ", "source ")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its file if it is one, its text, and its first line on the page."""

    language: str
    file: str | None
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in their order."""
    for found in _FENCE.finditer(text):
        title = _TITLE.search(found["info"])
        line = text.count("\n", 0, found.start("body")) + 1
        yield Block(found["info"].split()[0], title and title[1], found["body"], line)


def matches(promised: str, printed: str) -> bool:
    """
    Compare output with what a page shows of it; … stands for anything.

    Example:
        >>> matches("4 passed in …s", "4 passed in 0.12s")
        True
    """
    pattern = ".*".join(re.escape(part.strip()) for part in promised.split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Reader:
    """
    Somebody at a prompt.

    Args:
        place: The directory in which the reader begins.
        servers: Beginning of a command that goes on → the port that it listens on.
        replace: Text of the page → text, such as a port that is free here.
    """

    def __init__(self, place: Path, servers: Mapping[str, int], replace: Mapping[str, str]) -> None:
        self.place = place
        self._servers = servers
        self._replace = replace
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._log = place / ".terminal"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        # After a failure: a server that may stop in order ends its processes in other groups too.
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(TIMEOUT)

            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

            process.wait()

    def follow(self, page: Path) -> None:
        """
        Do all that a page says, from its top to its end.

        Args:
            page: A Markdown file.

        Raises:
            AssertionError: A command failed, or printed something else than the page shows.
        """
        for block in blocks(self._own(page.read_text(encoding="utf-8"))):
            if block.file is not None:
                path = self.place / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "console":
                for command, promised in _dialogue(block.text):
                    self._type(command, promised, f"{page.name}:{block.line}")

        for command in list(self._running):
            self._interrupt(command)

    def _own(self, text: str) -> str:
        for old, new in self._replace.items():
            text = text.replace(old, new)

        return text

    def _type(self, command: str, promised: str, where: str) -> None:
        if command.startswith(_INSTALLED):
            return  # the environment of the tests has it; `check alone` installs the wheels

        if command.startswith("cd "):
            self.place /= command.removeprefix("cd ")
            return

        for server, port in self._servers.items():
            if command.startswith(server):
                self._serve(server, command, port)
                return

        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.place,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        printed = done.stdout if promised else ""
        detail = f"{where}: $ {command}\n{done.stdout}{done.stderr}{self._terminals()}"
        assert done.returncode == 0, detail
        assert matches(promised, printed), f"{detail}\nThe page shows:\n{promised}"

    def _serve(self, server: str, command: str, port: int) -> None:
        if server in self._running:
            self._interrupt(server)

        with self._log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.place,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        self._running[server] = process
        deadline = time.monotonic() + TIMEOUT

        while not _listens(port):
            assert process.poll() is None, self._terminals()
            assert time.monotonic() < deadline, self._terminals()
            time.sleep(0.02)

    def _interrupt(self, server: str) -> None:
        """Press Ctrl-C, which reaches all processes of the terminal."""
        process = self._running.pop(server)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TIMEOUT) in {0, 130, -signal.SIGINT}, self._terminals()

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("WS_", "WINTERSWEET_", "PYTEST_", "COV_", "COVERAGE_"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}

    def _terminals(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""


def _dialogue(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command with the output that follows it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield re.sub(r"\s+# .*$", "", command).strip(), output


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
