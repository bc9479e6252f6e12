"""A Redis master with replicas, watched by Sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from tools.servers._process import CommandError, ServerError
from tools.servers._redis import Config, RedisServer, ValkeyServer

__all__ = ("SentinelServer", "SentinelServers", "wait_until")


class SentinelServer(RedisServer):
    """One Redis Sentinel."""

    kind = "sentinel"

    def _command(self) -> list[str]:
        return [*super()._command(), "--sentinel"]

    def _prepare(self) -> None:
        super()._prepare()
        assert self.folder is not None
        path = self.folder / "server.conf"
        unknown = ("save ", "enable-debug-command ", "repl-diskless-sync-delay ")  # to a Sentinel
        lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith(unknown)]
        path.write_text("".join(lines))

    def _ask_to_end(self) -> None:
        super(RedisServer, self)._ask_to_end()


class _ValkeySentinelServer(SentinelServer, ValkeyServer):
    kind = "valkey-sentinel"


class SentinelServers:
    """
    A master, its replicas and an odd number of Sentinels, each a server of its own.

    `kill`, `pause`, `resume` and `restart` act on the present master, as does `pid`; `host` and
    `port` are those of the first Sentinel, for that is where clients begin.

    Args:
        replicas: Number of replicas.
        sentinels: Number of Sentinels; more than half of them decide.
        name: The name of the watched master.
        down_after: Seconds of silence after which a Sentinel takes the master for dead.
        failover_timeout: Seconds before a failed fail-over is tried again.
        config: Lines of redis.conf for the master and its replicas.
        valkey: Take Valkey instead of Redis.

    Example:
        >>> with SentinelServers() as servers:
        ...     before = servers.master.port
        ...     servers.failover()
        ...     servers.master.port != before
        True
    """

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        name: str = "mymaster",
        down_after: float = 0.5,
        failover_timeout: float = 5.0,
        config: Config | None = None,
        valkey: bool = False,
    ) -> None:
        server, sentinel = (ValkeyServer, _ValkeySentinelServer) if valkey else (RedisServer, SentinelServer)
        self.name = name
        self.redis: list[RedisServer] = [server(config=config) for _ in range(1 + replicas)]
        self.sentinels: list[SentinelServer] = [sentinel() for _ in range(sentinels)]
        self._quorum = sentinels // 2 + 1
        self._down_after = down_after
        self._failover_timeout = failover_timeout
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        return [sentinel.address for sentinel in self.sentinels]

    @property
    def host(self) -> str:
        """Host of the first Sentinel."""
        return self.sentinels[0].host

    @property
    def port(self) -> int:
        """Port of the first Sentinel."""
        return self.sentinels[0].port

    @property
    def pid(self) -> int:
        """Process id of the present master."""
        return self.master.pid

    @property
    def url(self) -> str:
        """``redis+sentinel://host:port,…/name/0``."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"redis+sentinel://{hosts}/{self.name}/0"

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name as the master now."""
        port = self._voted_master_port()
        return next(server for server in self.redis if server.port == port)

    @property
    def replicas(self) -> list[RedisServer]:
        """The servers that are not the master."""
        master = self.master
        return [server for server in self.redis if server is not master]

    def start(self) -> None:
        """Start all; return when each Sentinel knows the replicas and the other Sentinels."""
        with ExitStack() as stack:
            for server in (*self.redis, *self.sentinels):
                stack.callback(server.stop)
                server.start()

            first, *others = self.redis

            for replica in others:
                replica.command("REPLICAOF", first.host, first.port)

            for sentinel in self.sentinels:
                self._watch(sentinel, first)

            wait_until(lambda: all(self._linked(replica) for replica in others), "the replicas are linked")
            wait_until(self._settled, "the Sentinels know each other and the replicas")
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop all; may be called again."""
        self._stack.close()

    def kill(self) -> None:
        """SIGKILL the present master."""
        self.master.kill()

    def pause(self) -> None:
        """SIGSTOP the present master."""
        self.master.pause()

    def resume(self) -> None:
        """Let every paused Redis go on."""
        for server in self.redis:
            if server.running:
                server.resume()

    def restart(self) -> None:
        """Bring every ended server back on its port and data; running ones are left alone."""
        for server in (*self.redis, *self.sentinels):
            server.start()

    def failover(self, *, timeout: float = 30.0) -> None:
        """
        Make the Sentinels promote a replica, and wait until all of them agree on it.

        Args:
            timeout: Seconds to wait.
        """
        before = self.master
        sentinel = self.sentinels[0]

        def promoted() -> bool:
            if self._agree_on_another(before):
                return True

            state = self._state(sentinel)

            # A fail-over that has begun may end without a new master, when no replica has been heard of
            # lately, or be undone by a Sentinel that has not heard of it; and this one may be the last to
            # know `before`.
            if state["port"] == str(before.port) and "failover_in_progress" not in state["flags"]:
                with suppress(CommandError):  # no replica is fit yet
                    sentinel.command("SENTINEL", "FAILOVER", self.name)

            return False

        wait_until(promoted, f"another master than port {before.port} is promoted", timeout=timeout)

    def wait_failover(self, before: RedisServer, *, timeout: float = 30.0) -> None:
        """
        Wait until another server is the master and every Sentinel says so.

        Args:
            before: The master that has gone.
            timeout: Seconds to wait.
        """
        what = f"another master than port {before.port} is promoted"
        wait_until(lambda: self._agree_on_another(before), what, timeout=timeout)

    def _agree_on_another(self, before: RedisServer) -> bool:
        ports = {self._master_port(sentinel) for sentinel in self.sentinels if sentinel.running}

        if len(ports) != 1 or before.port in ports:
            return False

        return self.master.info("replication")["role"] == "master"

    def wait_settled(self, *, timeout: float = 30.0) -> None:
        """
        Wait until every running server but the master replicates from it.

        Args:
            timeout: Seconds to wait.
        """
        wait_until(
            lambda: all(self._linked(replica) for replica in self.replicas if replica.running),
            "the replicas follow the master",
            timeout=timeout,
        )
        wait_until(self._settled, "the Sentinels see all servers as well", timeout=timeout)

    def _watch(self, sentinel: SentinelServer, master: RedisServer) -> None:
        # By default Sentinels look at replicas every 10 s and speak to each other every 2 s. One that has not
        # heard of a fail-over within four times the latter makes the new master a replica again (sentinel.c,
        # "convert-to-slave"): a stall of a busy machine must be shorter than that.
        sentinel.command("SENTINEL", "DEBUG", "info-period", 200, "publish-period", 1000)
        sentinel.command("SENTINEL", "MONITOR", self.name, master.host, master.port, self._quorum)
        settings: dict[str, str | int] = {
            "down-after-milliseconds": max(1, round(self._down_after * 1000)),
            "failover-timeout": round(self._failover_timeout * 1000),
            "parallel-syncs": 1,
        }

        if password := master.config.get("requirepass"):
            settings["auth-pass"] = str(password)

        for option, value in settings.items():
            sentinel.command("SENTINEL", "SET", self.name, option, value)

    def _voted_master_port(self) -> int:
        ports = [self._master_port(sentinel) for sentinel in self.sentinels if sentinel.running]

        if not ports:
            raise ServerError("no Sentinel is running")

        return max(ports, key=ports.count)

    def _master_port(self, sentinel: SentinelServer) -> int:
        address = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        assert isinstance(address, list)
        return int(str(address[1]))

    def _state(self, sentinel: SentinelServer) -> dict[str, str]:
        reply = sentinel.command("SENTINEL", "MASTER", self.name)
        assert isinstance(reply, list)
        return dict(zip(map(str, reply[::2]), map(str, reply[1::2]), strict=True))

    def _linked(self, replica: RedisServer) -> bool:
        return replica.info("replication").get("master_link_status") == "up"

    def _settled(self) -> bool:
        for sentinel in self.sentinels:
            state = self._state(sentinel)
            others = int(state["num-other-sentinels"])

            if others != len(self.sentinels) - 1 or int(state["num-slaves"]) != len(self.redis) - 1:
                return False

            if state["flags"] != "master":
                return False

        return True


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 30.0) -> None:
    """
    Ask servers again and again until a condition holds.

    Args:
        condition: Asks; an error of the server or the connection counts as "not yet".
        what: The condition in words, for the error.
        timeout: Seconds to wait.

    Raises:
        ServerError: It does not hold in time; the last error is its cause.
    """
    deadline = time.monotonic() + timeout
    last: Exception | None = None

    while True:
        try:
            if condition():
                return
        except (OSError, ServerError) as error:
            last = error

        if time.monotonic() > deadline:
            raise ServerError(f"not within {timeout:g} s: {what}") from last

        time.sleep(0.01)
