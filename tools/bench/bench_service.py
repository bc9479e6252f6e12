"""A whole service: one route with a row, a counter and a log line, ours against the common stack."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack

import httpx
import psutil

from tools.bench._service_apps import ITEM
from tools.bench.harness import Candidate, Case, Round, Suite, Target, main
from tools.servers import MariaDBServer, PortReservation, RedisServer

ABOUT = """\
Each side is one process of `uvicorn` with uvloop and httptools, as its command line starts it, without an
access log; MariaDB and Redis on the same machine; pools of 10 connections; the same line of text to a file.
`wrk` keeps 32 connections busy. The common stack is FastAPI, SQLAlchemy's async session in a dependency,
redis-py, loguru with `enqueue=True`, asgi-correlation-id, and an envelope that is a generic model. CPU is
that of the whole process, threads included, for each request; `rss_mib` is its memory after the load,
`start_s` the CPU seconds until its first answer."""

CONNECTIONS = 32
ITEMS = 1000


class Servers:
    """MariaDB with its items, and Redis; started once for all candidates."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._users = 0
        self.environment: dict[str, str] = {}

    def enter(self) -> None:
        """Start them, if nobody has yet."""
        self._users += 1

        if self._users == 1:
            mariadb = self._stack.enter_context(MariaDBServer())
            redis = self._stack.enter_context(RedisServer())
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            self._fill(mariadb)
            self.environment = {"BENCH_SQL": mariadb.url, "BENCH_REDIS": redis.url, "BENCH_LOG": folder}

    def leave(self) -> None:
        """Stop them, when nobody needs them any more."""
        self._users -= 1

        if not self._users:
            self._stack.close()

    def _fill(self, mariadb: MariaDBServer) -> None:
        rows = ", ".join(f"({number}, 'lamp {number}', {number * 3})" for number in range(ITEMS))
        columns = "id INT PRIMARY KEY, name VARCHAR(30) NOT NULL, price INT NOT NULL"
        mariadb.execute(f"CREATE TABLE test.{ITEM.name} ({columns})")
        mariadb.execute(f"INSERT INTO test.{ITEM.name} VALUES {rows}")  # noqa: S608 - numbers of ours


class Service:
    """One of the two services, in a process of uvicorn, and a load on it."""

    def __init__(self, servers: Servers, factory: str, driver: str, seconds: float) -> None:
        self._servers = servers
        self._factory = factory
        self._driver = driver
        self._seconds = seconds
        self._start_cpu = 0.0

    async def open(self) -> None:
        """Start it, and wait for its first answer."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        if shutil.which("wrk") is None:
            raise RuntimeError("bench service needs wrk: apt-get install wrk")

        self._servers.enter()
        # Not a socket by --fd: uvicorn takes that for one of Unix, and Nagle's algorithm stays on.
        self._port = PortReservation()
        self._url = f"http://127.0.0.1:{self._port.port}/item/"
        words = ["--factory", f"tools.bench._service_apps:{self._factory}", "--port", str(self._port.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *words, "--no-access-log", "--log-level", "warning"],
            env=os.environ | self._environment(),
            stdout=subprocess.DEVNULL,
        )
        self._measured = psutil.Process(self._process.pid)
        self._wait()
        self._start_cpu = self._cpu()

    def _environment(self) -> Mapping[str, str]:
        found = dict(self._servers.environment)
        found["BENCH_SQL"] = found["BENCH_SQL"].replace("mysql://", f"mysql+{self._driver}://", 1)
        return found

    def _wait(self) -> None:
        deadline = time.monotonic() + 60

        while True:
            try:
                httpx.get(f"{self._url}1", timeout=60).raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise

                time.sleep(0.05)
            else:
                return

    async def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)
        self._port.release()
        await asyncio.to_thread(self._servers.leave)

    def run(self) -> Round:
        """Keep its connections busy for some seconds."""
        before = self._cpu()
        load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{self._seconds:g}s", f"{self._url}7"]
        said = subprocess.run(load, capture_output=True, text=True, check=True).stdout
        cpu = self._cpu() - before
        done = re.search(r"(\d+) requests in ([\d.]+)s", said)

        if done is None or "Non-2xx" in said or "Socket errors" in said:
            raise RuntimeError(f"{self._factory} did not answer all requests:\n{said}")

        count = int(done[1])
        metrics = {
            "cpu": cpu / count,
            "rate": count / float(done[2]),
            "wall": float(done[2]) / count,
            "rss_mib": self._measured.memory_info().rss / 2**20,
            "start_s": self._start_cpu,
        }
        return Round(count, metrics=metrics)

    def _cpu(self) -> float:
        times = self._measured.cpu_times()
        return float(times.user + times.system)


def _cases(*, quick: bool) -> list[Case]:
    cases = []

    for driver in ("aiomysql", "asyncmy"):
        servers = Servers()
        pair = [
            (shown, Service(servers, factory, driver, 1 if quick else 3))
            for shown, factory in (("wintersweet", "ours"), ("common stack", "common"))
        ]
        targets = [
            Target("wintersweet", "common stack", at_least=3.5),
            Target("wintersweet", "common stack", at_most=1 / 3.5, metric="cpu"),
            Target("wintersweet", "common stack", at_most=1.0, metric="rss_mib"),
            Target("wintersweet", "common stack", at_most=1.0, metric="start_s"),
        ]
        candidates = [Candidate(shown, one.run, setup=one.open, teardown=one.close) for shown, one in pair]
        cases.append(Case(f"row, counter and log line, {driver}", candidates, 1, targets, show="cpu"))

    return cases


def build(quick: bool) -> Suite:
    """Build the suite."""
    packages = [
        "fastapi",
        "uvicorn",
        "uvloop",
        "httptools",
        "sqlalchemy",
        "aiomysql",
        "asyncmy",
        "redis",
        "hiredis",
        "loguru",
        "asgi-correlation-id",
        "pydantic",
    ]
    return Suite("service", "A whole service", _cases(quick=quick), packages, ABOUT)


if __name__ == "__main__":
    main(build)
