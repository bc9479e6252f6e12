"""A MariaDB server of our own."""

from __future__ import annotations

import contextlib
import getpass
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tools.servers import _binaries
from tools.servers._process import CommandError, Server, ServerError

if TYPE_CHECKING:
    from pymysql.connections import Connection

__all__ = ("MariaDBServer", "connect_mysql", "query")


def connect_mysql(
    host: str, port: int, *, database: str | None = None, timeout: float = 10.0
) -> Connection[Any]:
    """
    Open a blocking connection as root, each statement committed, each value read as text.

    Args:
        host: The server's, or a proxy's.
        port: Its port.
        database: The database to use.
        timeout: Seconds for the connect and for each reply.

    Returns:
        PyMySQL's connection; close it.
    """
    import pymysql  # noqa: PLC0415 - the tests of a library without PyMySQL import this package too

    with _plain_errors():
        return pymysql.connect(
            host=host,
            port=port,
            user="root",
            database=database,
            autocommit=True,
            connect_timeout=timeout,
            read_timeout=timeout,
            conv={},
            ssl_disabled=True,  # loading the certificates would cost 20 ms each time
        )


def query(connection: Connection[Any], statement: str) -> list[tuple[str | None, ...]]:
    """Run one statement, and return its rows: none when it has no result."""
    with _plain_errors(), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise PyMySQL's errors as errors that need no PyMySQL to be caught."""
    from pymysql.err import MySQLError  # noqa: PLC0415

    try:
        yield
    except MySQLError as error:
        if error.args[0] in {2003, 2006, 2013}:  # nobody listens, or the connection is lost
            raise ConnectionResetError(str(error)) from error

        raise CommandError(f"{type(error).__name__}: {error}") from error


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

        with contextlib.closing(self.connect(database=database or None, timeout=timeout)) as connection:
            for statement in statements:
                rows = query(connection, statement)

        return rows

    def connect(self, *, database: str | None = None, timeout: float = 10.0) -> Connection[Any]:
        """Open a connection of PyMySQL as root; see `connect_mysql`."""
        return connect_mysql(self.host, self.port, database=database, timeout=timeout)

    def _prepare(self) -> None:
        assert self.folder is not None
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
        assert self.folder is not None
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
            with contextlib.closing(self.connect(timeout=5.0)) as connection:
                return bool(query(connection, "SHOW DATABASES LIKE 'test'"))
        except CommandError as error:
            return "(1040," in str(error)  # too many connections: it serves others
