"""The incomplete file of a download, with a note of what it is a part of."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import IO, Final

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two downloads that resume one file are not kept apart there
    fcntl = None  # type: ignore[assignment]

_BUFFER: Final = 1024 * 1024


class PartFile:
    """
    A file that grows beside its final place.

    With ``keep`` it has a name by which the next call finds it (``NAME.part``, and ``NAME.part.json``
    for what it is a part of), unless another download has it at the moment.
    """

    def __init__(self, path: Path, source: str, file: IO[bytes], *, keep: bool) -> None:
        self.path = path
        self.size: int = 0
        self.total: int | None = None
        self.validator: str = ""
        self._source = source
        self._file = file
        self._note = path.with_name(f"{path.name}.json")
        self._keep = keep
        self._buffer = bytearray()

    @classmethod
    def open(cls, target: Path, source: str, *, keep: bool) -> PartFile:
        """Open the part of a file, what an earlier call left of the same source or a new one."""
        if keep and (file := _open_locked(named := target.with_name(f"{target.name}.part"))) is not None:
            part = cls(named, source, file, keep=True)
            part._read_note()
            return part

        own = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        return cls(own, source, own.open("xb+"), keep=False)

    async def restart(self, validator: str = "", total: int | None = None) -> None:
        """Empty the file, and note what it will be a part of."""
        self.size, self.total, self.validator = 0, total, validator
        self._buffer.clear()
        await asyncio.to_thread(self._empty)

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        self.size += len(data)

        if len(self._buffer) >= _BUFFER:
            await asyncio.to_thread(self._flush)

    async def digest(self, algorithm: str) -> str:
        """Return the checksum of all bytes."""
        return await asyncio.to_thread(self._digest, algorithm)

    async def finish(self, target: Path) -> None:
        """Put the complete file into its place, after its bytes are on the disk."""
        await asyncio.to_thread(self._finish, target)

    async def close(self) -> None:
        """Write what was received and close; only a part to be continued stays."""
        # Also when the download was cancelled: the bytes that arrived are the next call's start.
        await asyncio.shield(asyncio.to_thread(self._close))

    def _read_note(self) -> None:
        try:
            note = json.loads(self._note.read_text())
            validator, total, source = str(note["validator"]), note["total"], note["url"]
            size = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError, KeyError, TypeError):
            return

        if (
            validator
            and source == self._source
            and (total is None or (isinstance(total, int) and size <= total))
        ):
            self.size, self.total, self.validator = size, total, validator
            self._file.seek(0, os.SEEK_END)

    def _empty(self) -> None:
        # The note goes first: bytes of one file must never stand under the note of another.
        self._note.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()

        if self._keep and self.validator:
            note = {"url": self._source, "validator": self.validator, "total": self.total}
            self._note.write_text(json.dumps(note))

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        self._file.write(data)

    def _digest(self, algorithm: str) -> str:
        self._flush()
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, algorithm).hexdigest()  # type: ignore[arg-type]  # a binary file
        self._file.seek(0, os.SEEK_END)
        return digest

    def _finish(self, target: Path) -> None:
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        self._keep = True  # there is nothing to remove any more

    def _close(self) -> None:
        with self._file:
            self._flush()

            if not self._keep or (not self.validator and self.path.exists()):
                self.path.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)


def _open_locked(path: Path) -> IO[bytes] | None:
    """Open a file for this download alone; None when another download has it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")

    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        # Between the two steps the file may have become somebody's complete one.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except OSError:
        pass

    file.close()
    return None
