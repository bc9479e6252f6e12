"""Request bodies that can be sent again: forms and files are built anew for each attempt."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from aiohttp import FormData
from aiohttp.payload import Payload

from ws_pool.errors import UsageError

FileContent: TypeAlias = bytes | str | Path | IO[bytes]
FileValue: TypeAlias = FileContent | tuple[str, FileContent] | tuple[str, FileContent, str]
Files: TypeAlias = Mapping[str, FileValue]


class Rebuilt(ABC):
    """A body that aiohttp consumes by sending it, and that is built anew for each attempt."""

    __slots__ = ()

    @property
    @abstractmethod
    def replayable(self) -> bool:
        """Whether it can be sent a second time."""

    @abstractmethod
    def build(self) -> object:
        """Build what aiohttp takes."""


class FileBody(Rebuilt):
    """An open file; it is read from where it stood at first, and closed by its owner."""

    def __init__(self, file: io.IOBase) -> None:
        self._file = file
        self._start = file.tell() if file.seekable() else None

    @property
    def replayable(self) -> bool:
        """Whether it can be sent a second time."""
        return self._start is not None

    def build(self) -> object:
        """Build the body, from the file's first position."""
        if self._start is not None:
            self._file.seek(self._start)

        # aiohttp closes what it has sent; this must survive a retry, and its owner closes it.
        return _Unclosable(cast("IO[bytes]", self._file))


class Form(Rebuilt):
    """A multipart form: plain fields, and files as `RequestOptions` describes them."""

    def __init__(self, fields: Mapping[str, object] | None, files: Files) -> None:
        self._fields = [(name, str(value)) for name, value in pairs(fields or {}, "data")]
        self._files = [_part(name, value) for name, value in files.items()]

    @property
    def replayable(self) -> bool:
        """Whether it can be sent a second time."""
        return all(not isinstance(body, FileBody) or body.replayable for _, _, body, _ in self._files)

    def build(self) -> FormData:
        """Build the form; open files are read from where they stood at first."""
        form = FormData(default_to_multipart=True)

        for name, value in self._fields:
            form.add_field(name, value)

        for name, filename, content, content_type in self._files:
            body: object = content

            if isinstance(content, FileBody):
                body = content.build()
            elif isinstance(content, Path):
                body = content.open("rb")

            form.add_field(name, body, filename=filename, content_type=content_type)

        return form


class _Unclosable(io.BufferedIOBase):
    """A file that only its owner closes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.name = getattr(file, "name", "file")

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(-1 if size is None else size)

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def is_replayable(data: object) -> bool:
    """Return whether a body can be sent a second time."""
    if isinstance(data, Rebuilt):
        return data.replayable

    if isinstance(data, Mapping):
        data = list(data.items())

    if isinstance(data, list | tuple):
        # Sending a file in a form consumes it.
        return not any(_is_consumed(part) for item in data if isinstance(item, tuple | list) for part in item)

    return data is None or isinstance(data, str | bytes | bytearray | memoryview)


def pairs(fields: object, what: str) -> Iterator[tuple[str, Any]]:  # Any: a value of a form
    """Yield names and values of a query or form, a list's items each for itself, or raise UsageError."""
    items: Any = fields.items() if isinstance(fields, Mapping) else fields

    for name, given in items:
        for item in given if isinstance(given, list | tuple) else (given,):
            value = item.value if isinstance(item, Enum) else item

            # Every server has another spelling for these.
            if value is None or isinstance(value, bool):
                message = f"{what}[{name!r}] is {value}: leave it out, or write what the server expects"
                raise UsageError(message, field=str(name))

            yield name, value


def _is_consumed(value: object) -> bool:
    return isinstance(value, io.IOBase | Payload | AsyncIterable) or hasattr(value, "read")


def _part(name: str, value: object) -> tuple[str, str, Any, str]:
    filename: object = None
    content_type: object = "application/octet-stream"
    content = value

    if isinstance(value, tuple) and len(value) in {2, 3}:
        filename, content = value[0], value[1]
        content_type = value[2] if len(value) == 3 else content_type

    if isinstance(content, str):
        content = content.encode()

    if filename is None:
        filename = Path(str(getattr(content, "name", name))).name

    readable = isinstance(content, bytes | Path) or callable(getattr(content, "read", None))

    if not readable or not isinstance(filename, str) or not isinstance(content_type, str):
        message = f"files[{name!r}] must be bytes, text, a path, a binary file or (name, file, content type)"
        raise UsageError(message, field=name)

    return name, filename, FileBody(content) if isinstance(content, io.IOBase) else content, content_type
