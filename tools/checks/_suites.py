"""Each distribution's tests where only it and what it declares are installed, on every Python there is.

Two runs for each distribution. With the newest dependencies, on the newest Python, and with coverage: the
distribution's own tests must reach 95 % of its branches. With the oldest dependencies that it declares, on
another Python, and without whole deployments and outages: what counts there is the API. The developers'
environment, in which ``dev.py test`` runs, is a third, and the only one for tests marked ``once``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tools import dev
from tools.checks._model import IMPORT_NAMES, Check, Failed, command

__all__ = ("choose", "find_pythons", "suite_checks")

VERSIONS = ("3.11", "3.12", "3.13")
BRANCHES = 95.0
COSTS = {"pool": 200, "all": 200, "redislock": 90, "logging": 80, "web": 80, "tasks": 70, "core": 15}


def suite_checks() -> list[Check]:
    """Return the checks of this module."""
    pythons = find_pythons()
    newest, oldest = choose(sorted(pythons, key=_numbers))
    checks = []

    for name in (name.removeprefix("ws-") for name, imported in IMPORT_NAMES.items() if imported):
        cost = COSTS.get(name, 30)
        checks.append(Check(f"isolated:{name}", partial(run_isolated, name, newest, pythons), cost=cost * 2))
        checks.append(Check(f"oldest:{name}", partial(run_oldest, name, oldest, pythons), cost=cost))

    return [*checks, Check("addons", run_addons, cost=120)]


def choose(versions: Sequence[str]) -> tuple[str, str]:
    """
    Choose the Pythons for the newest and for the oldest dependencies.

    ``dev.py test`` already runs on the one that a developer has, most likely neither of these.

    Args:
        versions: What the machine has, the oldest first; at least one.

    Returns:
        The newest, and the one before it when there is one.

    Example:
        >>> choose(["3.11", "3.12", "3.13"])
        ('3.13', '3.12')
        >>> choose(["3.11"])
        ('3.11', '3.11')
    """
    return versions[-1], versions[-2] if len(versions) > 1 else versions[-1]


def find_pythons() -> dict[str, Path]:
    """Find the Pythons of this machine that the libraries support; nothing is downloaded."""
    places = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    places += [Path("/usr/bin"), Path("/usr/local/bin")]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"), reverse=True)
    found: dict[str, Path] = {}

    for version in VERSIONS:
        for place in places:
            candidate = place / f"python{version}"

            if version not in found and ".pyenv/shims" not in str(place) and _works(candidate):
                found[version] = candidate

    return found


def _works(python: Path) -> bool:
    if not python.exists():
        return False

    probe = [str(python), "-c", "import ensurepip, ssl, sqlite3, venv"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _environment(name: str, version: str, pythons: Mapping[str, Path], *, oldest: bool) -> Path:
    path = os.pathsep.join((str(pythons[version].parent), os.environ.get("PATH", os.defpath)))
    variables = {"PATH": path}

    if oldest:
        variables |= {"UV_RESOLUTION": "lowest-direct", "HATCH_DATA_DIR": str(dev.STATE / "hatch-oldest")}

    try:
        return dev.hatch_environment(
            f"isolated-{name}.py{version}",
            variables=variables,
            marker=f"oldest-{name}" if oldest else None,
        )
    except dev.Stop as stop:
        raise Failed(f"{stop}\n{stop.remedy}") from stop


def run_isolated(name: str, version: str, pythons: Mapping[str, Path]) -> str | None:
    """Run one distribution's tests alone, and measure which of its branches they reach."""
    python = _environment(name, version, pythons, oldest=False)
    imported = IMPORT_NAMES[f"ws-{name}"]
    place = dev.STATE / "coverage" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    variables = {"COVERAGE_FILE": str(place / "data")}
    prefix: list[str | Path] = [python, "-m", "coverage", "run", f"--source={imported}", "-m"]
    closing = _run_tests(prefix, name, variables, "-m", "not once")

    command([python, "-m", "coverage", "combine", "--quiet"], environment=variables)
    report = place / "report.json"
    command([python, "-m", "coverage", "json", "--quiet", "-o", report], environment=variables)
    totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
    reached = 100.0 * totals["covered_branches"] / totals["num_branches"] if totals["num_branches"] else 100.0
    lines = totals["percent_statements_covered"]
    note = f"py{version}, {closing}, branches {reached:.1f} %, lines {lines:.1f} %"

    if reached < BRANCHES:
        shown = command([python, "-m", "coverage", "report"], environment=variables)
        raise Failed(f"{shown}\n{note}: at least {BRANCHES:g} % of the branches are wanted")

    return note


def run_oldest(name: str, version: str, pythons: Mapping[str, Path]) -> str | None:
    """Run one distribution's tests alone, with the oldest dependencies that it declares."""
    python = _environment(name, version, pythons, oldest=True)
    selection = "not deployment and not outage and not once"
    return f"py{version}, {_run_tests([python, '-m'], name, {}, '-m', selection)}"


def run_addons() -> str | None:
    """Popular add-ons of FastAPI work on ours, and schemathesis finds no failure."""
    python = dev.hatch_environment("addons")
    return _run_tests([python, "-m"], "addons", {"PYTHONWARNINGS": "default"})


def _run_tests(prefix: Sequence[str | Path], name: str, variables: Mapping[str, str], *options: str) -> str:
    """Run the tests of one distribution, and return what pytest said last."""
    # Most tests wait for servers: two suites at a time keep two cores busy with three workers each.
    words = [*prefix, "pytest", f"tests/{name}", "-q", "-p", "no:cacheprovider", "--tb=short", "--maxfail=20"]
    words += ["-n", "3", "--dist", "loadfile", *options]
    # What hangs is ended by pytest-timeout, long before.
    output = command(words, environment=variables, timeout=3600)
    closing = re.findall(r"^.*\d+ (?:passed|failed|skipped).* in [\d.]+s.*$", output, re.MULTILINE)
    return closing[-1].strip("= ") if closing else output.strip().splitlines()[-1]
