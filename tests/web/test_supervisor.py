"""The supervisor: workers that end, fail, are stopped, and ignore it; with small programs as workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ws_core.errors import UnavailableError, UsageError
from ws_web._supervisor import Supervisor, WorkerCommand, _Worker, check_options, restart_delay
from ws_web.server import bind

READY = "import os, signal, sys, time; os.write(int(sys.argv[1]), b'{\"ready\": 1}\\n'); "


@dataclass(frozen=True, slots=True)
class Program(WorkerCommand):
    """A worker that runs this code; the descriptor of its report is the one argument."""

    async def start(self, place: int, size: int, **descriptors: int) -> asyncio.subprocess.Process:
        """Start it."""
        arguments = (sys.executable, "-c", self.app, str(descriptors["report"]))
        return await asyncio.create_subprocess_exec(*arguments, pass_fds=tuple(descriptors.values()))


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A listening socket."""
    with bind("127.0.0.1", 0) as sock:
        yield sock


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class TestSupervisor:
    """A number of workers, kept alive."""

    async def test_workers_run_and_stop(self, sock: socket.socket) -> None:
        """After the start each runs; after the stop none does."""
        async with Supervisor(Program(READY + "time.sleep(60)", {}), sock, 2) as supervisor:
            pids = supervisor.pids
            assert len(pids) == 2
            assert supervisor.serving == 2

        assert supervisor.serving == 0
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert supervisor.pids == []

    async def test_a_killed_worker_is_replaced(self, sock: socket.socket) -> None:
        """SIGKILL costs a worker, not the service."""
        said: list[str] = []

        async with Supervisor(Program(READY + "time.sleep(60)", {}), sock, 1, say=said.append) as supervisor:
            (pid,) = supervisor.pids
            os.kill(pid, signal.SIGKILL)
            await until(lambda: supervisor.pids and pid not in supervisor.pids)

            assert (supervisor.replaced, supervisor.failure) == (1, None)
            assert said == [f"worker {pid} was killed by SIGKILL; replacing it now"]

    async def test_a_worker_that_cannot_start_is_an_error(self, sock: socket.socket) -> None:
        """A failing start is reported at once, and nothing runs on."""
        supervisor = Supervisor(Program("raise SystemExit(4)", {}), sock, 2)

        with pytest.raises(UnavailableError, match="a worker process ended with code 4 while it started"):
            await supervisor.start()

        assert supervisor.pids == []

    async def test_workers_that_never_live_long_are_a_failure(
        self, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After five quick deaths in each place, whoever waits for the failure gets it."""
        monkeypatch.setattr("ws_web._supervisor._LONGEST_DELAY", 0.01)

        async with Supervisor(Program(READY + "raise SystemExit(1)", {}), sock, 1) as supervisor:
            await asyncio.wait_for(supervisor.failed.wait(), 60)
            assert isinstance(supervisor.failure, UnavailableError)

    async def test_a_bug_in_the_start_is_raised(self, sock: socket.socket) -> None:
        """Not waited for: a process that cannot be made at all."""

        class Broken(WorkerCommand):
            async def start(self, place: int, size: int, **descriptors: int) -> asyncio.subprocess.Process:
                raise OSError("no processes left")

        with pytest.raises(OSError, match="no processes left"):
            await Supervisor(Broken("", {}), sock, 2).start()

    async def test_stopping_what_was_not_started(self, sock: socket.socket) -> None:
        """Nothing runs, so nothing is to be done; also twice."""
        supervisor = Supervisor(Program("", {}), sock, 1)
        await supervisor.stop()
        await supervisor.stop()
        assert supervisor.pids == []

    async def test_stopping_while_it_starts(self, sock: socket.socket) -> None:
        """The start is called off, and no worker is left."""
        supervisor = Supervisor(Program("import time; time.sleep(60)", {}), sock, 2)
        starting = asyncio.create_task(supervisor.start())
        await until(lambda: len(supervisor.pids) == 2)
        await supervisor.stop()

        with pytest.raises(asyncio.CancelledError):
            await starting

        assert supervisor.pids == []

    async def test_a_worker_that_does_not_stop_is_killed(self, sock: socket.socket) -> None:
        """After the timeout, and it is said."""
        said: list[str] = []
        code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + READY + "time.sleep(60)"

        async with Supervisor(Program(code, {}), sock, 1, stop_timeout=0.2, say=said.append) as supervisor:
            (pid,) = supervisor.pids

        assert not psutil.pid_exists(pid)
        assert said == [f"worker {pid} did not stop within 0.2 s: killed"]


WORK = """
import signal, sys
from ws_core.errors import ConfigError
from ws_web.server import run_worker_process

def work(order, report_ready):
    assert sorted(order) == ["app", "board", "options", "parent", "path", "place", "report", "size"]

    if order["options"]["fails"]:
        raise ConfigError("no queue: name one")

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    report_ready()
    signal.sigwait({signal.SIGINT})

sys.exit(run_worker_process(sys.argv[1], work))
"""


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A directory with a program of a worker that serves nothing."""
    (tmp_path / "mail_worker.py").write_text(WORK)
    return str(tmp_path)


async def test_a_signal_takes_no_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that ends while it is sent signals has its own exit code, which asyncio's thread reads."""
    for _ in range(30):
        out, report = os.pipe()
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "trap '' USR1; exit 3")
        os.close(report)
        worker = _Worker(process, out, 0.0)

        while process.returncode is None:
            worker.send(signal.SIGUSR1)
            await asyncio.sleep(0)

        assert await worker.wait() in {3, -signal.SIGUSR1}

    assert "Unknown child process" not in caplog.text


class TestPrograms:
    """Workers that serve nothing, and have no socket."""

    async def test_it_runs_until_it_is_stopped(self, directory: str) -> None:
        """It gets what it needs, reports that it is ready, and ends in order."""
        command = WorkerCommand("", {"fails": False}, directory=directory, program="mail_worker")

        async with Supervisor(command, None, 1) as supervisor:
            (worker,) = [psutil.Process(pid) for pid in supervisor.pids]
            assert supervisor.serving == 1

        assert not worker.is_running()
        assert supervisor.replaced == 0

    async def test_why_it_cannot_start(self, directory: str) -> None:
        """The message of its error is the supervisor's."""
        command = WorkerCommand("", {"fails": True}, directory=directory, program="mail_worker")

        with pytest.raises(UnavailableError, match="no queue: name one"):
            await Supervisor(command, None, 1).start()


class TestDecisions:
    """What the supervisor computes."""

    def test_delays(self) -> None:
        """None for the first death, then doubling up to ten seconds."""
        assert [restart_delay(n) for n in range(12)][-1] == 10.0
        assert restart_delay(0) == restart_delay(1) == 0.0

    def test_options_must_fit_into_json(self) -> None:
        """They go to another process."""
        check_options({"log_level": "info"})

        with pytest.raises(UsageError, match="option ssl"):
            check_options({"ssl": object()})
