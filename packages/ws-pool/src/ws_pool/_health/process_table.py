"""A small file that several processes map into memory, with a record for each.

A record belongs to a process, known by its pid and the moment it started, so that neither a dead
process nor another one with its pid counts as alive. Records are claimed under a file lock and
written by their owner alone. The last process to leave removes the file; where none could, because all
were killed, the next service of this user does.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ws_pool.errors import ConfigError, UnavailableError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_MAGIC = b"wsslots1"
_HEAD = struct.Struct("@8sQ")  # magic, number of the pid namespace
_RECORD = struct.Struct("@QQdQ")  # pid, start of the process, last beat, 1 when healthy
_HEARTBEAT = struct.Struct("@dQ")
_HEARTBEAT_AT = 16  # bytes of a record before its last beat
_CAPACITY = 127
_SIZE = _RECORD.size * (_CAPACITY + 1)  # the first one is the head


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """
    The last report of a process about itself.

    ``heartbeat`` is its time on the monotonic clock, which all processes of a machine share.
    """

    pid: int
    heartbeat: float
    healthy: bool


class ProcessTable:
    """The mapped file, with this process's record in it; made when it is missing, for its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd, self._map = -1, mmap.mmap(-1, 1)  # until the file is open; closing it is harmless
        self._offset = self._open()

    def heartbeat(self, now: float, *, healthy: bool) -> None:
        """Report that this process is alive."""
        _HEARTBEAT.pack_into(self._map, self._offset + _HEARTBEAT_AT, now, int(healthy))

    def alive(self) -> list[ProcessRecord]:
        """Return the records of living processes."""
        return [
            ProcessRecord(pid, heartbeat, bool(healthy))
            for pid, start, heartbeat, healthy in _entries(self._map)
            if pid and process_start(pid) == start
        ]

    def close(self) -> None:
        """Free the record; the last process removes the file."""
        with self._locked():
            _RECORD.pack_into(self._map, self._offset, 0, 0, 0.0, 0)

            if not self.alive():
                self.path.unlink(missing_ok=True)

        self.close_inherited()

    def close_inherited(self) -> None:
        """Close the mapping alone; after a fork the record stays the parent's."""
        self._map.close()
        os.close(self._fd)

    def _claim(self) -> int:
        """Take the first record that is free or whose process is dead."""
        for number, (pid, start, _, _) in enumerate(_entries(self._map), 1):
            if not pid or process_start(pid) != start:
                place = number * _RECORD.size
                me = os.getpid()
                _RECORD.pack_into(self._map, place, me, process_start(me) or 0, 0.0, 0)
                return place

        message = f"{self.path}: all {_CAPACITY} records are taken by living processes"
        raise UnavailableError(message, path=str(self.path))

    def _open(self) -> int:
        """Open and map the file, and claim a record of it, all under its lock."""
        # Between opening and locking, the last process to leave may have removed the file. A lock on
        # a removed file excludes nobody who opens its successor: try again until both are the same.
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

            try:
                self._fd = os.open(self.path, flags, 0o600)
            except OSError as error:
                message = f"cannot open {self.path} to share health among processes: {error}"
                raise UnavailableError(message, path=str(self.path)) from error

            try:
                with self._locked():
                    if self._is_current():
                        self._map.close()
                        self._map = self._mapped()
                        # Under the same lock, because a file without a living process may be removed.
                        return self._claim()
            except BaseException:
                self._map.close()
                os.close(self._fd)
                raise

            os.close(self._fd)

    def _is_current(self) -> bool:
        ours = os.fstat(self._fd)

        try:
            theirs = os.lstat(self.path)
        except FileNotFoundError:
            return False

        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    def _mapped(self) -> mmap.mmap:
        status = os.fstat(self._fd)

        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            message = f"{self.path} is not a plain file of this user: remove it, or choose another name"
            raise ConfigError(message, path=str(self.path))

        if status.st_size == 0:
            os.ftruncate(self._fd, _SIZE)
            os.pwrite(self._fd, _HEAD.pack(_MAGIC, _pid_namespace()), 0)
        elif status.st_size != _SIZE or os.pread(self._fd, len(_MAGIC), 0) != _MAGIC:
            message = f"{self.path} holds something else: remove it, or choose another name"
            raise ConfigError(message, path=str(self.path))

        return mmap.mmap(self._fd, _SIZE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


def can_share() -> bool:
    """Return whether processes can share a table on this system."""
    return fcntl is not None


def remove_abandoned(directory: Path, prefix: str) -> None:
    """Remove the tables of services whose processes were all killed."""
    for path in directory.glob(f"{prefix}*"):
        # Whatever is odd about a file: it is not ours to remove.
        with suppress(OSError, struct.error):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    try:
        status = os.fstat(fd)

        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size != _SIZE:
            return

        # Whoever holds the lock is alive. One who has opened the file and waits for it finds that it
        # was removed, and makes another.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        data = os.pread(fd, _SIZE, 0)

        # Processes of another container that shares the directory only look dead from here.
        if _HEAD.unpack_from(data) != (_MAGIC, _pid_namespace()) or not _pid_namespace():
            return

        if not any(pid and process_start(pid) == start for pid, start, _, _ in _entries(data)):
            path.unlink()
    finally:
        os.close(fd)


def _entries(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, float, int]]:
    for number in range(1, _CAPACITY + 1):
        pid, start, heartbeat, healthy = _RECORD.unpack_from(data, number * _RECORD.size)
        yield pid, start, heartbeat, healthy


def _pid_namespace() -> int:
    """Return the number of the namespace that pids of this process mean something in; 0 when unknown."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def runtime_directory() -> Path:
    """Return ``$XDG_RUNTIME_DIR``, or the directory for temporary files."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def process_start(pid: int) -> int | None:
    """
    Return when a process started, in ticks since the boot; None when it is dead, collected or not.

    On a system without ``/proc`` it is 0 for every living process.
    """
    # Elsewhere the signal 0, which asks whether a process lives, is an interrupt.
    if not can_share():
        return 0

    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() or not _accepts_signals(pid) else 0

    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _accepts_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True

    return True
