"""The command line's frame, and the demo's: versions, interrupts, signals, failures, left directories."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import pytest

from tests.all._support import environment, wintersweet
from wintersweet.demo import backends, command
from wintersweet.demo.chores import Chores
from wintersweet.demo.command import or_failure
from wintersweet.demo.live import Board
from wintersweet.demo.load import Crowd
from wintersweet.demo.shop import Released, Shop
from ws_core.errors import ConfigError, UnavailableError
from ws_pool.redis import RedisPool
from ws_web.server import Supervisor, WorkerCommand, bind


class TestMain:
    """The frame around all commands."""

    def test_the_version(self) -> None:
        """It is printed in one line, without a command."""
        outcome = wintersweet("--version")

        assert (outcome.status, outcome.err) == (0, "")
        assert re.fullmatch(r"wintersweet \d+\.\d+\S*\n", outcome.out)

    def test_completion(self, tmp_path: Path) -> None:
        """A shell is given the commands that begin as typed."""
        env = {"_WINTERSWEET_COMPLETE": "complete_bash", "COMP_WORDS": "wintersweet r", "COMP_CWORD": "1"}
        done = subprocess.run(
            [Path(sys.executable).with_name("wintersweet")],
            env=environment(**env),
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.stdout.split() == ["run", "routes"]

    def test_an_interrupt(self) -> None:
        """Ctrl-C where a command has no way out of its own is the shell's status for it, and no traceback."""
        code = (
            "import signal; from wintersweet import cli; cli.app = lambda: signal.raise_signal(2); cli.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout) == (130, "")
        assert "Traceback" not in done.stderr


class TestUntilTold:
    """A demo that signals end in order."""

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
    async def test_a_second_signal_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
    ) -> None:
        """The way out goes on to its end, and the first signal decides the status."""
        undone: list[str] = []
        other = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT

        async def demo(options: command.Options) -> Never:
            signal.raise_signal(number)

            try:
                await asyncio.Event().wait()
            finally:
                signal.raise_signal(other)
                heard = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
                signal.raise_signal(signal.SIGUSR1)
                await heard.wait()  # the loop has taken the signal before it too
                asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
                undone.append("all")

            raise AssertionError

        monkeypatch.setattr(command, "_demo", demo)

        assert await command._run_until_signal(command.Options()) == status
        assert undone == ["all"]

    async def test_a_cancellation_is_no_signal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cancelled by somebody else, it is cancelled, and has undone everything."""
        began, undone = asyncio.Event(), asyncio.Event()

        async def demo(options: command.Options) -> Never:
            began.set()

            try:
                await asyncio.Event().wait()
            finally:
                undone.set()

            raise AssertionError

        monkeypatch.setattr(command, "_demo", demo)
        running = asyncio.create_task(command._run_until_signal(command.Options()))
        await began.wait()
        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running

        assert undone.is_set()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """Hold a free port."""
    with bind("127.0.0.1", 0) as sock:
        yield sock


async def test_no_shop_ends_the_rush(sock: socket.socket) -> None:
    """When no worker serves any more, buyers who would ask for ever are sent home with the reason."""
    gone = asyncio.Event()
    supervisor = Supervisor(WorkerCommand("shop:app", {}), sock, 1)

    async def post(path: str, body: object, key: str) -> Never:
        supervisor._fail("no worker can start")

        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

        raise AssertionError

    with pytest.raises(UnavailableError, match="no worker can start"):
        await or_failure(Crowd(post, [1], 3).run(), [supervisor])

    assert gone.is_set()


async def test_only_released_orders_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An item of which nothing was released is not news."""
    told: list[dict[str, object]] = []

    class Releasing(Shop):
        async def release_unpaid(self) -> list[Released]:
            return [Released(1, []), Released(2, [7, 8])]

    class Listening(Board):
        def __init__(self) -> None:
            """Receive, without a bus."""

        def publish(self, tag: str, **event: object) -> None:
            told.append({"tag": tag, **event})

    shop = Releasing(RedisPool(url="redis://localhost:1/0"))
    await Chores(shop, Listening()).release()

    assert told == [{"tag": "released", "item": 2, "orders": [7, 8]}]


class TestState:
    """Where the demo keeps its files."""

    @pytest.fixture
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the directory in which temporary ones are made."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return tmp_path

    @pytest.fixture
    def left(self, temporary: Path) -> Path:
        """Return the mark of a directory that a killed demo has left."""
        mark = temporary / "wintersweet-demo-left" / "owner"
        mark.parent.mkdir()
        mark.touch()
        return mark

    def test_what_nobody_owns_is_removed(self, left: Path) -> None:
        """The next demo tidies up."""
        with backends._state(None) as state:
            assert state.is_dir()
            assert not left.exists()

        assert not state.exists()

    def test_what_is_in_use_stays(self, left: Path) -> None:
        """A demo that runs holds its mark, and keeps its directory."""
        with left.open("rb") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)

            with backends._state(None):
                assert left.exists()

    def test_what_is_another_users_stays(self, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even root, who might, does not remove it."""
        monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)

        with backends._state(None):
            assert left.exists()

    def test_no_temporary_directory(self, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The remedy is another directory."""
        monkeypatch.setattr("tempfile.tempdir", str(temporary / "nowhere"))

        with (
            pytest.raises(ConfigError, match=r"No such file or directory.*--state-dir"),
            backends._state(None),
        ):
            raise AssertionError
