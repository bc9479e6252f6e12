"""Opening a socket to listen on, and why that may fail."""

from __future__ import annotations

import socket

import pytest

from ws_core.errors import ConfigError
from ws_web.server import bind


class TestBind:
    """One socket for all workers."""

    def test_it_listens_alone(self) -> None:
        """A second server is refused at once, also when both are just starting."""
        with bind("127.0.0.1", 0) as listener:
            host, port = listener.getsockname()
            socket.create_connection((host, port)).close()

            with pytest.raises(ConfigError, match=rf"{host}:{port} is in use by another program"):
                bind(host, port)

    def test_closing_connections_are_no_hindrance(self) -> None:
        """A port whose last server has just ended can be taken at once."""
        with bind("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            client = socket.create_connection(("127.0.0.1", port))
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps the address for a while
            client.close()

        with bind("127.0.0.1", port):
            socket.create_connection(("127.0.0.1", port)).close()

    def test_ipv6(self) -> None:
        """An IPv6 address is as good."""
        with bind("::1", 0) as listener:
            assert listener.family == socket.AF_INET6


class TestNotPossible:
    """The message names the address, and what to choose."""

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
        self, monkeypatch: pytest.MonkeyPatch, error: OSError, host: str, message: str
    ) -> None:
        """Ports below 1024 are the system's; anything else is reported in its words."""

        def refuse(self: object, address: object) -> None:
            raise error

        monkeypatch.setattr(socket.socket, "bind", refuse)

        with pytest.raises(ConfigError, match=message):
            bind(host, 80)

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_an_address_that_is_not_ours(self, host: str) -> None:
        """An address of another machine, or a name of none."""
        with pytest.raises(ConfigError, match=f"{host} is not an address of this machine: .* LISTEN_HOST"):
            bind(host, 0)

    def test_names_of_the_caller(self) -> None:
        """A program with options of its own has them in the message."""
        with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="choose another --port"):
            bind(*taken.getsockname(), names=("--host", "--port"))
