"""The workers of one service on one machine: each publishes a snapshot of itself, and any can read them all.

A group is a directory that only its owner can enter, named after the process that started the workers: our
supervisor, uvicorn's, gunicorn's master. What a worker has counted stays when it ends: whoever finds its
process gone adds its counters to a file of the departed, so that sums never fall. Without such a parent
a group does not exist, and nothing is written.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ws_core.metrics import METRICS, Sample, merge

if sys.platform != "win32":  # there, no server has several workers
    import fcntl

# Any below: JSON values.

_PREFIX: Final = "ws-web-workers-"
_DEPARTED: Final = "departed.json"
_REMEMBERED: Final = 100  # names of files that were added; an unlink that failed must not count twice

_parents: list[int] = []


def set_parent(pid: int) -> None:
    """Note which process has started this one, where that cannot be recognised."""
    _parents[:] = [pid]


def forget_workers() -> None:
    """Remove what the workers that this process has started have left; they have all ended."""
    shutil.rmtree(_directory_of(os.getpid()), ignore_errors=True)


def _directory_of(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}-{_identity(parent)}"


class WorkerGroup:
    """The directory of a group, with the file of this process in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = f"{_identity(os.getpid())}.json"

    @classmethod
    def of_this_process(cls) -> WorkerGroup | None:
        """Return the group of this process, or None when it is not one of several workers."""
        parent = _parent()

        if parent is None:
            return None

        directory = _directory_of(parent)

        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)

        found = directory.lstat()

        # The name can be guessed: another user of the machine may have been first.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return None

        _sweep(directory.parent)
        return cls(directory)

    def publish(self, samples: Iterable[Sample], state: object = None) -> None:
        """Write this worker's snapshot, in one step."""
        self._write(self._own, {"pid": os.getpid(), "samples": _packed(samples), "state": state})

    def read(self) -> tuple[tuple[Sample, ...], list[dict[str, Any]]]:
        """Return the sums of all workers, past ones included, and what the present ones are doing."""
        with self._locked():
            departed = self._read(_DEPARTED) or {"samples": [], "added": []}
            present: list[dict[str, Any]] = []
            changed = False

            for path in sorted(self._directory.glob("*-*.json")):
                if path.name in departed["added"] or (found := self._read(path.name)) is None:
                    continue

                if path.stem == _identity(found["pid"]):
                    present.append(found)
                    continue

                kept = [one for one in _unpacked(found["samples"]) if one.metric.kind != "gauge"]
                sums = merge([*_unpacked(departed["samples"]), *kept])
                added = [*departed["added"], path.name][-_REMEMBERED:]
                departed, changed = {"samples": _packed(sums), "added": added}, True

            if changed:
                self._write(_DEPARTED, departed)

            for name in departed["added"]:
                (self._directory / name).unlink(missing_ok=True)

        parts = [_unpacked(departed["samples"]), *(_unpacked(worker["samples"]) for worker in present)]
        return merge(one for part in parts for one in part), present

    def send(self, name: str, value: object) -> None:
        """Leave a note for all workers, in the place of an earlier one of this name."""
        self._write(f"{name}.note", value)

    def receive(self, name: str) -> Any:
        """Return the note of this name, or None."""
        return self._read(f"{name}.note")

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._directory / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, name: str, value: object) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)  # somebody may tidy up temporary files
        draft = self._directory / f"{name}.{os.getpid()}.draft"
        draft.write_text(json.dumps(value), encoding="utf-8")
        draft.replace(self._directory / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, exist_ok=True)

        with (self._directory / "lock").open("w") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)

            yield


def _parent() -> int | None:
    """Return the process that has started this worker and its siblings."""
    if _parents:
        return _parents[0]

    # uvicorn's, hypercorn's and granian's workers are started by multiprocessing; gunicorn forks.
    if (process := multiprocessing.parent_process()) is not None:
        return process.pid

    return os.getppid() if "gunicorn.arbiter" in sys.modules else None


def _identity(pid: int) -> str:
    """Return a name of a process that no later process with the same number has."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return f"{pid}-gone"

    # A process that has ended, and that its parent has not looked after yet, does nothing any more.
    return f"{pid}-gone" if started[0] in "ZX" else f"{pid}-{started[19]}"


def _sweep(base: Path) -> None:
    """Remove directories whose parent process has ended."""
    for directory in base.glob(f"{_PREFIX}{os.getuid()}-*"):
        identity = directory.name.removeprefix(f"{_PREFIX}{os.getuid()}-")
        pid = identity.partition("-")[0]

        if pid.isdigit() and identity != _identity(int(pid)):
            shutil.rmtree(directory, ignore_errors=True)


def _packed(samples: Iterable[Sample]) -> list[Any]:
    return [[one.metric.name, one.value, one.count, one.attributes, one.buckets] for one in samples]


def _unpacked(packed: Sequence[Any]) -> list[Sample]:
    """Return samples; those that this version does not know, of an older worker, are left out."""
    return [
        Sample(METRICS[name], value, count, tuple((key, text) for key, text in attributes), tuple(buckets))
        for name, value, count, attributes, buckets in packed
        if name in METRICS and len(buckets) in (0, len(METRICS[name].buckets) + 1)
    ]
