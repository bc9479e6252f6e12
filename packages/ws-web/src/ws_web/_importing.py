"""Objects named by dotted strings, as settings may write them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ws_web.errors import SettingsError


def search_working_directory() -> None:
    """Find modules of the working directory: a console script does not have the project on its path."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def load(named: object, where: str) -> Any:  # Any: whatever has that name
    """
    Return the object that a dotted name stands for; anything but a string is returned as it is.

    Example:
        >>> load("json.dumps", "EXAMPLE")([1])
        '[1]'
    """
    if not isinstance(named, str):
        return named

    module_name, _, name = named.replace(":", ".").rpartition(".")

    if not module_name:
        raise SettingsError(f"{where}: '{named}' is not a dotted name such as 'package.module.name'")

    try:
        return getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise SettingsError(f"{where}: '{named}' cannot be imported: {error}") from None
    except AttributeError:
        raise SettingsError(f"{where}: there is no '{name}' in the module '{module_name}'") from None
