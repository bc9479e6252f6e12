"""What the benchmarks import is installed where they run."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The queues that `_job_worker` runs are installed apart, see `_job_queues`.
MODULES = sorted(set((ROOT / "tools/bench").glob("*.py")) - {ROOT / "tools/bench/_job_worker.py"})
OTHER_NAMES = {
    "asgi_correlation_id": "asgi-correlation-id",
    "glide": "valkey-glide",
    "pydantic": "fastapi",
    "starlette": "fastapi",
    "throttled": "throttled-py",
}
"""Module → what installs it."""


def declared() -> set[str]:
    """Name what the benchmarks' environment holds: its group, and our libraries with their extras."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    lines: list[str] = list(groups["bench"])

    for path in ROOT.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        lines += project.get("dependencies", [])
        lines += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]

    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines}


def imported(source: str) -> set[str]:
    """Name the third parties' modules that a source imports, at its top or anywhere else."""
    names: set[str] = set()

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])

    others = names - sys.stdlib_module_names - {"tools"}
    return {name for name in others if not name.startswith("ws_")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_peers_are_declared(path: Path) -> None:
    """Every module that a benchmark imports comes from a distribution that its environment has."""
    names = imported(path.read_text(encoding="utf-8"))

    assert {OTHER_NAMES.get(name, name) for name in names} <= declared()


def test_imports_are_found() -> None:
    """Imports of others are found at any depth, those of Python and of ours are left out."""
    source = "import os, glide.glide\nfrom ws_pool import x\ndef f():\n    from limits.aio import y"

    assert imported(source) == {"glide", "limits"}
