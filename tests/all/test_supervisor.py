"""Worker processes: started, watched, replaced, stopped; with small programs in place of the shop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.all._support import environment, until
from wintersweet.demo import worker
from wintersweet.demo.supervisor import Supervisor
from ws_core.errors import UnavailableError
from ws_web.server import reserve

READY = "import os, sys, signal, time; os.write(1, b'ready\\n')"


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """Hold a free port."""
    with reserve("127.0.0.1", 0) as sock:
        yield sock


def program(code: str) -> tuple[str, ...]:
    """Return the command of a worker that runs this code."""
    return (sys.executable, "-c", textwrap.dedent(code))


class TestSupervisor:
    """A number of workers, kept alive."""

    async def test_workers_serve_and_stop(self, sock: socket.socket) -> None:
        """After the start each worker runs; after the stop none does."""
        async with Supervisor(sock, 2, command=program(f"{READY}; time.sleep(60)")) as supervisor:
            pids = supervisor.pids
            assert len(pids) == 2

        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert supervisor.pids == []

    async def test_a_killed_worker_is_replaced(self, sock: socket.socket) -> None:
        """SIGKILL costs a worker, not the service, and is reported."""
        told: list[str] = []
        command = program(f"{READY}; time.sleep(60)")

        async with Supervisor(sock, 1, command=command, notice=told.append) as supervisor:
            (pid,) = supervisor.pids
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(until, lambda: supervisor.pids and pid not in supervisor.pids)

            assert (supervisor.replaced, supervisor.failure) == (1, None)
            assert told == [f"worker {pid} ended by SIGKILL; a new one takes its place"]

    async def test_a_worker_that_cannot_start_is_an_error(self, sock: socket.socket) -> None:
        """A failing start is reported at once and nothing runs on."""
        supervisor = Supervisor(sock, 2, command=program("raise SystemExit(3)"))

        with pytest.raises(UnavailableError, match=r"worker \d+ ended with status 3 while it started"):
            await supervisor.start()

        assert supervisor.pids == []

    async def test_a_worker_that_fails_soon_after_its_start_is_not_started_for_ever(
        self, sock: socket.socket
    ) -> None:
        """An application that fails at once is a failure, not a loop of restarts."""
        command = program(f"{READY}; time.sleep(0.3); raise SystemExit(1)")

        async with Supervisor(sock, 1, command=command) as supervisor:
            await asyncio.wait_for(supervisor.failed.wait(), 20)

            assert isinstance(supervisor.failure, UnavailableError)
            assert supervisor.replaced == 0

    async def test_stopping_what_was_not_started(self, sock: socket.socket) -> None:
        """Nothing runs, so nothing is to be done; also twice."""
        supervisor = Supervisor(sock, 1)

        await supervisor.stop()
        await supervisor.stop()

        assert supervisor.pids == []

    async def test_stopping_before_a_worker_is_made(self, sock: socket.socket, tmp_path: Path) -> None:
        """No worker is made any more, and the wait for the start ends with an error."""
        mark = tmp_path / "made"
        command = program(f"open({str(mark)!r}, 'w').close(); {READY}; time.sleep(60)")
        supervisor = Supervisor(sock, 2, command=command)
        starting = asyncio.create_task(supervisor.start())
        await asyncio.sleep(0)  # the keepers are tasks now that have not run yet
        await supervisor.stop()

        with pytest.raises(asyncio.CancelledError):
            await starting

        assert (supervisor.pids, mark.exists()) == ([], False)

    async def test_stopping_while_a_worker_is_made(
        self, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that comes to be during the stop, and was not there to be stopped, is stopped as well."""
        supervisor = Supervisor(sock, 1, command=program("import time; time.sleep(60)"))
        spawn = supervisor._spawn
        made: list[asyncio.subprocess.Process] = []
        stopping: list[asyncio.Task[None]] = []

        async def spawn_and_stop() -> asyncio.subprocess.Process:
            made.append(await spawn())
            stopping.append(asyncio.create_task(supervisor.stop()))
            await asyncio.sleep(0)  # the stop is under way, and knows of no worker
            return made[0]

        monkeypatch.setattr(supervisor, "_spawn", spawn_and_stop)

        with pytest.raises(asyncio.CancelledError):
            await supervisor.start()

        await stopping[0]
        assert [process.returncode for process in made] == [-signal.SIGTERM]

    async def test_the_first_failure_counts(self, sock: socket.socket) -> None:
        """What fails after it is mostly its consequence."""
        supervisor = Supervisor(sock, 2)
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        supervisor._fail("no disk", first)
        supervisor._fail("no shop", second)

        assert str(supervisor.failure) == "no disk"
        assert [str(one.exception()) for one in (first, second)] == ["no disk", "no shop"]

    async def test_a_worker_that_ignores_sigterm_is_killed(self, sock: socket.socket) -> None:
        """The grace ends; so does the worker."""
        told: list[str] = []
        code = f"{READY.replace('os.write', 'signal.signal(15, signal.SIG_IGN); os.write')}; time.sleep(60)"

        async with Supervisor(sock, 1, command=program(code), notice=told.append, grace=0.2) as supervisor:
            (pid,) = supervisor.pids

        assert not psutil.pid_exists(pid)
        assert told == ["1 workers did not stop within 0.2 s and were killed"]

    async def test_workers_share_the_port(self, sock: socket.socket) -> None:
        """Each worker gets its share of the connections."""
        code = """
            import os, sys
            from ws_web.server import join

            with join(sys.argv[1], int(sys.argv[2])) as sock:
                sock.listen()
                os.write(1, b'ready\\n')

                while True:
                    connection, _ = sock.accept()
                    connection.sendall(str(os.getpid()).encode())
                    connection.close()
        """
        seen: set[int] = set()

        async with Supervisor(sock, 2, command=program(code)) as supervisor:
            for _ in range(200):  # each worker is missed by all of them once in 2**199 times
                reader, writer = await asyncio.open_connection(*sock.getsockname())
                seen.add(int(await reader.read()))
                writer.close()
                await writer.wait_closed()

            assert sorted(seen) == supervisor.pids

    def test_a_worker_sees_when_the_parent_is_gone(self, tmp_path: Path) -> None:
        """Kill the parent with SIGKILL, and the pipe that only it held open notifies the workers."""
        worker = f"{READY}; sys.stdin.buffer.read(); open(sys.argv[1], 'w').close()"
        parent = program("""
            import asyncio, sys
            from wintersweet.demo.supervisor import Supervisor
            from ws_web.server import reserve

            async def main():
                with reserve("127.0.0.1", 0) as sock:
                    async with Supervisor(sock, 1, command=(sys.executable, "-c", *sys.argv[1:])):
                        print("serving", flush=True)
                        await asyncio.sleep(60)

            asyncio.run(main())
        """)
        gone = tmp_path / "gone"

        with subprocess.Popen([*parent, worker, str(gone)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"serving\n"
            process.kill()

        until(gone.exists)


class TestWorker:
    """The worker's own program."""

    BUG = """
        from contextlib import asynccontextmanager

        from ws_web import create_app

        @asynccontextmanager
        async def lifespan(app):
            raise ZeroDivisionError("a bug")
            yield

        app = create_app(lifespan=lifespan)
    """

    def test_a_bug_is_told_by_its_last_line(self, sock: socket.socket, tmp_path: Path) -> None:
        """The parent gets a message, and whoever wrote the application the traceback."""
        (tmp_path / "bug.py").write_text(textwrap.dedent(self.BUG))
        reading, writing = os.pipe()  # the lifeline: the worker would stop at its end

        try:
            done = subprocess.run(
                [sys.executable, "-m", "wintersweet.demo.worker", *map(str, sock.getsockname())],
                env=environment(WINTERSWEET_DEMO_APP="bug:app", PYTHONPATH=str(tmp_path)),
                stdin=reading,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            os.close(reading)
            os.close(writing)

        assert (done.returncode, done.stdout) == (1, "failed: ZeroDivisionError: a bug\n")
        assert "Traceback" in done.stderr

    def test_it_stops_itself_when_the_parent_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes through the lifeline is of no matter, but its end is SIGTERM to the process itself."""
        reading, writing = os.pipe()
        os.write(writing, b"x")
        os.close(writing)
        sent: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda *call: sent.append(call))

        with os.fdopen(reading) as lifeline:
            monkeypatch.setattr(sys, "stdin", lifeline)
            worker._stop_with_parent()

        assert sent == [(os.getpid(), signal.SIGTERM)]
