"""What the pages name is there: tests that prove a promise, modules, files."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARANTEES = sorted(path for path in (ROOT / "docs/guarantees").glob("*.md") if path.stem != "index")
PAGES = [ROOT / "docs/architecture.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/guarantees/index.md"]

_CODE = re.compile(r"`([^`\n]+)`")
_TEST = re.compile(r"(?!tests/)(?:(?:\w+/)*test_\w+\.py)?(?:::)?(?:Test\w+)?(?:::)?(?:test_\w+)?")
_MODULE = re.compile(r"(?:ws_\w+|wintersweet)(?:\.\w+)+")
_FILE = re.compile(r"(?:tests|tools|docs|packages)(?:/[\w.-]+)*/?")


def spans(path: Path) -> Iterator[str]:
    """Yield what a page sets as code within its lines."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from (found[1] for found in _CODE.finditer(text))


def proofs_of(distribution: str) -> set[str]:
    """Name every test of a distribution in all ways in which a page may refer to it."""
    names: set[str] = set()

    for path in [
        *(ROOT / "tests" / distribution).rglob("test_*.py"),
        *(ROOT / "tests/integration").glob("test_*.py"),
    ]:
        # Also with folders in front, as in redis/test_order.py.
        parts = path.relative_to(ROOT).parts
        files = {"/".join(parts[start:]) for start in range(len(parts))}
        names |= files

        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue

            inside = {node.name}

            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(inner.name)
                    inside.add(f"{node.name}::{inner.name}")

            names |= inside | {f"{file}::{name}" for file in files for name in inside}

    return names


def unknown_tests(page: Path, names: set[str]) -> list[str]:
    """List what looks like a test on a page, and is not a test."""
    named = (span for span in spans(page) if _TEST.fullmatch(span) and span.strip(":"))
    return [span for span in named if span not in names]


@pytest.mark.parametrize("page", GUARANTEES, ids=lambda page: page.stem)
def test_the_proofs_exist(page: Path) -> None:
    """Every test that a promise names exists under that very name."""
    distribution = page.stem.partition("-")[0]

    assert not unknown_tests(page, proofs_of(distribution))
    others = (span.partition("::")[0] for span in spans(page) if span.startswith("tests/"))
    assert not [file for file in others if not (ROOT / file).exists()]


def test_a_missing_proof_is_found(tmp_path: Path) -> None:
    """A name that fits no test is found, in each of its forms."""
    page = tmp_path / "page.md"
    missing = ["test_x.py::TestA::test_b", "redis/test_x.py", "TestA::test_c", "test_d"]
    page.write_text("`TestA` `pool.get()` `test_b`" + "".join(f" `{name}`" for name in missing))

    assert unknown_tests(page, {"TestA", "test_b"}) == missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_files_exist(page: Path) -> None:
    """Every module, attribute and file that a page on the project itself names is there."""
    for span in spans(page):
        if _FILE.fullmatch(span):
            assert (ROOT / span).exists(), span
        elif _MODULE.fullmatch(span) and "components" not in span:
            assert _resolves(span), span


def _resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return hasattr(importlib.import_module(module), name)

    return True
