"""What a suite runs on: a library's source distribution, and an environment that has what its tests need."""

from __future__ import annotations

import fcntl
import subprocess
import tarfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ("PLACE", "ROOT", "interpreter", "source")

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".dev" / "conformance"


def interpreter(name: str, wanted: Sequence[str]) -> str:
    """Return the interpreter of the environment that is called so, and has what is wanted."""
    place = PLACE / f"{name}-env"
    python, ready = place / "bin" / "python", place / "ready"
    note = "\n".join(wanted)

    with _alone():
        if not ready.exists() or ready.read_text(encoding="utf-8") != note:
            venv.create(place, with_pip=True, clear=True)

            if wanted:
                subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)

            ready.write_text(note, encoding="utf-8")

    return str(python)


def source(name: str, version: str) -> Path:
    """Return the unpacked source distribution of a version."""
    place = PLACE / f"{name.lower()}-{version}"
    python = interpreter("pip", ())

    with _alone():
        if not place.is_dir():
            command = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name]
            subprocess.run([*command, "-d", str(PLACE), f"{name}=={version}"], check=True)

            with tarfile.open(f"{place}.tar.gz") as archive:
                archive.extractall(PLACE, filter="data")

    return place


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other suites from making the same environment, or unpacking the same archive, at this moment."""
    PLACE.mkdir(parents=True, exist_ok=True)

    with (PLACE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
