"""``wintersweet worker`` and ``wintersweet tasks``, as commands."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.all._support import running, until, wintersweet

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(300)]

MODULE = """
import asyncio, os
from pathlib import Path
from ws_tasks import LocalEngine, task
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine

@task("double")
async def double(number: int, times: int = 2) -> int:
    return number * times

@task("fails")
async def fails() -> None:
    raise ValueError("no [luck]")

@task("late")
async def late() -> None:
    raise TimeoutError("no connection was free")

@task("slow")
async def slow(seconds: float) -> str:
    Path("begun").touch()
    await asyncio.sleep(seconds)
    return "slept"

@task("tick", schedule="* * * * * *")
async def tick() -> None:
    with open("ticks", "a") as file:
        file.write("tick\\n")

@task("often", schedule=5.0)
def often() -> None: ...
"""
POOLED = """
from ws_pool.redis import redis_pool_manager
broker = RedisStreamsBroker(redis_pool_manager, queue="pooled", lease=1.0)
engine = TaskiqEngine([double], broker=broker)
"""
REMOTE = """
broker = RedisStreamsBroker(os.environ["URL"], queue="commands", lease=1.0, concurrency=3)
engine = TaskiqEngine([double, fails, slow, tick, often], broker=broker)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a module of tasks without engine, one with, and one with too many."""
    (tmp_path / "plain.py").write_text(MODULE)
    (tmp_path / "jobs.py").write_text(MODULE + REMOTE)
    (tmp_path / "pooled.py").write_text(MODULE + POOLED)
    (tmp_path / "local.py").write_text(MODULE + "engine = LocalEngine([double])")
    (tmp_path / "several.py").write_text(MODULE + "a = LocalEngine([double])\nb = LocalEngine([tick])")
    (tmp_path / "broken.py").write_text("import nonsense_that_is_missing")
    return tmp_path


class TestTasks:
    def test_without_an_engine(self, project: Path) -> None:
        """The tasks of a module are listed with their next runs, and one is run in this process."""
        listed = wintersweet("tasks", "plain", cwd=project)
        assert listed.status == 0, listed.err
        assert all(name in listed.out for name in ("double", "often", "every 5 s", "* * * * * *", "+00:00"))
        found = wintersweet("tasks", "plain", "--json", cwd=project).json()
        assert [row["task"] for row in found["tasks"]] == ["double", "fails", "late", "often", "slow", "tick"]
        assert found["queue"] == {}
        ran = wintersweet("tasks", "plain", "--run", "double", "--args", "[21]", cwd=project)
        assert (ran.status, ran.out) == (0, "42\n")
        ran = wintersweet("tasks", "plain", "--run", "fails", cwd=project)
        assert (ran.status, ran.out) == (1, "")
        assert "no [luck]" in ran.said
        ran = wintersweet("tasks", "plain", "--run", "late", cwd=project)
        assert (ran.status, ran.out) == (1, "")
        assert "TimeoutError: no connection was free" in ran.said, "the task's own, not that of the wait"

    def test_on_a_pool_of_the_settings(self, project: Path, redis_url: str) -> None:
        """A broker on the manager of pools works in each command, which starts the pools of the settings."""
        env = {"WS_REDIS_CONFIG__default__url": redis_url}

        with running("worker", "pooled", cwd=project, env=env) as worker:
            assert worker.stderr is not None
            assert "queue 'pooled'" in worker.stderr.readline()
            options = ("tasks", "pooled", "--run", "double", "--args", "[21]")
            assert wintersweet(*options, cwd=project, env=env).out == "42\n"

        found = wintersweet("tasks", "pooled", "--json", cwd=project, env=env)
        assert found.status == 0, found.err
        assert set(found.json()["queue"]) == {"high", "normal", "low", "delayed", "dead"}

    def test_with_workers(self, project: Path, redis_url: str) -> None:
        """A worker runs what `tasks --run` enqueues, until SIGTERM; the last results are listed."""
        env = {"URL": redis_url}
        command = ("tasks", "jobs", "--run", "double", "--args", "[1]", "--timeout", "1")
        alone = wintersweet(*command, cwd=project, env=env)
        assert alone.status == 1
        assert "has not ended in 1 s; it is queued" in alone.said

        with running("worker", "jobs", "--schedules", "--concurrency", "2", cwd=project, env=env) as worker:
            assert worker.stderr is not None
            assert "queue 'commands', 2 at once: double, fails" in worker.stderr.readline()
            options = ("tasks", "jobs:engine", "--run", "double", "--args", '{"number": 4, "times": 3}')
            ran = wintersweet(*options, cwd=project, env=env)
            assert (ran.status, ran.out) == (0, "12\n"), ran.err
            ran = wintersweet("tasks", "jobs", "--run", "fails", cwd=project, env=env)
            assert ran.status == 1
            assert "ValueError: no [luck]" in ran.said
            until((project / "ticks").exists)

            def rows() -> dict[str, dict[str, object]]:
                found = wintersweet("tasks", "jobs", "--json", cwd=project, env=env).json()
                assert set(found["queue"]) == {"high", "normal", "low", "delayed", "dead"}
                return {row["task"]: row["last"] for row in found["tasks"] if row["last"]}

            until(lambda: {"double", "fails", "tick"} <= set(rows()))
            assert (rows()["double"]["ok"], rows()["fails"]["ok"]) == (True, False)
            table = wintersweet("tasks", "jobs", cwd=project, env=env).out
            assert "no [luck]" in table
            assert "Queue: " in table

            with running(
                *("tasks", "jobs", "--run", "slow", "--args", "[1.5]"), cwd=project, env=env
            ) as waiting:
                until((project / "begun").exists)
                worker.send_signal(signal.SIGTERM)
                out, err = waiting.communicate(timeout=60)
                assert (waiting.returncode, json.loads(out)) == (0, "slept"), err

            assert worker.wait(60) == 0

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("tasks", "nowhere"), "there is no module nowhere"),
            (("tasks", "broken"), "it needs the module nonsense_that_is_missing"),
            (("tasks", "several"), "several engines, a, b: write several:ENGINE"),
            (("tasks", "several:c"), "no engine 'c': it has a, b"),
            (("tasks", "plain", "--run", "nonsense"), "no task 'nonsense': it has double"),
            (("tasks", "plain", "--run", "double", "--args", "["), "is not JSON"),
            (("tasks", "plain", "--run", "double", "--args", "3"), "use a list, or an object"),
            (("tasks", "plain", "--run", "double"), "the arguments do not fit task 'double'"),
            (("worker", "local"), "has no TaskiqEngine"),
        ],
    )
    def test_bad_input(self, project: Path, arguments: tuple[str, ...], text: str) -> None:
        """What is wrong is said in one message."""
        outcome = wintersweet(*arguments, cwd=project)
        assert outcome.status == 2
        assert text in outcome.said
        assert "Traceback" not in outcome.err
