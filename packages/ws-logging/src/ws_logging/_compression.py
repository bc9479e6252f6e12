"""Compress rotated files: gzip of the standard library, or Zstandard, which Python has since 3.14."""

from __future__ import annotations

import gzip
import importlib
import os
import shutil
import stat as stat_module
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ws_logging.errors import LoggingConfigError

# Any below: files of several libraries.

SUFFIXES: Final = {"gz": ".gz", "zst": ".zst"}
"""What the names of compressed files end with, by the name of the compression."""


def check_compression(name: Any) -> None:
    """Refuse a compression that there is not, or whose library is missing."""
    if name is None:
        return

    if not isinstance(name, str) or name not in SUFFIXES:
        raise LoggingConfigError(f"compression: 'gz', 'zst' or None is expected, not {name!r}")

    if name == "zst":
        zstandard()


def compress(path: Path, name: str) -> None:
    """Replace a file by its compressed form; whoever looks sees the one or the other, whole."""
    target = Path(f"{path}{SUFFIXES[name]}")
    part = Path(f"{target}.part")
    stat = path.stat()

    raw = part.open("xb")  # an existing one is another process's

    try:
        with raw:
            keep_owner(raw.fileno(), stat)

            with _OPENERS[name](raw) as packed, path.open("rb") as source:
                shutil.copyfileobj(source, packed, 1024 * 1024)

        os.utime(part, (stat.st_atime, stat.st_mtime))
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

    path.unlink()


def keep_owner(descriptor: int, before: os.stat_result) -> None:
    """Copy mode and owner of the file that a new one replaces, as far as that is allowed."""
    with suppress(OSError, AttributeError):  # Windows has neither of them
        os.fchmod(descriptor, stat_module.S_IMODE(before.st_mode))
        os.fchown(descriptor, before.st_uid, before.st_gid)


def zstandard() -> Any:
    """Return the module of the standard library, or its backport."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):  # also of a Python that was built without it
            return importlib.import_module(name)

    raise LoggingConfigError(
        "compression: 'zst' needs Python 3.14 or ws-logging[zstd]: pip install 'ws-logging[zstd]'"
    )


_OPENERS: Final[dict[str, Callable[[Any], Any]]] = {
    "gz": lambda raw: gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6),
    "zst": lambda raw: zstandard().open(raw, "wb"),
}
