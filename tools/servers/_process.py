"""One server process of our own: start, watch, kill, pause, restart, stop.

The process dies with us (PR_SET_PDEATHSIG through setpriv), so that a test run that is killed
leaves nothing behind. It is only ever signalled by its own process id.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from tools.servers._ports import HOST, PortReservation, listens

__all__ = ("CommandError", "Server", "ServerError")

_STARTS = 5
_MEMORY = Path("/dev/shm")  # noqa: S108 - only folders of unguessable names are made in it
_ROOM = 4 * 1024**3
_running: set[Server] = set()


class ServerError(Exception):
    """A server did not come up, or was asked for something it cannot do; the message has its log."""


class CommandError(ServerError):
    """The server answered with an error; the text begins with the name of the client's error class."""


class Server:
    """
    Base of the servers: a process with a port, a folder of its own, and a log.

    Starting and stopping block for some hundredths of a second up to seconds; from a coroutine
    call them through ``asyncio.to_thread`` when the loop must go on meanwhile.
    """

    kind = "server"
    start_timeout = 60.0
    stop_timeout = 20.0

    def __init__(self) -> None:
        self.host = HOST
        self.port = 0
        self.folder: Path | None = None
        self._reservations: list[PortReservation] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<{type(self).__name__} {self.host}:{self.port} {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as ``socket.create_connection`` takes them."""
        return self.host, self.port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.kind} on port {self.port} is not running")

        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """The URL that clients take."""
        raise NotImplementedError

    def start(self) -> None:
        """Start on the same port and data as before; on a free port and no data the first time."""
        if self.running:
            return

        if self.folder is None:
            _sweep()
            prefix = f"ws-server-{os.getpid()}-{self.kind}-"
            self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_parent()))
            self._start_first()
        else:
            self._launch()

        _running.add(self)

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash does; `start` or `restart` brings it back."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """Stop all threads of the process (SIGSTOP): connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True
        deadline = time.monotonic() + self.stop_timeout

        while not _stands(self.pid):
            if time.monotonic() > deadline:
                raise ServerError(f"{self!r} does not stop")

            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def restart(self) -> None:
        """Shut the server down in good order if it runs, and start it on the same port and data."""
        if self.running:
            if self._paused:
                self.resume()

            self._shut_down()

        self.start()

    def stop(self) -> None:
        """End the process and remove all that it wrote; may be called again."""
        if self._process is not None:  # asked first whether it runs, it could end between question and signal
            self._process.kill()  # its data goes too, so that there is nothing to shut down in good order
            self._reap()

        _running.discard(self)

        for reservation in self._reservations:
            reservation.release()

        self._reservations.clear()

        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def log(self) -> str:
        """Return the last part of the server's log, at most 8 KiB."""
        if self.folder is None:
            return ""

        path = self.folder / "log"
        return path.read_bytes()[-8192:].decode(errors="replace") if path.exists() else ""

    def _reserve_port(self) -> int:
        reservation = PortReservation()
        self._reservations.append(reservation)
        return reservation.port

    def _choose_ports(self) -> None:
        """Set `port` and any other port the server needs."""
        self.port = self._reserve_port()

    def _prepare(self) -> None:
        """Write what the first start needs into `folder`."""

    def _command(self) -> list[str]:
        """Return the command line; the process stays in the foreground."""
        raise NotImplementedError

    def _privileges(self) -> list[str]:
        """Return options of setpriv for a server that must not run as root."""
        return []

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C"}

    def _is_ready(self) -> bool:
        """Ask through the protocol whether the server serves; raise OSError while it does not listen."""
        raise NotImplementedError

    def _ask_to_end(self) -> None:
        """Ask the server to shut down in good order; nothing happens when it has just ended."""
        assert self._process is not None
        self._process.terminate()

    def _start_first(self) -> None:
        """Start for the first time; another port when a stranger took ours meanwhile."""
        for attempt in range(1, _STARTS + 1):
            self._choose_ports()
            self._prepare()

            try:
                self._launch()
            except ServerError:
                if attempt == _STARTS or "ddress already in use" not in self.log():
                    self.stop()
                    raise
            else:
                return

    def _launch(self) -> None:
        assert self.folder is not None
        command = self._command()
        setpriv = shutil.which("setpriv")

        if setpriv is not None:
            command = [setpriv, "--pdeathsig", "KILL", *self._privileges(), *command]

        self._process = _spawn(command, self.folder, self._environment())
        deadline = time.monotonic() + self.start_timeout
        pause = 0.002

        while not self._answers():
            if not self.running:
                code = self._process.returncode
                raise ServerError(f"{self.kind} ended at its start with code {code}. Its log:\n{self.log()}")

            if time.monotonic() > deadline:
                self._process.kill()
                self._reap()
                raise ServerError(
                    f"{self.kind} did not serve within {self.start_timeout:g} s. Its log:\n{self.log()}"
                )

            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _answers(self) -> bool:
        try:
            return self._is_ready() and self.running and listens(self.pid, self.port)
        except OSError:
            return False

    def _shut_down(self) -> None:
        assert self._process is not None
        self._ask_to_end()

        try:
            self._process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()

        self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._paused = False


# PR_SET_PDEATHSIG speaks of the thread that started the child, not of the process. So all
# children are started by one thread that lives as long as the process does.
_spawner: tuple[int, ThreadPoolExecutor] | None = None
_spawner_lock = Lock()


def _spawn(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    global _spawner  # noqa: PLW0603 - one spawner per process is the point

    with _spawner_lock:
        if _spawner is None or _spawner[0] != os.getpid():  # a fork has no threads but its own
            _spawner = os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="ws-servers")

        executor = _spawner[1]

    def start() -> subprocess.Popen[bytes]:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the test run, not for its servers
            )

    return executor.submit(start).result()


def _stands(pid: int) -> bool:
    """Return whether each thread of a process is stopped: they stop one by one, a moment after the signal."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]

            if state not in {b"T", b"t", b"X", b"Z"}:
                return False

    return True


@atexit.register
def _stop_all() -> None:
    """End what a test run left running, and remove its folders."""
    for server in list(_running):
        server.stop()


@functools.cache
def _parent() -> Path:
    """Return where the folders of servers are made: in memory if there is room, and TMPDIR names no place."""
    # There a database is made and dropped five times faster: ext4 searches for inodes that were not freed
    # within the last seconds. Containers often have no more than 64 MB.
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ROOM:
        return Path(tempfile.gettempdir())

    return _MEMORY


@functools.cache
def _sweep() -> None:
    """Remove what runs that were killed have left; once per process."""
    parents = (Path(tempfile.gettempdir()), _MEMORY)

    for folder in itertools.chain.from_iterable(parent.glob("ws-server-*") for parent in parents):
        owner = int(folder.name.split("-")[2])

        try:
            os.kill(owner, 0)
        except ProcessLookupError:  # and its servers have died with it
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's
