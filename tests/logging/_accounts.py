"""Exact accounts of a log that several threads of several processes have written."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import loguru
import pytest

import ws_core
import ws_logging
from ws_logging._compression import zstandard

# For other versions of Python; what is imported there is pure Python.
_LIBRARIES = [str(Path(found.__file__ or "").parents[1]) for found in (loguru, ws_core, ws_logging)]

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| INFO {5}\| \w+:\w+:\d+ - m (\d+) (\w+) (\d+) x*")

PROGRAM = """
import atexit, fcntl, multiprocessing, os, resource, signal, sys, threading, time
from pathlib import Path
from typing import Any
from ws_logging import LogFileRotator, QueuedFileSink, logger, register_logger

directory = Path(sys.argv[1])

def work(thread, count, pad=0):
    pid = os.getpid()
    for number in range(count):
        logger.info("m {} {} {} {}", pid, thread, number, "x" * pad)

def threads(count, each, *, daemon=False, pad=0):
    started = [threading.Thread(target=work, args=(n, each, pad), daemon=daemon) for n in range(count)]
    for thread in started:
        thread.start()
    return started

def start(**options):
    options = {"file_name": "app.log", "file_rotation": None, **options}
    return register_logger("info", file_path=directory, **options)

def say(word):
    print(word, flush=True)
"""


def launch(directory: Path, code: str, *, python: str = sys.executable) -> subprocess.Popen[str]:
    """Start a program that logs into a directory."""
    return subprocess.Popen(
        [python, "-c", PROGRAM + code, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONWARNINGS": "ignore",  # forking with threads is what some of them are about
            **({} if python == sys.executable else {"PYTHONPATH": os.pathsep.join(_LIBRARIES)}),
        },
    )


def finish(
    process: subprocess.Popen[str], code: int = 0, timeout: float = 120, answer: str | None = None
) -> tuple[str, str]:
    """Wait for the end of a program, which may read an answer, and check its exit code."""
    out, err = process.communicate(answer, timeout=timeout)
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def until(process: subprocess.Popen[str], word: str) -> None:
    """Wait until a program has printed a word."""
    assert process.stdout is not None

    for line in process.stdout:
        if line.strip() == word:
            return

    pytest.fail(f"it ended without printing {word}: {process.communicate()}")


def run(directory: Path, code: str, expected: int = 0) -> str:
    """Run a program to its end; return what it said on stderr."""
    return finish(launch(directory, code), expected)[1]


def read(directory: Path) -> list[str]:
    """Return all lines of all files of a log, the rotated and the compressed ones too."""
    lines: list[str] = []

    for path in sorted(directory.iterdir()):
        if path.name.endswith(".gz"):
            lines += gzip.decompress(path.read_bytes()).decode().splitlines()
        elif path.name.endswith(".zst"):
            lines += zstandard().decompress(path.read_bytes()).decode().splitlines()
        elif path.suffix == ".log":
            lines += path.read_text().splitlines()

    return lines


def accounts(directory: Path) -> dict[tuple[int, str], list[int]]:
    """Return the numbers that each thread of each process has written; no line may be torn."""
    found: defaultdict[tuple[int, str], list[int]] = defaultdict(list)

    for line in read(directory):
        match = LINE.fullmatch(line)
        assert match is not None, f"torn: {line!r}"
        found[int(match[1]), match[2]].append(int(match[3]))

    return dict(found)


def check(directory: Path, writers: int, each: int) -> None:
    """Check that every writer's messages are there: all, once, whole."""
    found = accounts(directory)
    assert len(found) == writers

    for numbers in found.values():
        assert sorted(numbers) == list(range(each))


def check_order(directory: Path) -> None:
    """Check that, in a file that was not rotated, each thread's messages are in order."""
    for numbers in accounts(directory).values():
        assert numbers == sorted(numbers)


def lines(path: Path) -> Any:
    """Return the lines of a file."""
    return path.read_text().splitlines()


def balanced(sink: Any) -> Any:
    """Check the accounts, and return them."""
    s = sink.statistics()
    assert s.accepted == s.written + s.dropped + s.pending
    return s
