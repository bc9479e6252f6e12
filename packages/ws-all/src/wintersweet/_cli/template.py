"""The template of new projects in `wintersweet.scaffold`: one tree of files for Jinja."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import Environment, StrictUndefined

# What comes out is source text, never HTML.
_JINJA = Environment(  # noqa: S701
    undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
)


def template() -> Traversable:
    """Return the directory of the template."""
    return files("wintersweet.scaffold") / "template"


def write(source: Traversable, target: Path, names: dict[str, object]) -> None:
    """Render a directory of the template into an existing one; a file that comes out empty is left out."""
    for entry in source.iterdir():
        if entry.name in {"__pycache__", ".pytest_cache"}:
            continue

        # A template is not a package: its files end in ".tmpl", so that no tool takes them for code.
        name = entry.name.removesuffix(".tmpl")

        for word in ("package", "name"):
            name = name.replace(word.upper(), str(names.get(word)))

        if entry.is_dir():
            (target / name).mkdir()
            write(entry, target / name, names)

            if not any((target / name).iterdir()):
                (target / name).rmdir()
        elif (text := _JINJA.from_string(entry.read_text("utf-8")).render(names)).strip():
            (target / name).write_text(text, "utf-8")
