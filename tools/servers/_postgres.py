"""A PostgreSQL server of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tools.servers import _binaries
from tools.servers._process import CommandError, Server, ServerError

__all__ = ("PostgresServer", "become_nobody", "psql")


def psql(url: str, statement: str, *, timeout: float = 30.0) -> list[tuple[str | None, ...]]:
    """
    Run a statement over a connection of its own, and return its rows as text.

    Args:
        url: The database.
        statement: SQL.
        timeout: Seconds for the connect and the statement.

    Returns:
        The rows; none when the statement has no result.

    Raises:
        CommandError: The server cannot be reached, or it refused the statement.
    """
    done = subprocess.run(
        [
            str(_binaries.psql()),
            *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
            *("--field-separator=\x1f", "--record-separator=\x1e", "--pset=null=\x1d"),
            *("--set=ON_ERROR_STOP=1", f"--command={statement}", url),
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

    if done.returncode:
        raise CommandError(done.stderr.strip())

    records = done.stdout.removesuffix("\n").removesuffix("\x1e").split("\x1e")
    return [
        tuple(None if value == "\x1d" else value for value in record.split("\x1f"))
        for record in records
        if record
    ]


def become_nobody() -> list[str]:
    """Return the options of setpriv for a server that refuses to run as root."""
    return [f"--reuid={_user()}", f"--regid={_user()}", "--clear-groups"] if os.geteuid() == 0 else []


def _is_backend(pid: int) -> bool:
    """Return whether a process is still one of PostgreSQL, and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False

    name, _, rest = stat.rpartition(")")
    return name.endswith("(postgres") and not rest.startswith(" Z")


class PostgresServer(Server):
    """
    A PostgreSQL server whose user ``postgres`` needs no password, with an empty database ``test``.

    It refuses to run as root, so it runs as ``nobody`` then. A commit survives `kill` (SIGKILL of the
    postmaster, after which its backends end): the log is written, though not synced, at each commit.

    Args:
        config: Settings of postgresql.conf, such as ``{"max_connections": 20}``.

    Example:
        >>> with PostgresServer() as server:
        ...     server.execute("SELECT 1 + 1")
        [('2',)]
    """

    kind = "postgres"

    def __init__(self, *, config: Mapping[str, str | int] | None = None) -> None:
        super().__init__()
        self.config = dict(config or {})

    @property
    def url(self) -> str:
        """``postgresql://postgres@host:port/test``."""
        return self.database_url("test")

    def database_url(self, database: str) -> str:
        """Return the URL of one database."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    @property
    def unix_folder(self) -> str:
        """The folder of the unix socket."""
        if self.folder is None:
            raise ServerError("postgres is not running")

        return str(self.folder)

    def execute(
        self, *statements: str, database: str = "postgres", timeout: float = 30.0
    ) -> list[tuple[str | None, ...]]:
        """
        Run statements over a connection of its own, each committed.

        Args:
            *statements: SQL texts.
            database: The database to use.
            timeout: Seconds for all of them.

        Returns:
            The rows of the last statement, every value as text.

        Raises:
            ServerError: The server does not run.
            CommandError: It refused a statement.
        """
        if not self.running:
            raise ServerError(
                f"postgres on port {self.port} is not running. A test that ends or pauses a server"
                " must take one of its own: start_server(PostgresServer)"
            )

        rows: list[tuple[str | None, ...]] = []

        for statement in statements:
            rows = psql(self.database_url(database), statement, timeout=timeout)

        return rows

    def kill(self) -> None:
        """End the postmaster by SIGKILL, and wait for its backends to end: until then none can be started."""
        backends = self._backends()
        super().kill()
        deadline = time.monotonic() + self.stop_timeout

        for backend in backends:
            while _is_backend(backend) and time.monotonic() < deadline:
                with suppress(ProcessLookupError):
                    os.kill(backend, signal.SIGCONT)  # it may have been paused

                time.sleep(0.005)

    def pause(self) -> None:
        """Stop the postmaster and all of its backends: connections stay open, and nothing answers."""
        super().pause()
        self._signal_backends(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the paused processes go on."""
        self._signal_backends(signal.SIGCONT)
        super().resume()

    def _signal_backends(self, number: signal.Signals) -> None:
        for child in self._backends():
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def _backends(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def _privileges(self) -> list[str]:
        return become_nobody()

    def _prepare(self) -> None:
        assert self.folder is not None
        data = self.folder / "data"

        if data.exists():
            return

        prefix: list[str] = []

        if os.geteuid() == 0:
            os.chown(self.folder, _user(), _user())
            prefix = [str(shutil.which("setpriv")), *self._privileges()]

        made = subprocess.run(
            [
                *prefix,
                str(_binaries.initdb()),
                f"--pgdata={data}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=False,
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=self.folder,
        )

        if made.returncode:
            raise ServerError(f"initdb ended with code {made.returncode}:\n{made.stdout}{made.stderr}")

    def _environment(self) -> dict[str, str]:
        # Without HOME, which nobody may not read; PG* variables would reach the server's own tools.
        return {key: value for key, value in super()._environment().items() if not key.startswith("PG")}

    def _command(self) -> list[str]:
        assert self.folder is not None
        options: dict[str, str | int] = {
            "port": self.port,
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "logging_collector": "off",
            **self.config,
        }
        return [
            str(_binaries.postgres()),
            f"-D{self.folder / 'data'}",
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ]

    def _is_ready(self) -> bool:
        try:
            if not self.execute("SELECT 1 FROM pg_database WHERE datname = 'test'", timeout=5.0):
                self.execute("CREATE DATABASE test", timeout=30.0)
        except CommandError as error:
            # Too many connections means that it serves others.
            return "too many clients" in str(error)
        except subprocess.TimeoutExpired:
            return False

        return True

    def _ask_to_end(self) -> None:
        """Shut down without waiting for clients ("fast")."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)


def _user() -> int:
    return pwd.getpwnam("nobody").pw_uid
