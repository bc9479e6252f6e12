"""One of N real processes makes each run: signals, a restarted Redis, clocks that are set back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.integration._guard_worker import CLAIM_TTL, INTERVAL
from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer

PROGRAM = Path(__file__).parent / "_guard_worker.py"
PROCESSES = 4
Run: TypeAlias = tuple[float, int]


@dataclass(frozen=True)
class Line:
    """What a process has written."""

    pid: int
    kind: str
    words: tuple[str, ...]

    @property
    def run(self) -> Run:
        """The nominal time and the repetition of a run that began or ended."""
        return float(self.words[0]), int(self.words[1])


class Fleet:
    """Processes with the same guarded task."""

    def __init__(self, folder: Path, url: str, mode: str) -> None:
        self.log, self.clock = folder / "log", folder / "clock"
        self.url, self.mode = url, mode
        self.processes: list[subprocess.Popen[bytes]] = []
        self.excused: set[Run] = set()  # in hand of a process that was killed or stopped for long
        self.log.touch()
        self.clock.write_text("0")

    def start(self) -> None:
        """Start one more process."""
        command = [sys.executable, str(PROGRAM), self.url, str(self.log), str(self.clock), self.mode]
        self.processes.append(subprocess.Popen(command))

    def lines(self, kind: str) -> list[Line]:
        """Read what was written, of one kind."""
        found = []

        for text in self.log.read_text().splitlines():
            pid, what, *words = text.split(" ")

            if what == kind:
                found.append(Line(int(pid), what, tuple(words)))

        return found

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something has been written."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)

    async def runs(self, count: int) -> None:
        """Wait for so many more runs to end."""
        target = len(self.lines("end")) + count
        await self.wait(lambda: len(self.lines("end")) >= target)

    async def busy(self) -> subprocess.Popen[bytes]:
        """Wait until a process begins a run, and return the process."""
        before = len(self.lines("begin"))
        await self.wait(lambda: len(self.lines("begin")) > before)
        pid = self.lines("begin")[-1].pid
        return next(process for process in self.processes if process.pid == pid)

    def in_hand(self, process: subprocess.Popen[bytes]) -> set[Run]:
        """Return the runs that a process has begun and not ended."""
        mine = [line.run for line in self.lines("end") if line.pid == process.pid]
        return {line.run for line in self.lines("begin") if line.pid == process.pid} - set(mine)

    def excuse(self, process: subprocess.Popen[bytes]) -> None:
        """Note what a process has in hand: only that may be made by another one too."""
        self.excused |= self.in_hand(process)

    def set_clocks(self, ahead: float) -> None:
        """Set the wall clocks of all processes."""
        self.clock.write_text(str(ahead))

        for process in self.processes:
            process.send_signal(signal.SIGUSR1)

    async def end(self) -> None:
        """Wait until everything that was begun has been made, then end all processes in order."""
        if self.mode == "lease":
            await self.wait(lambda: not self.unmade() - {line.run for line in self.lines("begin")[-3:]})

        for process in self.processes:
            process.terminate()

        for process in self.processes:
            assert await asyncio.to_thread(process.wait, 20) == 0

    def unmade(self) -> set[Run]:
        """Return the runs that were begun and that nobody has ended."""
        return {line.run for line in self.lines("begin")} - {line.run for line in self.lines("end")}

    def doubles(self, kind: str) -> set[Run]:
        """Return the runs that were begun, or ended, more than once."""
        return {run for run, count in Counter(line.run for line in self.lines(kind)).items() if count > 1}

    def gaps(self, first: float, last: float) -> set[float]:
        """Return the nominal times between two of them that no process has ended."""
        made = {line.run[0] for line in self.lines("end")}
        count = round((last - first) / INTERVAL)
        return {first + number * INTERVAL for number in range(count + 1)} - made


@contextmanager
def fleet(folder: Path, url: str, mode: str = "lease") -> Iterator[Fleet]:
    """Start four processes, and end what is left of them."""
    found = Fleet(folder, url, mode)

    for _ in range(PROCESSES):
        found.start()

    try:
        yield found
    finally:
        for process in found.processes:
            if process.poll() is None:
                process.kill()
                process.wait(10)


async def trouble(found: Fleet, server: RedisServer) -> None:
    """Kill, end and stop processes in the middle of runs, and restart Redis."""
    await found.wait(lambda: len(found.lines("ready")) == PROCESSES)
    await found.runs(4)

    victim = await found.busy()
    victim.send_signal(signal.SIGSTOP)  # so that what it has in hand is what it had when it was killed
    found.excuse(victim)
    victim.kill()
    await asyncio.to_thread(victim.wait)
    found.processes.remove(victim)
    found.start()
    await found.runs(4)

    drained = await found.busy()
    drained.terminate()
    assert await asyncio.to_thread(drained.wait, 20) == 0
    found.processes.remove(drained)
    found.excuse(drained)  # begun twice, ended once
    found.start()
    await found.runs(4)

    shortly = await found.busy()
    shortly.send_signal(signal.SIGSTOP)
    await asyncio.sleep(CLAIM_TTL / 4)
    shortly.send_signal(signal.SIGCONT)
    await found.runs(4)

    long = await found.busy()
    long.send_signal(signal.SIGSTOP)
    found.excuse(long)
    await asyncio.sleep(2 * CLAIM_TTL)
    long.send_signal(signal.SIGCONT)
    await found.runs(4)

    server.kill()
    server.restart()
    await found.runs(6)


@pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
async def test_none_is_missing(kind: type[RedisServer], start_server: StartServer, tmp_path: Path) -> None:
    """No run is missing; a run made twice was in hand of a process killed or stopped, and is reported."""
    server = start_server(kind, config={"appendonly": "yes", "appendfsync": "always"})

    with fleet(tmp_path, server.url) as found:
        await trouble(found, server)
        await found.runs(2)
        await found.end()

        ends = sorted(line.run[0] for line in found.lines("end"))
        assert found.gaps(ends[0], ends[-1]) == set()
        assert found.doubles("begin") <= found.excused
        assert found.doubles("end") <= found.excused
        reported = {float(line.words[1]) for line in found.lines("event") if line.words[0] == "doubled"}
        assert {run for run, _ in found.doubles("end")} <= reported
        assert any(line.words[0] == "taken_over" for line in found.lines("event"))

        for run in found.doubles("begin"):
            fences = [int(line.words[2]) for line in found.lines("begin") if line.run == run]
            assert fences == sorted(set(fences)), "who comes later has the larger fence"


async def test_never_twice(start_server: StartServer, tmp_path: Path) -> None:
    """With at_least_once=False no run is begun twice, whatever happens to its process."""
    server = start_server(RedisServer, config={"appendonly": "yes", "appendfsync": "always"})

    with fleet(tmp_path, server.url, "once") as found:
        await trouble(found, server)
        await found.end()
        assert found.doubles("begin") == set()


async def test_clocks_set_back(start_server: StartServer, tmp_path: Path) -> None:
    """Clocks that are set back by 4 s, then by an hour, leave no second without a run, and make no double."""
    server = start_server(RedisServer)

    with fleet(tmp_path, server.url) as found:
        await found.wait(lambda: len(found.lines("ready")) == PROCESSES)
        await found.runs(12)

        for ahead in (-4.0, -3604.0):
            found.set_clocks(ahead)
            began = time.monotonic()
            await found.runs(12)
            # 12 runs take 6 s; being silent until the clock has caught up would take 4 s or an hour more.
            assert time.monotonic() - began < 12 * INTERVAL + 2.5

        await found.end()
        assert found.doubles("begin") == set()
        assert {line.run[1] for line in found.lines("end")} == {1, 2}


async def test_a_process_left_alone_makes_all_runs(start_server: StartServer, tmp_path: Path) -> None:
    """When the others are killed, and their clocks were ahead, the last process makes the runs that come."""
    server = start_server(RedisServer)

    with fleet(tmp_path, server.url) as found:
        await found.wait(lambda: len(found.lines("ready")) == PROCESSES)
        last, *others = found.processes
        found.clock.write_text("-3.25")
        last.send_signal(signal.SIGUSR1)
        await found.runs(12)

        for process in others:
            process.kill()
            process.wait(10)
            found.processes.remove(process)

        before = len([line for line in found.lines("end") if line.pid == last.pid])
        began = time.monotonic()
        await found.wait(
            lambda: len([line for line in found.lines("end") if line.pid == last.pid]) >= before + 6
        )
        assert time.monotonic() - began < 6 * INTERVAL + 2.5
        await found.end()
        assert os.path.getsize(found.log) > 0  # noqa: ASYNC240, PTH202 - a few bytes


async def test_the_twin_is_caught(redis_url: str, tmp_path: Path) -> None:
    """With a guard that lets everybody in, the same program makes each run several times."""
    with fleet(tmp_path, redis_url, "open") as found:
        await found.wait(lambda: len(found.lines("ready")) == PROCESSES)
        await found.runs(16)
        assert found.doubles("end")
        await found.end()
