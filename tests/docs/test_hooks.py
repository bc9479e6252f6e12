"""What mkdocs does to pages: one for each module in the reference, and use without a mouse."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """Return docs/_hooks.py, which mkdocs loads by its path."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_for_each_module(hooks: ModuleType) -> None:
    """The navigation has each public module once, the most used first."""
    entries: list[dict[str, Any]] = [
        {"ws_tasks": "reference/tasks.md"},
        {"The command line": "reference/cli.md"},
    ]
    hooks.on_config({"nav": [{"Look up": entries}]})
    tasks, line = entries

    assert line == {"The command line": "reference/cli.md"}
    assert tasks["ws_tasks"][:2] == ["reference/tasks.md", {"tasks": "reference/tasks/tasks.md"}]

    for distribution in hooks.MOST_USED:
        names = hooks._ordered(distribution)
        assert sorted(names) == sorted(hooks.public_modules(hooks._source(distribution)))


def test_the_table_of_modules(hooks: ModuleType) -> None:
    """Each row leads to a module's page, and says what it is for; the facade stays on one page."""
    table = hooks.on_page_markdown("[[modules of ws-web]]")

    assert table.splitlines()[2].startswith(
        "| [`ws_web.app`](web/app.md) | `create_app`: a FastAPI application"
    )
    assert all(len(row.split(" | ")[1]) > 10 for row in table.splitlines()[2:])
    assert "::: wintersweet.cli" in hooks.on_page_markdown("[[modules of ws-all]]")


def test_pages_without_a_mouse(hooks: ModuleType) -> None:
    """Blocks of code can be focused, once, and the dialog of the search has a name."""
    once = hooks.on_post_page(
        '<div data-md-component="search" role="dialog"><pre id="1"><code>1</code></pre></div>'
    )

    assert '<pre tabindex="0" id="1"><code>' in once
    assert 'role="dialog" aria-label="Search">' in once
    assert hooks.on_post_page(once).count("tabindex") == 1
