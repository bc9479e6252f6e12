"""What mkdocs does to a page before it renders it."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ("on_page_markdown", "public_modules", "without_marks")

ROOT = Path(__file__).resolve().parent.parent
MODULES = re.compile(r"^\[\[modules of ([\w-]+)\]\]$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the reference of a distribution in its place, and hide the marks that only the tests read."""
    return MODULES.sub(lambda found: _reference(found[1]), without_marks(markdown))


def without_marks(markdown: str) -> str:
    """
    Drop the mark of blocks that are not run.

    Example:
        >>> without_marks("```python no-run")
        '```python'
    """
    return re.sub(r"^([ \t]*(?:```+|~~~+)[ \t]*python) no-run[ \t]*$", r"\1", markdown, flags=re.MULTILINE)


def _reference(distribution: str) -> str:
    (source,) = (ROOT / "packages" / distribution / "src").iterdir()
    options = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
    return "\n".join(f"## `{name}`\n\n::: {name}\n{options}" for name in public_modules(source))


def public_modules(source: Path) -> list[str]:
    """List the modules of a package whose names have no leading underscore, in alphabetical order."""
    names = []

    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts

        if parts[-1] == "__init__":
            parts = parts[:-1]

        hidden = any(part.startswith("_") for part in parts) or "scaffold" in parts or "demo" in parts

        if len(parts) > 1 and not hidden:
            names.append(".".join(parts))

    return names
