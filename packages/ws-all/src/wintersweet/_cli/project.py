"""Which application a command means, and with which settings module."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ws_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Project:
    """What ``[tool.wintersweet]`` of ``pyproject.toml`` says."""

    app: str | None = None
    settings: str | None = None


def find(directory: Path) -> Project:
    """Read the project's table from ``pyproject.toml``."""
    path = directory / "pyproject.toml"

    try:
        table = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("wintersweet", {})
    except FileNotFoundError:
        return Project()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error

    for key, value in table.items():
        if key not in {"app", "settings"}:
            raise ConfigError(f"{path}: [tool.wintersweet] has app and settings, not {key!r}")

        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key} in [tool.wintersweet] must be a string, not {value!r}")

    return Project(**table)


def use(directory: Path | None = None) -> Project:
    """Make the project's modules and settings those of this process and its children."""
    where = Path.cwd() if directory is None else directory
    project = find(where)
    source = where / "src"

    for path in (source, where):
        if path.is_dir() and str(path) not in sys.path:
            sys.path.insert(0, str(path))

    if project.settings is not None:
        os.environ.setdefault("WINTERSWEET_SETTINGS_MODULE", project.settings)

    return project


def load(target: str | None, project: Project) -> tuple[str, Callable[..., object]]:
    """Import what a target names."""
    wanted = target or project.app

    if wanted is None:
        message = (
            "no application: name one as MODULE:NAME, "
            'or set app = "module:name" in [tool.wintersweet] of pyproject.toml'
        )
        raise ConfigError(message)

    module, colon, name = wanted.partition(":")

    if not (module and colon and name):
        raise ConfigError(
            f"{wanted!r} does not name an application: write MODULE:NAME, such as shop.app:create"
        )

    thing = getattr(import_module(module, wanted), name, None)

    if not callable(thing):
        raise ConfigError(f"module {module} has no application or function {name!r}")

    return wanted, thing


def import_module(name: str, target: str) -> ModuleType:
    """Import the module of a target that the user has typed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = (
            f"there is no module {name} (from {target!r}): run this in the project's directory"
            if is_missing(name, error)
            else f"cannot import {name}: it needs the module {error.name}, which is not there"
        )
        raise ConfigError(message) from error


def is_missing(name: str, error: ModuleNotFoundError) -> bool:
    """Whether a module itself is not there, or a package around it; else it is one that it imports."""
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")
