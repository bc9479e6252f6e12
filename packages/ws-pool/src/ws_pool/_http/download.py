"""A body saved as a file that appears only when it is complete, and is what the server has.

A download goes on where an earlier one was cut off only if the server confirms that the file is still
the same: a range that starts there, of the same total length, under the same strong validator
(RFC 9110, 13.1.5 and 15.3.7). Everything else begins again from zero, or is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias, Unpack

from aiohttp import ClientTimeout

from ws_core.backoff import delay
from ws_core.redaction import mask_url
from ws_pool._http.options import HttpOptions
from ws_pool._http.part_file import PartFile
from ws_pool._http.request import RequestOptions
from ws_pool._http.response import HttpStream
from ws_pool.errors import (
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    UsageError,
)

__all__ = ("Download", "Progress", "StreamRequest", "validator_of")

Progress: TypeAlias = Callable[[int, int | None], object]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_WHOLE: Final = frozenset({200, 203})


class StreamRequest(Protocol):
    """Makes a request whose answer is read piece by piece, as `HttpClient.request_stream` does."""

    def __call__(
        self, method: str, url: str, /, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[HttpStream]:
        """Make the request."""
        ...


class _Changed(Exception):
    """The answer does not continue what is here."""


class _Cut(Exception):
    """The body ended too early."""

    def __init__(self, error: HttpError) -> None:
        self.error = error


class _Expected(NamedTuple):
    """What an answer says about itself."""

    start: int  # where its first byte belongs
    end: int | None  # where it ends; None when only the end of the body will tell
    total: int | None  # length of the whole file


@dataclass(frozen=True, slots=True)
class Download:
    """One download; see `HttpClient.download` for what the fields mean."""

    request: StreamRequest
    url: str
    path: Path
    resume: bool
    checksum: str | None
    progress: Progress | None
    pool: HttpOptions
    options: RequestOptions

    async def run(self) -> Path:
        """Download, check, and put the file in its place."""
        algorithm, _, expected = (self.checksum or "").partition(":")

        if self.checksum is not None and (algorithm not in hashlib.algorithms_available or not expected):
            message = f"checksum={self.checksum!r} is not like 'sha256:2cf24d…'"
            raise UsageError(message, checksum=self.checksum)

        part = await asyncio.to_thread(PartFile.open, self.path, self.url, keep=self.resume)
        continued = part.size > 0

        try:
            await self._fetch_all(part)

            if self.checksum is not None and (found := await part.digest(algorithm)) != expected.lower():
                # What an earlier call left may be at fault; what came in this one is as it was sent.
                if continued:
                    await part.restart()
                    await self._fetch_all(part)
                    found = await part.digest(algorithm)

                if found != expected.lower():
                    await part.restart()
                    message = f"{mask_url(self.url)} has the {algorithm} checksum {found}, not {expected}"
                    raise HttpDecodeError(message, method="GET", url=mask_url(self.url))

            await part.finish(self.path)
        finally:
            await part.close()

        return self.path

    async def _fetch_all(self, part: PartFile) -> None:
        """Fetch until the file is complete, through lost connections, shorter ranges and changes."""
        retries = self.options.get("retries", self.pool.retries)
        cuts = 0  # in a row, without a byte more than ever before
        furthest = 0

        while True:
            try:
                if await self._fetch(part, retries - cuts):
                    return
            except _Changed:
                # The next request asks for the whole file, so this cannot happen twice in a row.
                await part.restart()
            except HttpStatusError as error:
                if not part.size or error.status_code != 416:
                    raise

                # The server has nothing beyond what is here, or another file.
                await part.restart()
            except _Cut as cut:
                # A request that has brought the download forward is not a failed attempt of it. What
                # cannot be continued is not brought forward: it begins again.
                forward = part.size > furthest and part.validator and retries > 0
                furthest = max(furthest, part.size)
                cuts = 0 if forward else cuts + 1

                if cuts > retries:
                    raise cut.error from cut.error.__cause__

                if not part.validator:
                    await part.restart()

                if not forward:
                    await asyncio.sleep(
                        delay(cuts, self.pool.retry_wait, self.pool.retry_max_wait, jitter=1.0)
                    )

    async def _fetch(self, part: PartFile, retries: int) -> bool:
        """Make one request, write what it brings, and return whether the file is complete."""
        headers = {**(self.options.get("headers") or {}), "accept-encoding": "identity"}

        if part.size:
            headers |= {"range": f"bytes={part.size}-", "if-range": part.validator}

        # A long download is not late while bytes arrive: the timeout is that of each read.
        if not isinstance(timeout := self.options.get("timeout", self.pool.timeout), ClientTimeout):
            timeout = ClientTimeout(total=None, sock_read=timeout, sock_connect=self.pool.connect_timeout)

        options: RequestOptions = {**self.options, "headers": headers, "timeout": timeout, "retries": retries}
        options["raise_for_status"] = True  # an error's page is not the file

        async with self.request("GET", self.url, **options) as stream:
            expected = self._judge(stream, part)

            if expected.start == 0:
                await part.restart(validator_of(stream.headers), expected.total)

            try:
                await self._copy(stream, part, expected)
            except (HttpConnectionError, HttpTimeout) as error:
                raise _Cut(error) from error

        return expected.total is None or part.size == expected.total

    async def _copy(self, stream: HttpStream, part: PartFile, expected: _Expected) -> None:
        """Write a body, which must be as long as the answer says."""
        async for chunk in stream.chunks():
            # A body may be longer than its range says; none of that is the file's.
            if expected.end is not None and part.size + len(chunk) > expected.end:
                raise _Changed

            await part.write(chunk)

            if self.progress is not None:
                self.progress(part.size, expected.total)

        if expected.end is not None and part.size < expected.end:
            message = f"GET {mask_url(self.url)}: the body ended {expected.end - part.size} bytes too early"
            raise HttpConnectionError(message, method="GET", url=mask_url(self.url), sent=True)

    def _judge(self, stream: HttpStream, part: PartFile) -> _Expected:
        """Decide where an answer's bytes belong, or refuse it."""
        status, headers = stream.status_code, stream.headers

        if status in _WHOLE:
            return self._judge_whole(headers)

        if status != 206 or not part.size:
            # A part that nobody asked for must not be taken for the file.
            what = "a part of the file, unasked" if status == 206 else f"status {status}, which has no file"
            raise HttpError(f"GET {mask_url(self.url)} was answered with {what}", url=mask_url(self.url))

        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())

        if found is None:
            raise _Changed

        start, last, total = map(int, found.groups())
        length = headers.get("content-length")
        fits = start == part.size and start <= last < total and total == (part.total or total)
        fits = fits and (length is None or length == str(last - start + 1))

        # A server that ignores If-Range sends a range of whatever file it has now.
        if not fits or headers.get("content-encoding") or validator_of(headers) != part.validator:
            raise _Changed

        return _Expected(start, last + 1, total)

    def _judge_whole(self, headers: Mapping[str, str]) -> _Expected:
        """Decide how the end of a whole file will be known."""
        # The length of a compressed body is not the file's; that it arrives whole is checked where it is
        # decompressed.
        if headers.get("content-encoding", "identity") != "identity":
            return _Expected(0, None, None)

        if (length := headers.get("content-length")) is not None:
            return _Expected(0, int(length), int(length))

        # Without a length and without chunks the end is where the connection ends, for whatever reason.
        if "chunked" not in headers.get("transfer-encoding", "").lower() and self.checksum is None:
            message = f"GET {mask_url(self.url)}: the answer has no length to check: give checksum="
            raise HttpDecodeError(message, method="GET", url=mask_url(self.url))

        return _Expected(0, None, None)


def validator_of(headers: Mapping[str, str]) -> str:
    """Return what identifies exactly these bytes: a strong ETag or a date long enough ago; or nothing."""
    tag = headers.get("etag", "")

    if tag:
        return "" if tag.startswith("W/") else tag

    modified = headers.get("last-modified", "")

    try:
        age = parsedate_to_datetime(headers.get("date", "")) - parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return ""

    # Within one second a file may change twice under one date (RFC 9110, 8.8.2.2).
    return modified if age >= timedelta(seconds=1) else ""
