"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.all._planted_shop import FAULTS
from tests.all._support import environment

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
Results = dict[str, str]


def run_pytest(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[Results, str]:
    """Run pytest; return what became of each test, and the output."""
    report = directory / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"),
            *("--noconftest", f"--junitxml={report}", *arguments),
        ],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(directory), **(env or {})),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    cases = ET.parse(report).iter("testcase") if report.exists() else ()
    results = {case.attrib["name"]: next((child.tag for child in case), "passed") for case in cases}
    return results, done.stdout + done.stderr


def test_planted_faults(tmp_path: Path) -> None:
    """All of twenty faults in a shop are found, and the sound shop passes."""
    results, said = run_pytest(tmp_path, "tests/all/_planted_checks.py")
    found = {
        fault
        for fault in FAULTS
        if any(f"[{fault}]" in name and how != "passed" for name, how in results.items())
    }
    false_alarms = [name for name, how in results.items() if "[sound]" in name and how != "passed"]

    assert len(results) == 7 * 21, said
    assert false_alarms == [], said
    assert len(FAULTS) == 20
    assert found == set(FAULTS)


SERVICE = """
from fastapi import FastAPI
import os

app = FastAPI()


@app.get("/pid")
def pid() -> int:
    return os.getpid()
"""
TESTS = """
import asyncio
import json
import os
import urllib.request
from pathlib import Path

import pytest

from ws_core.errors import UnavailableError
from ws_pool import sql_pool_manager
from ws_pool.redis import RedisPool
from wintersweet.testing import _runs
from ws_web import settings

TASKS = []


def leave() -> None:
    TASKS.append(Path(__file__).open())


@pytest.fixture
async def database(ws_sqlite_url):
    sql_pool_manager.register({"default": {"url": ws_sqlite_url}})

    async with sql_pool_manager:
        await sql_pool_manager.execute("CREATE TABLE notes (text TEXT)")
        yield
        assert await sql_pool_manager.count("SELECT * FROM notes") == 0


def test_leaves():
    leave()


async def test_leaves_too():
    leave()


@pytest.mark.ws_no_leaks(False)
def test_may_leave():
    leave()


@pytest.mark.ws_rolled_back
async def test_undone(database):
    await sql_pool_manager.insert("INSERT INTO notes VALUES ('milk')")
    assert await sql_pool_manager.count("SELECT * FROM notes") == 1


class TestUndone:
    @pytest.mark.ws_rolled_back("default")
    async def test_undone(self, database):
        await sql_pool_manager.insert("INSERT INTO notes VALUES ('milk')")


@pytest.mark.ws_rolled_back
def test_of_no_use():
    pass


@pytest.mark.parametrize("number", range(4))
async def test_redis(ws_redis_url, number):
    Path(os.environ["SEEN"], str(os.getpid())).write_text(ws_redis_url)

    async with RedisPool(url=ws_redis_url) as pool:
        assert await pool.redis.incr("visits") == 1


def test_settings(ws_settings):
    assert ws_settings(DEBUG=True).DEBUG
    assert settings.DEBUG


def test_settings_are_back():
    assert not settings.DEBUG


def ask(url):
    return json.load(urllib.request.urlopen(url + "/pid", timeout=60))


def test_service(ws_service):
    service = ws_service("served:app")
    url, pid = service.url, ask(service.url)
    assert service.workers == [pid] == [service.pid]
    assert service.kill_worker() == pid
    assert "not running" in repr(service)
    service.start()
    assert service.url == url
    assert ask(url) != pid


def test_workers(ws_service):
    service = ws_service("served:app", workers=2)
    assert ask(service.url) in service.workers
    killed = service.kill_worker()
    assert ask(service.url) != killed
    workers = service.workers
    service.kill()
    assert not any(_runs(pid) for pid in workers)


def test_no_service(ws_service):
    with pytest.raises(UnavailableError, match="served:nothing ended: .*nothing"):
        ws_service("served:nothing")
"""


@pytest.mark.deployment
def test_fixtures_and_markers(tmp_path: Path) -> None:
    """Each does what it says, in two workers of pytest-xdist, and only for those who ask."""
    (tmp_path / "served.py").write_text(SERVICE)
    (tmp_path / "test_it.py").write_text(TESTS)
    (seen := tmp_path / "seen").mkdir()
    results, said = run_pytest(
        tmp_path,
        str(tmp_path / "test_it.py"),
        "-n2",
        "--ws-no-leaks",
        "-p",
        "xdist",
        env={"SEEN": str(seen)},
    )
    wrong = {name: how for name, how in results.items() if how != "passed"}

    assert wrong == dict.fromkeys(("test_leaves", "test_leaves_too", "test_of_no_use"), "error"), said
    assert "left behind: the open file" in said
    assert "ws_rolled_back is for asynchronous tests: test_of_no_use is not one" in said
    assert len({path.read_text() for path in seen.iterdir()}) == len(list(seen.iterdir())) <= 2


def test_it_costs_nothing(tmp_path: Path) -> None:
    """A run that asks for nothing imports none of our libraries, and is not watched."""
    (tmp_path / "test_it.py").write_text(
        "import json, sys\n\n"
        "def test_it():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'ws_core', 'ws_pool', 'ws_web', 'fastapi', 'redis', 'typer'}\n"
        "    assert 'wintersweet._pytest_plugin' in sys.modules\n"
        "    open(__file__)\n"
    )
    results, said = run_pytest(tmp_path, str(tmp_path / "test_it.py"), "-W", "ignore")

    assert results == {"test_it": "passed"}, said
