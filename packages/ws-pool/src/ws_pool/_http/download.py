"""A body saved as a file that appears only when it is complete."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias, Unpack

from ws_core.redaction import mask_url
from ws_pool._http.request import RequestOptions
from ws_pool._http.response import HttpStream
from ws_pool.errors import HttpDecodeError, HttpStatusError, UsageError

__all__ = ("Download", "Progress", "StreamRequest")

Progress: TypeAlias = Callable[[int, int | None], object]

_BUFFER = 1024 * 1024


class StreamRequest(Protocol):
    """Makes a request whose answer is read piece by piece, as `HttpClient.request_stream` does."""

    def __call__(
        self, method: str, url: str, /, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[HttpStream]:
        """Make the request."""
        ...


@dataclass(frozen=True, slots=True)
class Download:
    """One download; see `HttpClient.download` for what the fields mean."""

    request: StreamRequest
    url: str
    path: Path
    resume: bool
    checksum: str | None
    progress: Progress | None
    options: RequestOptions

    async def run(self) -> Path:
        """Download, check, and put the file in its place."""
        algorithm, _, expected = (self.checksum or "").partition(":")

        if self.checksum is not None and (algorithm not in hashlib.algorithms_available or not expected):
            message = f"checksum={self.checksum!r} is not like 'sha256:2cf24d…'"
            raise UsageError(message, checksum=self.checksum)

        complete = False

        try:
            have, headers = _what_is_there(self._part, self._mark) if self.resume else (0, {})

            try:
                await self._fetch(have, headers)
            except HttpStatusError as error:
                if not have or error.status_code != 416:
                    raise

                # The server has nothing beyond what is there, or another file: begin anew.
                await self._fetch(0, {})

            if self.checksum is not None:
                await self._verify(algorithm, expected.lower())

            await asyncio.to_thread(os.replace, self._part, self.path)
            complete = True
        finally:
            if complete or not self.resume:
                self._part.unlink(missing_ok=True)
                self._mark.unlink(missing_ok=True)

        return self.path

    @property
    def _part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def _mark(self) -> Path:
        """Where the ETag of an incomplete file is kept."""
        return self.path.with_name(f"{self.path.name}.part.etag")

    async def _fetch(self, have: int, headers: dict[str, str]) -> None:
        """Fetch what is missing behind ``have`` bytes, or all when the server does not do parts."""
        asked = {**(self.options.get("headers") or {}), "accept-encoding": "identity", **headers}

        options: RequestOptions = {**self.options, "headers": asked}

        async with self.request("GET", self.url, **options) as stream:
            if stream.status_code != 206:
                have = 0

            length = stream.headers.get("content-length")
            total = None if length is None else have + int(length)
            tag = stream.headers.get("etag") or stream.headers.get("last-modified") or ""
            file = await asyncio.to_thread(self._part.open, "ab" if have else "wb")

            try:
                await asyncio.to_thread(self._mark.write_text, tag)
                await self._copy(stream, file, have, total)
            finally:
                # Also when cancelled: a close that is begun ends, so that the file is whole so far.
                await asyncio.shield(asyncio.to_thread(file.close))

    async def _copy(self, stream: HttpStream, file: IO[bytes], done: int, total: int | None) -> None:
        buffer = bytearray()

        async for chunk in stream.chunks():
            buffer += chunk
            done += len(chunk)

            if len(buffer) >= _BUFFER:
                await asyncio.to_thread(file.write, bytes(buffer))
                buffer.clear()

            if self.progress is not None:
                self.progress(done, total)

        await asyncio.to_thread(file.write, bytes(buffer))

    async def _verify(self, algorithm: str, expected: str) -> None:
        found = await asyncio.to_thread(_digest, self._part, algorithm)

        if found != expected:
            self._part.unlink()
            shown = mask_url(self.url)
            message = f"{shown} has the {algorithm} checksum {found}, not {expected}"
            raise HttpDecodeError(message, method="GET", url=shown)


def _what_is_there(part: Path, mark: Path) -> tuple[int, dict[str, str]]:
    """Find how much is there, and the headers that ask for the rest if it is still the same file."""
    try:
        tag, have = mark.read_text(), part.stat().st_size
    except OSError:
        return 0, {}

    if not tag or tag.startswith("W/") or not have:
        return 0, {}

    return have, {"range": f"bytes={have}-", "if-range": tag}


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
