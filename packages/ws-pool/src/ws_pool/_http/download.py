"""A body saved as a file that appears only when it is complete, and is what the server has.

A download goes on where an earlier one was cut off only if the server confirms that the file is still
the same: a range that starts there, of the same total length, under the same strong validator
(RFC 9110, 13.1.5 and 15.3.7). Everything else begins again from zero, or is an error.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, Unpack

from yarl import URL

from ws_core.backoff import delay
from ws_core.redaction import is_secret_name, mask_url
from ws_pool._http.content import content_codings, has_known_end
from ws_pool._http.errors import HttpErrorT, http_error
from ws_pool._http.options import HttpOptions, read_timeout
from ws_pool._http.part_file import PartFile
from ws_pool._http.request import RequestOptions, aiohttp_arguments
from ws_pool._http.response import HttpStream
from ws_pool._http.retry import http_date
from ws_pool.errors import (
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    UsageError,
)

Progress: TypeAlias = Callable[[int, int | None], object]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_WHOLE: Final = frozenset({200, 203})
# Names of Amazon, Google, Alibaba and Azure; those of Azure are as short as here.
_SIGNING: Final = frozenset(
    {
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "expires", "key-pair-id", "policy"),
        *("se", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "st", "sv"),
    }
)


class StreamRequest(Protocol):
    """Makes a request whose answer is read piece by piece, as `HttpClient.request_stream` does."""

    def __call__(
        self, method: str, url: str | URL, /, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[HttpStream]: ...


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
    url: URL
    path: Path
    resume: bool
    checksum: str | None
    progress: Progress | None
    pool: HttpOptions
    options: RequestOptions

    async def run(self) -> Path:
        """Download, check, and put the file in its place."""
        algorithm, expected = self._check()
        part = await asyncio.to_thread(PartFile.open, self.path, self._identity(), keep=self.resume)
        continued = part.size > 0

        try:
            await self._fetch_all(part)

            if self.checksum is not None and (found := await part.digest(algorithm)) != expected:
                # What an earlier call left may be at fault; what came in this one is as it was sent.
                if continued:
                    await part.restart()
                    await self._fetch_all(part)
                    found = await part.digest(algorithm)

                if found != expected:
                    await part.restart()
                    what = f" has the {algorithm} checksum {found}, not {expected}"
                    raise self._error(HttpDecodeError, what)

            await part.finish(self.path)
        finally:
            await part.close()

        return self.path

    def _error(self, kind: type[HttpErrorT], text: str, **context: Any) -> HttpErrorT:  # Any: the error's own
        return http_error(kind, "GET", self.url, text, **context)

    def _check(self) -> tuple[str, str]:
        """Refuse wrong arguments before anything is sent or written; return what the checksum consists of."""
        names = {str(name).lower() for name in aiohttp_arguments(self.options, None).get("headers") or ()}

        if names & {"range", "if-range"}:
            raise UsageError("a download is of the whole file: leave the header range out")

        progress: object = self.progress

        if progress is not None and (not callable(progress) or inspect.iscoroutinefunction(progress)):
            raise UsageError("progress must be a plain function of the bytes so far and the total")

        if not self.path.name or self.path.is_dir():
            message = "the path of a download must be that of a file"
            raise IsADirectoryError(errno.EISDIR, message, str(self.path))

        if self.checksum is None:
            return "", ""

        algorithm, _, expected = str(self.checksum).partition(":")

        try:
            digits = hashlib.new(algorithm.lower(), usedforsecurity=False).digest_size * 2
        except ValueError:
            digits = 0  # those of shake, too, which have no length of their own

        if not digits or re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", expected) is None:
            wanted = f"{digits} hexadecimal digits" if digits else "the name of a digest with a fixed length"
            message = f"checksum={self.checksum!r} is not like 'sha256:2cf24d…': it must have {wanted}"
            raise UsageError(message, checksum=self.checksum)

        return algorithm.lower(), expected.lower()

    def _identity(self) -> str:
        """Return what names the file: the URL without what changes from one signed URL to the next."""
        url = self.url.extend_query(aiohttp_arguments(self.options, None).get("params") or ())
        kept = [pair for pair in url.query.items() if not _is_signing(pair[0])]
        # A query may hold what must not stand in a file.
        digest = f"?{hashlib.sha256(repr(kept).encode()).hexdigest()}" if kept else ""
        return f"{mask_url(str(url.with_query(None)))}{digest}"

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

        timeout = read_timeout(self.options.get("timeout", self.pool.timeout), self.pool.connect_timeout)
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
            what = f": the body ended {expected.end - part.size} bytes too early"
            raise self._error(HttpConnectionError, what, sent=True)

    def _judge(self, stream: HttpStream, part: PartFile) -> _Expected:
        """Decide where an answer's bytes belong, or refuse it."""
        status, headers = stream.status_code, stream.headers

        if status in _WHOLE:
            return self._judge_whole(stream)

        if status != 206 or not part.size:
            # A part that nobody asked for must not be taken for the file.
            what = "a part of the file, unasked" if status == 206 else f"status {status}, which has no file"
            raise self._error(HttpError, f" was answered with {what}")

        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())

        if found is None:
            raise _Changed

        start, last, total = map(int, found.groups())
        length = headers.get("content-length")
        fits = start == part.size and start <= last < total and total == (part.total or total)
        fits = fits and (length is None or length == str(last - start + 1))

        # A server that ignores If-Range sends a range of whatever file it has now.
        if not fits or content_codings(stream.raw.headers) or validator_of(headers) != part.validator:
            raise _Changed

        return _Expected(start, last + 1, total)

    def _judge_whole(self, stream: HttpStream) -> _Expected:
        """Decide how the end of a whole file will be known."""
        headers = stream.raw.headers

        # The length of a compressed body is not the file's; that it arrives whole is checked where it is
        # decompressed.
        if content_codings(headers):
            return _Expected(0, None, None)

        if (length := headers.get("content-length")) is not None:
            return _Expected(0, int(length), int(length))

        # Without a length and without chunks the end is where the connection ends, for whatever reason.
        if not has_known_end(stream.raw) and self.checksum is None:
            raise self._error(HttpDecodeError, ": the answer has no length to check: give checksum=")

        return _Expected(0, None, None)


def _is_signing(name: str) -> bool:
    """Return whether a parameter belongs to the signature of a URL, and not to what it names."""
    name = name.lower()
    return is_secret_name(name) or name in _SIGNING or name.startswith(("x-amz-", "x-goog-", "x-oss-"))


def validator_of(headers: Mapping[str, str]) -> str:
    """Return what identifies exactly these bytes: a strong ETag or a date long enough ago; or nothing."""
    tag = headers.get("etag", "")

    if tag:
        return "" if tag.startswith("W/") else tag

    modified = headers.get("last-modified", "")

    then, now = http_date(modified), http_date(headers.get("date", ""))

    # Within one second a file may change twice under one date (RFC 9110, 8.8.2.2).
    return modified if then and now and now - then >= timedelta(seconds=1) else ""
