"""What is said when a module is imported whose library is not installed."""

from __future__ import annotations

from ws_core.errors import MissingExtraError

__all__ = ("MissingLibraryError", "missing")

_OURS = ("ws_pool", "ws_core")


class MissingLibraryError(MissingExtraError, ImportError):
    """A module needs a library that is not installed. Also an `ImportError`."""


def missing(module: str, error: ModuleNotFoundError, *extras: str) -> ImportError:
    """
    Say which extra brings the library that a module needs.

    Args:
        module: The module's name.
        error: Why it cannot be imported.
        *extras: Each of them brings the library.

    Returns:
        The error to raise instead; the same one when it is a module of ours that is missing.
    """
    if error.name is None or error.name.startswith(_OURS):
        return error

    command = " or ".join(f"pip install 'ws-pool[{extra}]'" for extra in extras)
    message = f"{module} needs {error.name}, which is not installed: {command}"
    return MissingLibraryError(message, module=module, library=error.name)
