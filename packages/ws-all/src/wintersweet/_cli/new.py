"""``wintersweet new``: a project from the template in `wintersweet.scaffold`."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from wintersweet._cli.output import stderr
from ws_core.errors import ConfigError

__all__ = ("check_name", "create")

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_TAKEN = frozenset({"wintersweet", "tests", "test"})


def check_name(name: str) -> str:
    """
    Turn a project's name into its package's name.

    Example:
        >>> check_name("flower-shop")
        'flower_shop'
    """
    if keyword.iskeyword(name):
        message = f"{name!r} cannot name a project: it is a word of Python; choose another name"
        raise ConfigError(message, name=name)

    if not _NAME.fullmatch(name):
        rule = "use lower-case letters, digits and single hyphens, such as flower-shop"
        message = f"{name!r} cannot name a project: {rule}"
        raise ConfigError(message, name=name)

    package = name.replace("-", "_")

    if package in _TAKEN or package in sys.stdlib_module_names or package.startswith("ws_"):
        raise ConfigError(
            f"a project {name!r} would hide the module {package}: choose another name", name=name
        )

    return package


def create(name: str, parent: Path) -> Path:
    """
    Write a new project.

    Args:
        name: The project's name, also its directory's.
        parent: Where to put the directory.

    Returns:
        The project's directory.

    Raises:
        ConfigError: The name is wrong, the directory exists, or nothing can be written there.
    """
    package = check_name(name)
    target = parent / name

    try:
        target.mkdir()
    except FileExistsError:
        raise ConfigError(f"{target} exists already: choose another name, or remove it", name=name) from None
    except OSError as error:
        message = f"cannot create {target}: {error.strerror}; run this in a directory that you may write into"
        raise ConfigError(message, name=name) from error

    try:
        _copy(files("wintersweet.scaffold") / "template", target, name, package)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConfigError(
            f"cannot write {error.filename}: {error.strerror}; nothing was left behind"
        ) from error

    console = stderr()
    console.print(f"[green]✓[/] created [bold]{name}[/]")
    console.print(f"  cd {name} && wintersweet run", markup=False)
    console.print(f"  cd {name} && python -m pytest", markup=False)

    return target


def _copy(source: Traversable, target: Path, name: str, package: str) -> None:
    for entry in source.iterdir():
        if entry.name in {"__pycache__", ".pytest_cache"}:
            continue

        # A template is no package: its files end in ".tmpl", so that no tool takes them for code.
        place = target / entry.name.replace("PACKAGE", package).removesuffix(".tmpl")

        if entry.is_dir():
            place.mkdir()
            _copy(entry, place, name, package)
        else:
            text = entry.read_text("utf-8")
            place.write_text(text.replace("{{ package }}", package).replace("{{ name }}", name), "utf-8")
