"""
Import libraries on what looks like a system without POSIX, such as Windows, and log in one process.

Run by the check ``posix`` in a process of its own, with the names of the libraries. The standard library
and the dependencies are imported before anything is hidden: they know about such systems themselves.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
OF_OS = (
    "O_CLOEXEC", "WNOHANG", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid",
    "getuid", "killpg", "pread", "pwrite", "register_at_fork", "setsid", "uname", "waitid",
)  # fmt: skip
OF_SIGNAL = (
    "SIGALRM",
    "SIGCHLD",
    "SIGHUP",
    "SIGKILL",
    "SIGQUIT",
    "SIGUSR1",
    "SIGUSR2",
    "setitimer",
    "sigwait",
)

DEPENDENCIES = (
    "asyncio", "multiprocessing.util", "subprocess",
    "aiohttp", "aiomysql", "aiosqlite", "anyio", "asyncmy", "asyncpg", "elasticsearch", "fastapi", "loguru",
    "motor.motor_asyncio", "opentelemetry.trace", "psycopg", "pymongo", "redis.asyncio",
    "sqlalchemy.ext.asyncio", "taskiq", "uvicorn",
)  # fmt: skip


def hide() -> None:
    """Take away what only POSIX has."""
    sys.platform = "win32"

    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it is an ImportError

    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def import_all(library: str) -> list[str]:
    """Import every module of a library; return what failed."""
    problems: list[str] = []
    found = pkgutil.walk_packages(importlib.import_module(library).__path__, f"{library}.")

    for module in found:
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except Exception as error:  # noqa: BLE001 - all of them are told at once
                problems.append(f"{module.name}: {type(error).__name__}: {error}")

    return problems


def log() -> list[str]:
    """Set logging up, log, rotate and end; return what is wrong with the files."""
    logging = importlib.import_module("ws_logging")

    with tempfile.TemporaryDirectory() as name:
        rotator = logging.LogFileRotator(1000, "00:00")
        handle = logging.register_logger("info", None, name, file_rotation=rotator, compression="gz")

        for number in range(50):
            logging.event("line", number=number)

        is_written = handle.flush(30)
        handle.close()
        sizes = [path.stat().st_size for path in Path(name).glob("app.*")]

    wrong = not is_written or len(sizes) < 4 or handle.statistics().file.written != 50
    return [f"logging: {handle.statistics().file}, {sizes}"] if wrong else []


def main(libraries: list[str]) -> int:
    """Return 0 when all is well."""
    for name in DEPENDENCIES:
        with suppress(ImportError):
            importlib.import_module(name)

    hide()
    problems = [problem for library in libraries for problem in import_all(library)]
    problems += log()
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
