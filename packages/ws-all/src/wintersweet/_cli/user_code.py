"""An error in a project's own code, shown by the project's lines alone."""

from __future__ import annotations

import site
import sys
import sysconfig
import traceback
from pathlib import Path


def describe_failure(error: BaseException, directory: Path) -> str | None:
    """Return the lines of a project that led to an error, with the error; None when none of them did."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_own(frame.filename, directory) and not frame.filename.startswith("<")
    ]
    named = error.filename if isinstance(error, SyntaxError) else None

    if not frames and not (named and _is_own(named, directory)):
        return None

    for frame in frames:
        frame.filename = str(Path(frame.filename).relative_to(directory))

    lines = traceback.format_list(frames)
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip().replace(f"{directory}/", "")


def _is_own(filename: str, directory: Path) -> bool:
    """Whether a file is the project's, not a library's in an environment inside of it."""
    path = Path(filename)
    libraries = {sys.prefix, sysconfig.get_paths()["stdlib"], *site.getsitepackages()}
    return path.is_relative_to(directory) and not any(path.is_relative_to(place) for place in libraries)
