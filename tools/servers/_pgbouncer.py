"""A pgbouncer of our own, in front of a PostgreSQL server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tools.servers import _binaries
from tools.servers._postgres import PostgresServer, become_nobody, psql
from tools.servers._process import CommandError, Server

__all__ = ("PgbouncerServer",)


class PgbouncerServer(Server):
    """
    A pgbouncer in transaction mode.

    Args:
        server: The PostgreSQL server behind it.
        pool_size: Connections to that server for each database.
        max_prepared_statements: What it keeps of the prepared statements of its clients; 0 for none,
            as versions before 1.21 do.
    """

    kind = "pgbouncer"

    def __init__(
        self, *, server: PostgresServer, pool_size: int = 2, max_prepared_statements: int = 0
    ) -> None:
        super().__init__()
        self.server = server
        self._pool_size = pool_size
        self._prepared = max_prepared_statements

    @property
    def url(self) -> str:
        """``postgresql://postgres@host:port/test``."""
        return self.database_url("test")

    def database_url(self, database: str) -> str:
        """Return the URL of one database."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def _privileges(self) -> list[str]:
        return become_nobody()

    def _prepare(self) -> None:
        assert self.folder is not None
        lines = [
            "[databases]",
            f"* = host={self.server.host} port={self.server.port} user=postgres",
            "[pgbouncer]",
            f"listen_addr = {self.host}",
            f"listen_port = {self.port}",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {self._pool_size}",
            "ignore_startup_parameters = extra_float_digits",
            "unix_socket_dir =",
        ]

        if self._prepared:
            lines.append(f"max_prepared_statements = {self._prepared}")

        path = self.folder / "pgbouncer.ini"
        path.write_text("\n".join([*lines, ""]))

        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            path.chmod(0o644)

    def _command(self) -> list[str]:
        return [str(_binaries.pgbouncer()), str((self.folder or Path()) / "pgbouncer.ini")]

    def _is_ready(self) -> bool:
        try:
            return psql(self.url, "SELECT 1", timeout=5.0) == [("1",)]
        except (CommandError, subprocess.TimeoutExpired):
            return False
