"""A MariaDB server of our own."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping

from tools.servers import _binaries
from tools.servers._mysql_wire import MysqlConnection, MysqlError
from tools.servers._process import Server, ServerError

__all__ = ("MariaDBServer",)


class MariaDBServer(Server):
    """
    A MariaDB server whose root has no password, with an empty database ``test``.

    A commit survives `kill`: the log is written, though not synced, at each commit.

    Args:
        config: Server options by their long names, such as ``{"max-connections": 20}``.

    Example:
        >>> with MariaDBServer() as server:
        ...     server.execute("SELECT 1 + 1")
        [('2',)]
    """

    kind = "mariadb"

    def __init__(self, *, config: Mapping[str, str | int] | None = None) -> None:
        super().__init__()
        self.config = dict(config or {})

    @property
    def url(self) -> str:
        """``mysql://root@host:port/test``."""
        return self.database_url("test")

    @property
    def unix_path(self) -> str:
        """The path of the unix socket."""
        if self.folder is None:
            raise ServerError("mariadb is not running")

        return str(self.folder / "socket")

    def database_url(self, database: str) -> str:
        """Return the URL of one database."""
        return f"mysql://root@{self.host}:{self.port}/{database}"

    def execute(
        self, *statements: str, database: str = "", timeout: float = 30.0
    ) -> list[tuple[str | None, ...]]:
        """
        Run statements over a connection of its own, each committed.

        Args:
            *statements: SQL texts.
            database: The database to use.
            timeout: Seconds to wait for each reply.

        Returns:
            The rows of the last statement, every value as text.

        Raises:
            ServerError: The server does not run.
        """
        if not self.running:
            raise ServerError(
                f"mariadb on port {self.port} is not running. A test that ends or pauses a server"
                " must take one of its own: start_server(MariaDBServer)"
            )

        rows: list[tuple[str | None, ...]] = []

        with MysqlConnection(self.address, timeout=timeout) as connection:
            if database:
                connection(f"USE `{database}`")

            for statement in statements:
                rows = connection(statement)

        return rows

    def _prepare(self) -> None:
        assert self.folder is not None  # noqa: S101 - start() has made it
        data = self.folder / "data"

        if data.exists():
            return

        made = subprocess.run(
            [
                str(_binaries.mariadb_install_db()),
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={self.folder}",  # not a directory that others fill up or clean
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                "--innodb-log-file-size=16M",
            ],
            check=False,
            capture_output=True,
            text=True,
        )

        if made.returncode:
            raise ServerError(
                f"mariadb-install-db ended with code {made.returncode}:\n{made.stdout}{made.stderr}"
            )

        (self.folder / "init.sql").write_text(
            "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            "CREATE DATABASE IF NOT EXISTS test CHARACTER SET utf8mb4;\n"
        )

    def _command(self) -> list[str]:
        assert self.folder is not None  # noqa: S101 - start() has made it
        options: dict[str, str | int] = {
            "datadir": str(self.folder / "data"),
            "socket": str(self.folder / "socket"),
            "pid-file": str(self.folder / "pid"),
            "init-file": str(self.folder / "init.sql"),
            "tmpdir": str(self.folder),
            "user": getpass.getuser(),
            "port": self.port,
            "bind-address": self.host,
            "innodb-flush-log-at-trx-commit": 2,
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "16M",
            "max-connections": 500,
            "max-connect-errors": 1_000_000,
            "character-set-server": "utf8mb4",
            **self.config,
        }
        return [
            str(_binaries.mariadbd()),
            "--no-defaults",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=OFF",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def _is_ready(self) -> bool:
        try:
            with MysqlConnection(self.address, timeout=5.0) as connection:
                return bool(connection("SHOW DATABASES LIKE 'test'"))
        except MysqlError as error:
            return str(error).startswith("(1040)")  # too many connections: it serves others
