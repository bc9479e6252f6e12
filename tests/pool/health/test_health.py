"""Health checkers: one process, and all workers of a service with kill -9 among them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clock import Clock
from ws_core.component import Health
from ws_pool._health import process_table
from ws_pool._health.process_table import ProcessTable, process_start, runtime_directory
from ws_pool.errors import AcquireTimeout, ConfigError, UnavailableError, UsageError
from ws_pool.health import HealthChecker, ProcessHealthChecker

WORKER = Path(__file__).with_name("health_worker.py")


class Pool:
    """Something with a name and a health."""

    def __init__(self, name: str, health: Health | Exception) -> None:
        self.name = name
        self.answer = health

    async def health(self) -> Health:
        """Answer, or raise."""
        if isinstance(self.answer, Exception):
            raise self.answer

        return self.answer


class TestHealthChecker:
    async def test_healthy(self) -> None:
        """With good answers the process is healthy, and `detail` says why when it is not."""
        clock = Clock()
        checker = HealthChecker(5, 15, checks=[Pool("a", Health(ok=True))], clock=clock)
        assert (checker.health, checker.detail) == (False, "not checked yet")
        assert repr(checker) == "<HealthChecker new>"

        async with checker:
            assert checker.detail == ""
            assert repr(checker) == "<HealthChecker healthy>"
            clock.now += 15.5
            assert (checker.health, checker.detail) == (False, "the last answer is 15.5 s old")

        assert checker.detail == "not checked yet"
        await checker.close()

    async def test_checks(self) -> None:
        """Each check has its part; a failing, raising or silent one makes the whole fail."""

        async def good() -> bool:
            return True

        async def bad() -> Health:
            return Health(ok=False, detail="full")

        async def hangs() -> bool:
            await asyncio.Event().wait()
            return True

        class Nameless:
            async def __call__(self) -> bool:
                return False

        full = Pool("full", AcquireTimeout("no connection was free within 1 s"))
        pools = [Pool("default", Health(ok=True)), Pool("default", ConnectionError("gone")), full]
        checker = HealthChecker(0.01, 0.02, checks=[good, bad, hangs, *pools, Nameless()])
        health = await checker.check()
        prefix = "TestHealthChecker.test_checks.<locals>."
        assert {name: part.ok for name, part in health.parts.items()} == {
            f"{prefix}good": True,
            f"{prefix}bad": False,
            f"{prefix}hangs": False,
            "default": True,
            "default (5)": False,
            "full": False,
            "Nameless": False,
        }
        assert f"{prefix}bad: full" in health.detail
        assert "hangs: no answer within 0.02 s" in health.detail
        assert "default (5): ConnectionError: gone" in health.detail
        assert "full: AcquireTimeout: no connection was free within 1 s" in health.detail, (
            "a timeout of its own"
        )
        assert "Nameless: not well" in health.detail

    async def test_goes_on(self) -> None:
        """Rounds go on in the background, and bring the latest answer."""
        answers = iter([True, False])
        asked = asyncio.Event()

        async def check() -> bool:
            answer = next(answers, None)

            if answer is None:
                asked.set()
                return False

            return answer

        async with HealthChecker(0.001, 10, checks=[check]) as checker:
            await asked.wait()
            assert repr(checker) == f"<HealthChecker not healthy: {checker.detail}>"

    async def test_misuse(self) -> None:
        """Starting twice and times that make no sense are refused."""
        async with HealthChecker() as checker:
            with pytest.raises(UsageError, match="running already"):
                await checker.start()

        for interval, timeout in ((0, 1), (1, 1), (2, 1), (1, float("inf"))):
            with pytest.raises(ConfigError, match=r"give 0 < interval < timeout|must be a number, not inf"):
                HealthChecker(interval, timeout)


class TestSlots:
    def test_file(self, tmp_path: Path) -> None:
        """The file is its owner's alone, holds living processes, and goes with the last one."""
        path = tmp_path / "table"
        one, two = ProcessTable(path), ProcessTable(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        one.heartbeat(5.0, healthy=True)
        two.heartbeat(6.0, healthy=False)
        assert [(record.pid, record.heartbeat, record.healthy) for record in two.alive()] == [
            (os.getpid(), 5.0, True),
            (os.getpid(), 6.0, False),
        ]
        one.close()
        assert len(two.alive()) == 1
        two.close()
        assert not path.exists()

    async def test_without_posix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where processes cannot share a file, a checker speaks for one, without a file and signals."""
        monkeypatch.setattr(process_table, "fcntl", None)
        monkeypatch.delattr(os, "geteuid")
        monkeypatch.setattr(os, "kill", _forbidden)

        with pytest.raises(ConfigError, match="cannot share their health on this system: give 1"):
            ProcessHealthChecker(2)

        async with ProcessHealthChecker(1, directory=tmp_path) as checker:
            assert checker.health, checker.detail
            assert checker._path is None

        assert checker.detail == "not checked yet"

    def test_abandoned_tables(self, tmp_path: Path) -> None:
        """Files of services that were killed whole are removed; those of others are left alone."""
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        living = ProcessTable(tmp_path / "t-living")
        dead, locked, elsewhere = (ProcessTable(tmp_path / f"t-{n}") for n in ("dead", "locked", "other"))

        for table in (dead, locked, elsewhere):
            process_table._RECORD.pack_into(table._map, table._offset, ended.pid, 5, 1.0, 1)

        process_table._HEAD.pack_into(elsewhere._map, 0, process_table._MAGIC, 7)  # of another container
        (tmp_path / "t-link").symlink_to(tmp_path / "t-dead")
        (tmp_path / "t-short").write_text("x")
        (tmp_path / "t-foreign").write_bytes(bytes(process_table._SIZE))
        (tmp_path / "t-folder").mkdir()
        (tmp_path / "u-dead").write_bytes((tmp_path / "t-dead").read_bytes())

        with locked._locked():
            process_table.remove_abandoned(tmp_path, "t-")

        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "t-folder", "t-foreign", "t-link", "t-living", "t-locked", "t-other", "t-short", "u-dead",
        ]  # fmt: skip

        for table in (dead, locked, elsewhere):
            table.close_inherited()

        living.close()

    def test_the_dead_make_room(self, tmp_path: Path) -> None:
        """A dead process's record is taken over, and so is that of another process with its pid."""
        path = tmp_path / "table"
        first = ProcessTable(path)
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()

        for pid, start in ((ended.pid, 5), (os.getpid(), 1)):
            process_table._RECORD.pack_into(first._map, first._offset, pid, start, 1.0, 1)
            assert first.alive() == []
            second = ProcessTable(path)
            assert second._offset == first._offset
            second.close_inherited()

        first.close()

    def test_all_taken(self, tmp_path: Path) -> None:
        """A full table is an error that says so."""
        files = [ProcessTable(tmp_path / "table") for _ in range(process_table._CAPACITY)]

        with pytest.raises(UnavailableError, match="all 127 records are taken"):
            ProcessTable(tmp_path / "table")

        for file in files:
            file.close()

    def test_what_is_not_ours(self, tmp_path: Path) -> None:
        """Links, other people's files and files with other contents are refused."""
        target = tmp_path / "target"
        target.write_bytes(b"precious")
        (tmp_path / "link").symlink_to(target)

        with pytest.raises(UnavailableError, match="cannot open"):
            ProcessTable(tmp_path / "link")

        with pytest.raises(ConfigError, match="holds something else"):
            ProcessTable(target)

        assert target.read_bytes() == b"precious"
        os.mkfifo(tmp_path / "fifo")

        with pytest.raises(ConfigError, match="not a plain file"):
            ProcessTable(tmp_path / "fifo")

        with pytest.raises(UnavailableError, match="cannot open"):
            ProcessTable(tmp_path / "none" / "table")

    def test_removed_while_opening(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that opens a file which the last one just removes makes a new one."""
        path = tmp_path / "table"
        path.touch()
        opened = os.open
        calls: list[object] = []

        def opens(*args: Any) -> int:
            descriptor = opened(*args)

            if not args[1] & os.O_NOFOLLOW:  # touch() below
                return descriptor

            calls.append(args)

            if len(calls) == 1:
                path.unlink()
            elif len(calls) == 2:
                path.unlink()
                path.touch()

            return descriptor

        monkeypatch.setattr("ws_pool._health.process_table.os.open", opens)
        file = ProcessTable(path)
        assert len(calls) == 3
        assert path.stat().st_ino == os.fstat(file._fd).st_ino
        file.close()

    def test_process_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only living processes have a start; without /proc all that live have the same."""
        assert process_start(os.getpid()) == process_start(os.getpid())
        zombie = subprocess.Popen([sys.executable, "-c", ""])
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(zombie.pid) is None
        zombie.wait()
        assert process_start(zombie.pid) is None

        class Nowhere(type(Path())):  # type: ignore[misc]
            def read_text(self) -> str:
                raise FileNotFoundError

            def exists(self) -> bool:
                return False

        monkeypatch.setattr(process_table, "Path", Nowhere)
        assert process_start(os.getpid()) == 0
        assert process_start(zombie.pid) is None
        monkeypatch.setattr("ws_pool._health.process_table.os.kill", _forbidden)
        assert process_start(1) == 0

    def test_runtime_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The user's runtime directory, or that for temporary files."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
        assert runtime_directory() == Path("/run/user/7")
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert runtime_directory().is_dir()


class Worker:
    """A worker process."""

    def __init__(self, directory: Path, name: str, workers: int) -> None:
        command = [sys.executable, str(WORKER), str(directory), name, str(workers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def read(self) -> str:
        """Read a line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self) -> str:
        """Ask for the node's health."""
        self.tell("ask")
        return self.read()

    def until(self, wanted: str) -> str:
        """Ask until the answer holds a text; the test's time limit is the bound."""
        while wanted not in (answer := self.ask()):
            pass

        return answer

    def end(self, signal_: int | None = None) -> None:
        """End it, by a line or by a signal."""
        if signal_ is None:
            self.tell("end")
        else:
            self.process.send_signal(signal_)

        self.process.wait(30)
        assert self.process.stdin is not None
        assert self.process.stdout is not None

        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start workers; those left at the end are killed."""
    workers: list[Worker] = []

    def make(name: str, count: int) -> Worker:
        worker = Worker(tmp_path, name, count)
        workers.append(worker)
        return worker

    yield make

    for worker in workers:
        if worker.process.poll() is None:
            worker.end(signal.SIGKILL)


class TestProcessHealthChecker:
    def test_kill_and_replace(self, start: Any, tmp_path: Path) -> None:
        """A killed worker makes the node unhealthy, its replacement makes it healthy again."""
        one = start("shop", 2)
        assert one.ask() == "1 of 2 workers are healthy"
        two = start("shop", 2)
        assert (one.until("healthy"), two.until("healthy")) == ("healthy", "healthy")
        two.end(signal.SIGKILL)
        assert one.ask() == "1 of 2 workers are healthy"
        three = start("shop", 2)
        assert (one.ask(), three.ask()) == ("healthy", "healthy")
        one.end()
        three.end()
        assert list(tmp_path.iterdir()) == [], "the last one removes the file"

    def test_nothing_is_left_of_a_crash(self, start: Any) -> None:
        """When all workers are killed, those of the next start count from nothing."""
        for worker in [start("shop", 2), start("shop", 2)]:
            worker.end(signal.SIGKILL)

        one = start("shop", 2)
        assert one.ask() == "1 of 2 workers are healthy"
        start("shop", 2)
        assert one.ask() == "healthy"

    def test_a_service_that_was_killed_whole(self, start: Any, tmp_path: Path) -> None:
        """Its file is gone when any service of this user has started; those of living ones stay."""
        bank = start("bank", 1)

        for worker in [start("shop", 2), start("shop", 2)]:
            worker.end(signal.SIGKILL)

        assert len(list(tmp_path.iterdir())) == 2
        start("mail", 1)
        names = sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir())
        assert names == ["bank", "mail"]
        assert bank.ask() == "healthy"

    def test_services_do_not_meet(self, start: Any) -> None:
        """Workers of another service do not count."""
        one = start("shop", 2)
        start("bank", 2)
        assert one.ask() == "1 of 2 workers are healthy"

    def test_a_blocked_worker(self, start: Any) -> None:
        """A worker whose loop is blocked is alive but silent."""
        one, two = start("shop", 2), start("shop", 2)
        assert one.ask() == "healthy"
        two.process.send_signal(signal.SIGSTOP)
        assert one.until("silent") == f"1 of 2 workers are healthy; silent: {two.process.pid}"
        two.process.send_signal(signal.SIGCONT)
        assert one.until("healthy") in {"healthy", f"1 of 2 workers are healthy; silent: {two.process.pid}"}

        while one.ask() != "healthy":
            pass

    def test_a_failing_check(self, start: Any) -> None:
        """A worker that reports itself unhealthy makes the node unhealthy, for the others too."""
        one, two = start("shop", 2), start("shop", 2)
        two.tell("fail")
        assert two.read() == "ok"
        assert one.until("not healthy") == f"1 of 2 workers are healthy; not healthy: {two.process.pid}"
        assert "this one:" in two.ask()

    async def test_in_one_process(self, tmp_path: Path) -> None:
        """It is a HealthChecker with a file; closed, or in a forked child, it knows nothing."""
        clock = Clock()
        checker = ProcessHealthChecker(1, directory=tmp_path, clock=clock)
        assert checker.detail == "not checked yet"

        async with checker:
            assert checker.detail == ""
            clock.now += 20
            assert checker.detail.startswith("0 of 1 workers are healthy; silent: ")
            await checker._round()
            assert checker.detail == ""
            clock.now -= 50
            assert "silent" in checker.detail, "a time from before the last boot counts"
            checker._pid = 1
            assert checker.detail == "not checked yet"
            await checker._round()
            assert checker._pid == os.getpid()
            checker._pid = 1

        assert not checker.health
        await checker.close()

    def test_names(self) -> None:
        """The derived name is stable in a process; names that are not file names are refused."""
        assert ProcessHealthChecker().name == ProcessHealthChecker(4).name

        for name in ("", "../x", "a/b", "x" * 101, ".hidden"):
            with pytest.raises(ConfigError, match="name="):
                ProcessHealthChecker(1, name=name)

        for number in (0, 65, 1.5):
            with pytest.raises(ConfigError, match="process_num="):
                ProcessHealthChecker(number)  # type: ignore[arg-type]


def _forbidden(pid: int, number: int) -> None:
    raise PermissionError
