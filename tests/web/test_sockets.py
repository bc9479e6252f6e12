"""Opening sockets: alone, or several on one port; and why that may fail."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from ws_core.errors import ConfigError
from ws_web.server import bind, join, reserve

Opener = Callable[[str, int], socket.socket]


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """Hold a free port for workers."""
    with reserve("127.0.0.1", 0) as sock:
        yield sock


class TestSharing:
    """A parent that holds a port, and workers that join it."""

    def test_nobody_listens_before_a_worker_does(self, held: socket.socket) -> None:
        """The parent's socket takes no connections that nobody would serve."""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(held.getsockname())

    def test_workers_get_connections_each(self, held: socket.socket) -> None:
        """Both do within 200 connections; one is missed by all of them once in 2**199 times."""
        with join(*held.getsockname()) as first, join(*held.getsockname()) as second:
            for sock in (first, second):
                sock.listen(256)
                sock.setblocking(False)

            clients = [socket.create_connection(held.getsockname()) for _ in range(200)]
            counts = [_accepted(sock) for sock in (first, second)]

            for client in clients:
                client.close()

        assert sum(counts) == 200
        assert all(counts)

    def test_a_second_parent_is_refused_at_once(self, held: socket.socket) -> None:
        """Also while no worker listens yet, so that two that start together do not share the port."""
        host, port = held.getsockname()

        with pytest.raises(ConfigError, match=rf"{host}:{port} is in use by another program"):
            reserve(host, port)

    def test_a_second_parent_is_refused_while_workers_listen(self, held: socket.socket) -> None:
        """Sharing is for the workers of one parent."""
        host, port = held.getsockname()

        with join(host, port) as worker:
            worker.listen()

            with pytest.raises(ConfigError, match=rf"{host}:{port} is in use by another program"):
                reserve(host, port)

            with pytest.raises(ConfigError, match=rf"{host}:{port} is in use by another program"):
                bind(host, port)

    def test_closing_connections_are_no_hindrance(self) -> None:
        """A port whose last server has just ended can be held at once."""
        with bind("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            client = socket.create_connection(("127.0.0.1", port))
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps the address for a while
            client.close()

        with reserve("127.0.0.1", port) as held, join(*held.getsockname()) as worker:
            worker.listen()
            socket.create_connection(("127.0.0.1", port)).close()

    def test_ipv6(self) -> None:
        """An IPv6 address is as good."""
        with reserve("::1", 0) as held, join(*held.getsockname()[:2]) as worker:
            assert worker.family == socket.AF_INET6


class TestNotPossible:
    """The message names the address, and what to choose."""

    @pytest.fixture(params=[bind, reserve])
    def opener(self, request: pytest.FixtureRequest) -> Opener:
        """Give each way to open the first socket."""
        function: Opener = request.param
        return function

    @pytest.mark.parametrize(
        ("error", "host", "message"),
        [
            (
                PermissionError(13, "Permission denied"),
                "127.0.0.1",
                r"no permission to listen on 127\.0\.0\.1:80: choose a LISTEN_PORT of 1024 or above",
            ),
            (
                OSError(105, "No buffer space available"),
                "::1",
                r"cannot listen on \[::1\]:80: No buffer space available",
            ),
        ],
    )
    def test_the_system_refuses(
        self, opener: Opener, monkeypatch: pytest.MonkeyPatch, error: OSError, host: str, message: str
    ) -> None:
        """Ports below 1024 are the system's; anything else is told in its words."""

        def refuse(self: object, address: object) -> None:
            raise error

        monkeypatch.setattr(socket.socket, "bind", refuse)

        with pytest.raises(ConfigError, match=message):
            opener(host, 80)

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_an_address_that_is_not_ours(self, opener: Opener, host: str) -> None:
        """An address of another machine, or a name of none."""
        with pytest.raises(ConfigError, match=f"{host} is no address of this machine: .* LISTEN_HOST"):
            opener(host, 0)

    def test_names_of_the_caller(self) -> None:
        """A program with options of its own has them in the message."""
        with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="choose another --port"):
            reserve(*taken.getsockname(), names=("--host", "--port"))


def _accepted(sock: socket.socket) -> int:
    count = 0

    while True:
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            return count

        connection.close()
        count += 1
