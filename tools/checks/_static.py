"""Checks by tools that read the source: ruff, mypy, pyright, import-linter."""

from __future__ import annotations

import re
import sys
from functools import partial

from tools import dev
from tools.checks._model import IMPORT_NAMES, PACKAGES, Check, Failed, command, program, script_path

__all__ = ("static_checks",)


def static_checks() -> list[Check]:
    """Return the checks of this module."""
    sources = [
        str(PACKAGES / name / "src") for name, imported in IMPORT_NAMES.items() if imported is not None
    ]
    verified = [
        Check(f"pyright:{name}", partial(verify_types, imported), cost=8)
        for name, imported in IMPORT_NAMES.items()
        if imported is not None
    ]
    return [
        Check("lint", lint, cost=3),
        Check("format", check_format, cost=1),
        Check("mypy:libraries", partial(check_mypy, "libraries", *sources), cost=60),
        Check("mypy:tests", partial(check_mypy, "tests", "tests", "tools"), cost=60),
        *verified,
        Check("imports", check_imports, cost=5),
    ]


def lint() -> str | None:
    """Every rule of ruff but the reasoned exceptions."""
    command([str(program("ruff")), "check", "--output-format", "concise", "."])
    return None


def check_format() -> str | None:
    """The formatter has nothing to change."""
    try:
        command([program("ruff"), "format", "--check", "."])
    except Failed as failed:
        listed = [line for line in str(failed).splitlines() if line.strip().startswith("-->")]
        raise Failed("\n".join(["the formatter would change:", *listed])) from None

    return None


def check_mypy(name: str, *places: str) -> str | None:
    """Mypy --strict has nothing to say."""
    # A cache of its own: two runs that begin one at the same time find its database locked, and break.
    cache = dev.STATE / "mypy" / name
    output = command([str(program("mypy")), "--strict", "--cache-dir", str(cache), *places])
    return output.strip().splitlines()[-1]


def verify_types(imported: str) -> str | None:
    """Everything public has a type that is written down, so that other checkers need not guess."""
    # pyright asks the `python` on the path where packages are, and ignores --pythonpath here.
    words = [str(program("pyright")), "--verifytypes", imported, "--ignoreexternal"]

    try:
        output = command(words, environment=script_path(sys.executable))
    except Failed as failed:
        shown = [line for line in str(failed).splitlines() if not line.startswith("Symbols without")]
        raise Failed("\n".join(shown)) from None

    score = re.search(r"Type completeness score: ([\d.]+)%", output)

    if score is None or float(score[1]) < 100:
        raise Failed(output)

    return f"{score[1]} %"


def check_imports() -> str | None:
    """The star: no library imports a sibling."""
    output = command([program("lint-imports"), "--no-cache"])
    kept = re.search(r"Contracts: .*", output)
    return kept[0] if kept else None
