"""A log file that many processes append to and rotate: whole batches, under a lock, never torn.

The lock is an ``flock`` on a sidecar (``app.log.lock``) that is never renamed. Under it a writer
looks whether its descriptor still is the file of that name, rotates when due, appends the batch
and takes back what it could not finish. The sidecar also remembers since when the file exists,
so that any process can decide whether a day has ended.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from ws_logging.rotation import LogFileRotator

__all__ = ("RotatingFile",)

_MODE = 0o644


class RotatingFile:
    """
    Append to a file that others append to and rotate as well.

    Not safe for threads: the owner calls one method at a time. A rotated ``app.log`` is named
    ``app.2026-01-31_00-00-00_000000.log``.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotator: LogFileRotator | None = None,
        retention: int | timedelta | None = None,
        compression: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.rotations = 0
        self._rotator = rotator
        self._retention = retention
        self._compression = compression
        self._clock = clock
        self._lock_path = path.with_name(path.name + ".lock")
        self._fd = -1
        self._lock_fd = -1

    def open(self) -> None:
        """Open or create the file and its sidecar."""
        if self._lock_fd < 0:
            self._lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)

        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def close(self) -> None:
        """Close the descriptors; a later `append` opens them again."""
        for descriptor in (self._fd, self._lock_fd):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)

        self._fd = self._lock_fd = -1

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None, list[Path]]:
        """
        Append whole lines.

        Returns how many of them are in the file for good, what kept the others out, and the files that were
        rotated away meanwhile, for `tidy`. Lines that are not in the file have left no trace in it.
        """
        rotated: list[Path] = []
        done = 0

        try:
            with self._locked():
                while done < len(lines):
                    old = self._follow(len(lines[done]))

                    if old is not None:
                        rotated.append(old)

                    part = self._fitting(lines, done)
                    written, error = self._write(part)
                    done += written

                    if error is not None:
                        return done, error, rotated
        except OSError as error:
            return done, error, rotated

        return done, None, rotated

    def tidy(self, rotated: list[Path]) -> None:
        """Compress what was rotated away, delete what is too much; raise the last failure at the end."""
        problem: OSError | None = None

        if self._compression == "gz":
            for path in rotated:
                try:
                    _compress(path)
                except FileNotFoundError:
                    continue  # deleted by another process's retention, or moved away by hand
                except OSError as error:
                    problem = error

        if rotated:
            for path in self._expired():
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    problem = error

        if problem is not None:
            raise problem

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.open()
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

        try:
            yield
        finally:
            # Explicitly, not by closing: a forked child may hold a copy of the descriptor.
            if self._lock_fd >= 0:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _follow(self, adding: int) -> Path | None:
        """Make the descriptor that of the live file; rotate it when due. Return what was rotated."""
        now = self._clock()
        stat = self._current()

        if stat is None:
            self._reopen(now)
            return None

        if self._rotator is None:
            return None

        since = self._since(stat)

        if not self._rotator.is_due(size=stat.st_size, adding=adding, since=since, now=now):
            return None

        old = self._free_name(now)
        self.path.rename(old)
        self.rotations += 1
        self._reopen(now)
        return old

    def _current(self) -> os.stat_result | None:
        """Return the state of the live file if our descriptor is that file, else None."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return None

        ours = os.fstat(self._fd)
        return ours if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) else None

    def _reopen(self, now: float) -> None:
        """Open the file that has the name now, creating it if there is none."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        os.close(self._fd)
        self._fd = fd
        stat = os.fstat(fd)

        if stat.st_size == 0:
            self._note(stat, now)

    def _note(self, stat: os.stat_result, now: float) -> None:
        """Remember in the sidecar since when this file exists."""
        text = f"{stat.st_ino} {now:.6f}\n".encode()

        with suppress(OSError):  # a full disk: the time of the last write will do instead
            os.pwrite(self._lock_fd, text, 0)
            os.ftruncate(self._lock_fd, len(text))

    def _since(self, stat: os.stat_result) -> float:
        """Return since when the file exists, or else when it was last written to."""
        noted = os.pread(self._lock_fd, 64, 0).split()

        with suppress(ValueError, IndexError):
            if int(noted[0]) == stat.st_ino:
                return float(noted[1])

        if stat.st_size == 0:
            self._note(stat, self._clock())

        return stat.st_mtime

    def _write(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Write all, or take back the part of a line that was written when it failed."""
        data = memoryview(b"".join(lines))
        start = os.fstat(self._fd).st_size
        done = 0

        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            whole, size = _whole_lines(lines, done)

            if size < done:
                with suppress(OSError):  # not a regular file: nothing can be taken back
                    os.ftruncate(self._fd, start + size)

            return whole, error

        return len(lines), None

    def _fitting(self, lines: list[bytes], start: int) -> list[bytes]:
        """Return the lines from a start that fit into the live file before it must be rotated."""
        room = None if self._rotator is None else self._rotator.room(os.fstat(self._fd).st_size)

        if room is None:
            return lines[start:] if start else lines

        end = start + 1  # one line at least: a line longer than a file has a file of its own
        room -= len(lines[start])

        while end < len(lines) and len(lines[end]) <= room:
            room -= len(lines[end])
            end += 1

        return lines[start:end]

    def _free_name(self, now: float) -> Path:
        """Return a name for the file to be rotated away that nothing has yet."""
        stamp = datetime.fromtimestamp(now).strftime("%Y-%m-%d_%H-%M-%S_%f")  # noqa: DTZ006 - local time is meant
        stem, suffix = self.path.stem, self.path.suffix
        name = self.path.with_name(f"{stem}.{stamp}{suffix}")
        number = 1

        while os.path.lexists(name) or os.path.lexists(f"{name}.gz"):
            number += 1
            name = self.path.with_name(f"{stem}.{stamp}.{number}{suffix}")

        return name

    def _expired(self) -> list[Path]:
        """Return the rotated files that retention does not keep."""
        if self._retention is None:
            return []

        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        ours = re.compile(rf"{stem}\.\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{{6}}(\.\d+)?{suffix}(\.gz)?")
        found: list[tuple[float, str, Path]] = []

        for path in self.path.parent.iterdir():
            if ours.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    found.append((path.stat().st_mtime, path.name, path))

        found.sort()

        if isinstance(self._retention, timedelta):
            oldest = self._clock() - self._retention.total_seconds()
            return [path for written, _, path in found if written < oldest]

        return [path for *_, path in found[: max(0, len(found) - self._retention)]]


def _whole_lines(lines: list[bytes], written: int) -> tuple[int, int]:
    r"""
    Return how many whole lines, and how many bytes they are, are within a number of bytes.

    Example:
        >>> _whole_lines([b"one\n", b"two\n"], 6)
        (1, 4)
    """
    count = size = 0

    for line in lines:
        if size + len(line) > written:
            break

        count, size = count + 1, size + len(line)

    return count, size


def _compress(path: Path) -> None:
    """Replace a file by its gzip; whoever looks sees the one or the other, whole."""
    target, part = Path(f"{path}.gz"), Path(f"{path}.gz.part")
    stat = path.stat()

    try:
        with path.open("rb") as source, gzip.open(part, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(source, packed, 1024 * 1024)

        os.utime(part, (stat.st_atime, stat.st_mtime))
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

    path.unlink()
