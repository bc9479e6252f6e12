"""Ours against what was recorded of 1.1.4: its names and parameters, and what users' code returns."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tools.conformance.legacy.servers import servers

__all__ = ("DIFFERENCES", "RECORDED", "Runner", "missing_names", "runner")

HERE: Final = Path(__file__).parent
# Any: whatever users' code returned, as JSON.
RECORDED: Final[Mapping[str, Any]] = json.loads((HERE / "recorded.json").read_text(encoding="utf-8"))
DIFFERENCES: Final[Mapping[str, Mapping[str, str]]] = json.loads(
    (HERE / "differences.json").read_text(encoding="utf-8")
)


def missing_names() -> Iterator[tuple[str, str]]:
    """Yield each public name of 1.1.4 that ours lacks or takes otherwise, and what is wrong."""
    for path, names in RECORDED["names"].items():
        try:
            module = importlib.import_module(f"wintersweet.{path}")
        except ModuleNotFoundError:
            yield path, "there is no such module"
            continue

        for name, recorded in names.items():
            try:
                ours = getattr(module, name)
            except (AttributeError, ImportError):
                yield f"{path}.{name}", "there is no such name"
                continue

            made = ours.__init__ if inspect.isclass(ours) else ours

            if lacking := _lacking(made, recorded["parameters"]):
                yield f"{path}.{name}", f"does not take {', '.join(lacking)}"

            for member, parameters in recorded.get("members", {}).items():
                found = getattr(ours, member, None)

                # A property of 1.x may be an attribute that each object has.
                if found is None and parameters != "property":
                    yield f"{path}.{name}.{member}", "there is no such member"
                elif isinstance(parameters, list) and (lacking := _lacking(found, parameters)):
                    yield f"{path}.{name}.{member}", f"does not take {', '.join(lacking)}"


def _lacking(thing: Any, parameters: list[str] | None) -> list[str]:
    """Return the parameters that a function does not take by name, or not at the same place."""
    if parameters is None or not callable(thing):
        return []

    ours = [p for p in inspect.signature(thing).parameters.values() if p.name not in {"self", "cls"}]
    by_name = {p.name for p in ours if p.kind is not p.POSITIONAL_ONLY}
    placed = [p.name for p in ours if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    kinds = {p.kind for p in ours}
    lacking = []

    for place, name in enumerate(parameters):
        if name.startswith("**"):
            fits = inspect.Parameter.VAR_KEYWORD in kinds
        elif name.startswith("*"):
            fits = inspect.Parameter.VAR_POSITIONAL in kinds
        else:
            fits = name in by_name or inspect.Parameter.VAR_KEYWORD in kinds
            fits = fits and (name not in placed or placed.index(name) == place)

        if not fits:
            lacking.append(name)

    return lacking


class Runner:
    """Runs behaviours in an interpreter that has wintersweet, ours or the original."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, name: str) -> dict[str, Any]:
        """Return ``{"result": …}``, or the error that ended it."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(f"{name}\n")
        pipe_in.flush()
        found: dict[str, Any] = json.loads(pipe_out.readline())
        return found


@contextmanager
def runner(python: str = sys.executable) -> Iterator[Runner]:
    """Start the servers and an interpreter for behaviours."""
    with servers() as variables:
        process = subprocess.Popen(
            [python, str(HERE / "run.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **variables},
        )

        with process:
            yield Runner(process)
            assert process.stdin is not None
            process.stdin.close()
