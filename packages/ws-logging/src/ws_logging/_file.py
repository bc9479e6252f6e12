"""A log file that many processes append to and rotate: whole batches, under a lock, never torn.

The lock is an ``flock`` on a sidecar (``app.log.lock``) that is never renamed. Under it a writer
looks whether its descriptor still is the file of that name, rotates when due, appends the batch
and takes back what it could not finish. The sidecar also remembers since when the file exists,
so that any process can decide whether a day has ended.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from ws_logging._compression import SUFFIXES, compress, keep_owner
from ws_logging.rotation import LogFileRotator

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_MODE = 0o644
_ENDINGS = "|".join(map(re.escape, SUFFIXES.values()))
_REFUSED_FOR = 60.0  # seconds without another attempt to rotate after the system has refused one
_ABANDONED_AFTER = 600.0  # seconds after which a file that nobody goes on compressing is abandoned


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
        total_size: int | None = None,
        compression: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.rotations = 0
        self.refused: OSError | None = None  # why the last rotation did not happen
        self.rejected = 0  # a file takes everything
        self._rotator = rotator
        self._retention = retention
        self._total_size = total_size
        self._refused_until = float("-inf")
        self._compression = compression
        self._clock = clock
        self._lock_path = path.with_name(path.name + ".lock")
        self._fd = -1
        self._lock_fd = -1

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def has_limits(self) -> bool:
        """Whether rotated files are ever deleted or compressed."""
        return self._retention is not None or self._total_size is not None or self._compression is not None

    def open(self) -> None:
        """Open or create the file and its sidecar."""
        if self._lock_fd < 0:
            self._lock_fd = self._opened(self._lock_path, os.O_RDWR)

        if self._fd < 0:
            self._fd = self._opened(self.path, os.O_WRONLY | os.O_APPEND)

    def _opened(self, path: Path, flags: int) -> int:
        """Open or create a file; a directory that somebody has removed is made again."""
        flags |= os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

        try:
            return os.open(path, flags, _MODE)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, _MODE)

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

        if self._compression is not None:
            for path in [*rotated, *self._abandoned()]:
                try:
                    compress(path, self._compression)
                except (FileNotFoundError, FileExistsError):
                    continue  # deleted or moved away meanwhile, or compressed by another process
                except OSError as error:
                    problem = error

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
        _lock(self._lock_fd, exclusive=True)

        # When the directory was removed, the next process makes another sidecar: what is locked here
        # would keep nobody out.
        while not _is_file_of(self._lock_fd, self._lock_path):
            self.close()
            self.open()
            _lock(self._lock_fd, exclusive=True)

        try:
            yield
        finally:
            # Explicitly, not by closing: a forked child may hold a copy of the descriptor.
            if self._lock_fd >= 0:
                _lock(self._lock_fd, exclusive=False)

    def _follow(self, adding: int) -> Path | None:
        """Make the descriptor that of the live file; rotate it when due. Return what was rotated."""
        now = self._clock()

        if not _is_file_of(self._fd, self.path):
            # The file was rotated by another process, perhaps long ago: the new one may be full as well.
            self._reopen(now)

        stat = os.fstat(self._fd)

        if self._rotator is None or now < self._refused_until:
            return None

        since = self._since(stat)

        if not self._rotator.is_due(size=stat.st_size, adding=adding, since=since, now=now):
            return None

        old = self._free_name(now)

        try:
            self.path.rename(old)
        except OSError as error:
            # A file that is too long is better than lines that are nowhere.
            self.refused, self._refused_until = error, now + _REFUSED_FOR
            return None

        self.rotations += 1
        self._reopen(now)
        keep_owner(self._fd, stat)
        return old

    def _reopen(self, now: float) -> None:
        """Open the file that has the name now, creating it if there is none."""
        fd = self._opened(self.path, os.O_WRONLY | os.O_APPEND)
        os.close(self._fd)
        self._fd = fd
        stat = os.fstat(fd)

        if stat.st_size == 0:
            self._note(stat, now)

    def _note(self, stat: os.stat_result, now: float) -> None:
        """Remember in the sidecar since when this file exists."""
        text = f"{stat.st_ino} {now:.6f}\n".encode()

        with suppress(OSError):  # a full disk: the time of the last write will do instead
            os.lseek(self._lock_fd, 0, os.SEEK_SET)
            os.write(self._lock_fd, text)
            os.ftruncate(self._lock_fd, len(text))

    def _since(self, stat: os.stat_result) -> float:
        """Return since when the file exists, or else when it was last written to."""
        now = self._clock()
        since = stat.st_mtime
        os.lseek(self._lock_fd, 0, os.SEEK_SET)
        noted = os.read(self._lock_fd, 64).split()

        with suppress(ValueError, IndexError):
            if int(noted[0]) == stat.st_ino:
                since = float(noted[1])

        # A file from the future: the clock was wrong then. It would not be rotated before that day.
        if since > now or stat.st_size == 0:
            since = min(since, now)
            self._note(stat, since)

        return since

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
        rotates = self._rotator is not None and self._clock() >= self._refused_until
        room = self._rotator.room(os.fstat(self._fd).st_size) if self._rotator and rotates else None

        if room is None:
            return lines[start:]

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

        while any(os.path.lexists(f"{name}{ending}") for ending in ("", *SUFFIXES.values())):
            number += 1
            name = self.path.with_name(f"{stem}.{stamp}.{number}{suffix}")

        return name

    def _rotated(self, ending: str) -> list[tuple[float, int, Path]]:
        """Return time, size and path of the rotated files with an ending, oldest first."""
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        ours = re.compile(rf"{stem}\.\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{{6}}(\.\d+)?{suffix}{ending}")
        found: list[tuple[float, int, Path]] = []

        with suppress(FileNotFoundError):
            for path in self.path.parent.iterdir():
                if ours.fullmatch(path.name):
                    with suppress(FileNotFoundError):
                        stat = path.stat()
                        found.append((stat.st_mtime, stat.st_size, path))

        return sorted(found)

    def _expired(self) -> list[Path]:
        """Return the rotated files that retention does not keep."""
        found = self._rotated(f"({_ENDINGS})?")
        kept = len(found)

        if isinstance(self._retention, timedelta):
            oldest = self._clock() - self._retention.total_seconds()
            kept = sum(written >= oldest for written, _, _ in found)
        elif self._retention is not None:
            kept = min(kept, self._retention)

        if self._total_size is not None:
            total = 0

            with suppress(FileNotFoundError):
                total = self.path.stat().st_size

            for count, (_, size, _) in enumerate(reversed(found)):
                total += size

                if total > self._total_size:
                    kept = min(kept, count)
                    break

        return [path for *_, path in found[: len(found) - kept]]

    def _abandoned(self) -> list[Path]:
        """Return the rotated files that a process which was killed has left uncompressed."""
        oldest = time.time() - _ABANDONED_AFTER

        for written, _, path in self._rotated(f"({_ENDINGS})\\.part"):
            if written < oldest:
                path.unlink(missing_ok=True)

        return [path for written, _, path in self._rotated("") if written < oldest]


def _lock(descriptor: int, *, exclusive: bool) -> None:
    """Lock or unlock a file; where there is no flock, as on Windows, one process has the log to itself."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_UN)


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Return whether a descriptor is the file that has a name now."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False

    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


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
