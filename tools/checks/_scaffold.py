"""Checks of what ``wintersweet new`` writes: each file by the program that knows its kind best."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from tools import dev
from tools.checks._model import Check, Failed, command, program

__all__ = ("scaffold_checks",)

PROJECTS = {
    "meadow": "",
    "flower-shop-of-the-town": "ws,tasks,auth,postgres",
    "both-databases": "mysql,postgres",
    "rooms": "ws,mysql",
    "jobs": "tasks",
    "sign-in": "auth,postgres,mysql",
}
"""Name → parts; the tests of `tests/all/test_new.py` run the first two."""


def scaffold_checks() -> list[Check]:
    """Return the checks of this module."""
    return [Check("scaffold", check_scaffold, cost=40)]


def check_scaffold() -> str | None:
    """A new project has the types, the style, the containers, the workflow and the unit that it promises."""
    tools = dev.hatch_environment("release").parent
    cache = dev.STATE / "mypy-scaffold"

    with tempfile.TemporaryDirectory() as name:
        for project, parts in PROJECTS.items():
            command([program("wintersweet"), "new", project, "--with", parts], directory=Path(name))
            place = Path(name) / project
            command([program("ruff"), "check", "--no-cache", "."], directory=place)
            command([program("ruff"), "format", "--no-cache", "--check", "."], directory=place)
            command([tools / "hadolint", "--no-color", "Dockerfile"], directory=place)

            for schema, file in (
                ("compose-spec", "compose.yaml"),
                ("github-workflows", ".github/workflows/ci.yml"),
            ):
                command([tools / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", place / file])

            command([tools / "zizmor", "--offline", "--no-progress", "--strict-collection", place])
            _check_unit(place)

        for project in [*PROJECTS][:2]:
            command([program("mypy"), "--cache-dir", cache, "."], directory=Path(name) / project)

        _check_forgotten_await(Path(name) / next(iter(PROJECTS)), cache)

    return f"{len(PROJECTS)} projects"


def _check_forgotten_await(place: Path, cache: Path) -> None:
    """A lock that seems to be held, since its coroutine is true, is found by the project's own mypy."""
    (place / "forgotten.py").write_text(
        "from ws_redislock import MutexLock\n\n\n"
        "def report(lock: MutexLock) -> None:\n"
        "    if lock.acquire():\n"
        "        print('held')\n"
    )

    try:
        command([program("mypy"), "--cache-dir", cache, "forgotten.py"], directory=place)
    except Failed as error:
        if "[truthy-bool]" in str(error):
            return

        raise

    raise Failed("mypy finds nothing wrong with `if lock.acquire():`, which never acquires")


def _check_unit(place: Path) -> None:
    """Ask systemd, where there is one, with a program that exists here."""
    if (analyze := shutil.which("systemd-analyze")) is not None:
        (unit,) = (place / "deploy").iterdir()
        text = re.sub(r"/srv/\S+/bin/wintersweet", str(program("wintersweet")), unit.read_text("utf-8"))
        unit.write_text(re.sub(r"^User=.*\n", "", text, flags=re.MULTILINE), "utf-8")
        command([analyze, "verify", "--man=no", unit])
