"""What the tests of ws-web share: no settings of the developer, and components to be discovered."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ws_web import settings


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, with none of the developer's settings, and leave none behind."""
    monkeypatch.chdir(tmp_path)

    for name in os.environ:
        if name.startswith(("WS_", "WINTERSWEET_")):
            monkeypatch.delenv(name)

    settings.use(None)
    yield
    settings.use(None)


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Install a distribution that publishes components: a module's text, and its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def install(source: str, entry_points: str) -> None:
        name = f"published_{len(names)}_{tmp_path.name.replace('-', '_')}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        listed = textwrap.dedent(entry_points).format(module=name)
        (info / "entry_points.txt").write_text(f"[wintersweet.components]\n{listed}\n")

    yield install

    for name in names:
        sys.modules.pop(name, None)
