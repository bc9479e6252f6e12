"""What mkdocs does to a page before it renders it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

__all__ = (
    "accessible",
    "on_config",
    "on_files",
    "on_page_markdown",
    "on_post_page",
    "public_modules",
    "without_marks",
)

ROOT = Path(__file__).resolve().parent.parent
MODULES = re.compile(r"^\[\[modules of ([\w-]+)\]\]$", re.MULTILINE)


# Any below: mkdocs' own configuration.

MOST_USED: Mapping[str, tuple[str, ...]] = {
    "ws-web": ("app", "conf", "response", "request", "dependencies", "exception_handlers", "testing", "ws"),
    "ws-pool": ("mysql", "postgres", "sqlite", "redis", "http", "cache", "events", "mongo", "es", "testing"),
    "ws-redislock": ("mutex", "limiter", "semaphore", "rwlock", "leader", "multi", "fencing", "claims"),
    "ws-tasks": ("tasks", "interface", "scheduler", "triggers", "engine", "taskiq", "stores", "circular"),
    "ws-logging": ("register", "context", "intercept", "sink", "rotation", "redact"),
    "ws-core": ("errors", "testing", "metaclass", "component", "redaction", "backoff", "metrics"),
}
"""The order of modules in the reference; those that are not named follow by the alphabet."""


def on_config(config: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let each distribution's entry in the navigation lead to a page for each module."""
    _split(config["nav"])
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the page of each module."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests read this module without mkdocs

    for distribution in MOST_USED:
        for name in _ordered(distribution):
            text = f"# `{name}`\n\n::: {name}\n    options:\n      show_root_heading: false\n"
            page = File.generated(config, _page(distribution, name), content=text)
            files.append(page)

    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the reference of a distribution in its place, and hide the marks that only the tests read."""
    return MODULES.sub(lambda found: _reference(found[1]), without_marks(markdown))


def on_post_page(output: str, **_: object) -> str:
    """Mend what the theme leaves out for people who do not see, or use no mouse."""
    return accessible(output)


def accessible(html: str) -> str:
    """
    Name the dialog of the search, and let blocks of code be reached by keyboard, so that they scroll.

    Not the code itself: the theme's script takes that back. The stylesheet lets the block scroll.

    Example:
        >>> accessible('<pre id="__code_0"><code>1</code></pre>')
        '<pre tabindex="0" id="__code_0"><code>1</code></pre>'
    """
    dialog = 'data-md-component="search" role="dialog"'
    named = html.replace(dialog, f'{dialog} aria-label="Search"')
    return re.sub(r"<pre\b(?! tabindex)", '<pre tabindex="0"', named)


def without_marks(markdown: str) -> str:
    """
    Drop the mark of blocks that are not run.

    Example:
        >>> without_marks("```python no-run")
        '```python'
    """
    return re.sub(r"^([ \t]*(?:```+|~~~+)[ \t]*python) no-run[ \t]*$", r"\1", markdown, flags=re.MULTILINE)


def _reference(distribution: str) -> str:
    """Return the table of a distribution's modules, or, of the facade, all of them on one page."""
    if distribution not in MOST_USED:
        options = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
        return "\n".join(
            f"## `{name}`\n\n::: {name}\n{options}" for name in public_modules(_source(distribution))
        )

    rows = [
        f"| [`{name}`]({page.removeprefix('reference/')}) | {_purpose(distribution, name)} |"
        for name in _ordered(distribution)
        if (page := _page(distribution, name))
    ]
    return "\n".join(("| module | what it is for |", "| --- | --- |", *rows))


def _split(entries: list[Any]) -> None:
    """Replace ``reference/web.md`` in the navigation by that page and those of its modules."""
    for entry in entries:
        for title, value in entry.items() if isinstance(entry, dict) else ():
            if isinstance(value, list):
                _split(value)
            elif value.startswith("reference/") and (name := f"ws-{Path(value).stem}") in MOST_USED:
                pages = [{module.partition(".")[2]: _page(name, module)} for module in _ordered(name)]
                entry[title] = [value, *pages]


def _page(distribution: str, module: str) -> str:
    return f"reference/{distribution.removeprefix('ws-')}/{module.partition('.')[2]}.md"


def _source(distribution: str) -> Path:
    (source,) = (ROOT / "packages" / distribution / "src").iterdir()
    return source


def _ordered(distribution: str) -> list[str]:
    """Return the modules of a distribution, the most used first."""
    source = _source(distribution)
    first = [f"{source.name}.{name}" for name in MOST_USED[distribution]]
    return [*first, *(name for name in public_modules(source) if name not in first)]


def _purpose(distribution: str, module: str) -> str:
    """Return the first line of a module's docstring."""
    place = _source(distribution).parent / Path(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return words.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


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
