"""What the demo says of itself: where it is, and where its log is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from wintersweet._cli.service import local_url
from wintersweet.demo import command
from wintersweet.demo.backends import Backends
from ws_web.server import Supervisor, WorkerCommand, bind


class TestUrl:
    """Where a browser finds the shop."""

    @pytest.mark.parametrize(
        ("host", "url"),
        [("0.0.0.0", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("shop", "http://shop:80")],
    )
    def test_a_host(self, host: str, url: str) -> None:
        """All addresses are this machine's own; an IPv6 address is in brackets."""
        assert local_url(host, 80) == url

    def test_the_start_without_a_log_of_ours(self) -> None:
        """Where the settings say how to log, no place of a log is shown."""
        shown = io.StringIO()
        console = Console(file=shown, width=200)
        found = Backends(Path("/state"), ("MySQL", "Redis"), {}, {}, None)

        with bind("127.0.0.1", 0) as sock:
            supervisors = [Supervisor(WorkerCommand("shop:app", {}), sock, 1)]
            command._show_start(console, "http://shop", found, supervisors)

        assert "on MySQL and Redis" in shown.getvalue()
        assert "Log" not in shown.getvalue()
