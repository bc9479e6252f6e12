"""The error of a module whose library is not installed."""

from __future__ import annotations

from ws_core.errors import MissingExtraError

_OURS = ("ws_pool", "ws_core")


class MissingLibraryError(MissingExtraError, ImportError):
    """A module needs a library that is not installed. Also an `ImportError`."""


def missing(module: str, error: ModuleNotFoundError, *extras: str) -> ImportError:
    """Return an error that names the extras with the library; ``error`` if one of our modules is missing."""
    if error.name is None or error.name.startswith(_OURS):
        return error

    command = " or ".join(f"pip install 'ws-pool[{extra}]'" for extra in extras)
    message = f"{module} needs {error.name}, which is not installed: {command}"
    return MissingLibraryError(message, module=module, library=error.name)
