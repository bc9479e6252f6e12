"""Bodies of answers: decompressed, whole, and not larger than allowed.

aiohttp would decompress them by itself, but takes a gzip body that was cut off for a complete one.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final, TypeVar

from aiohttp import ClientResponse
from multidict import CIMultiDictProxy

from ws_core.redaction import mask_url
from ws_pool.errors import HttpDecodeError, HttpError

HttpErrorT = TypeVar("HttpErrorT", bound=HttpError)

ACCEPT_ENCODING: Final = "gzip, deflate"

_GZIP: Final = 31  # window bits, as zlib wants them
_ZLIB: Final = 15
_RAW_DEFLATE: Final = -15
_PIECE: Final = 256 * 1024
_BODILESS: Final = frozenset({204, 304})


def received_body(raw: ClientResponse, limit: int | None) -> bytes | None:
    """Return a plain body that came together with the head; None when it must be read."""
    # Most answers are small. aiohttp would go through four coroutines to find that all is here already;
    # that the connection was released says that nothing of the request is under way any more.
    content = raw.content

    if raw.connection is not None or not content.is_eof():
        return None

    if not _is_plain(raw.headers) or raw._body is not None:
        return None

    body = content.read_nowait()

    if limit is not None and len(body) > limit:
        raise _too_large(raw, limit)

    raw._body = body  # where aiohttp's own read() leaves it for the next one
    return body


def read_body(raw: ClientResponse, limit: int | None) -> Coroutine[Any, Any, bytes]:
    """Read a whole body, or raise HttpError when it is larger than the limit."""
    headers = raw.headers

    # The usual case first: nothing to decompress, and a length that aiohttp holds the server to.
    if _is_plain(headers) and raw._body is None:
        length = headers.get("content-length")

        if limit is None or (length is not None and int(length) <= limit):
            return raw.read()

    return _read_bounded(raw, limit)


def content_codings(headers: CIMultiDictProxy[str]) -> str:
    """Return how a body is encoded, in the order of its codings; empty when it is not."""
    return ", ".join(_codings(headers, "content-encoding"))


def has_known_end(raw: ClientResponse) -> bool:
    """Return whether a body that is cut off would be noticed by its framing (RFC 9112, 6.3)."""
    return (
        "content-length" in raw.headers
        or _codings(raw.headers, "transfer-encoding") == ["chunked"]
        or raw.method == "HEAD"
        or raw.status in _BODILESS
    )


def _is_plain(headers: CIMultiDictProxy[str]) -> bool:
    """Return whether a body is the content as it was received."""
    if "content-encoding" in headers:
        return False

    return (coding := headers.get("transfer-encoding")) is None or coding.lower() == "chunked"


def _codings(headers: CIMultiDictProxy[str], header: str) -> list[str]:
    # Several lines of a header are one list (RFC 9110, 5.3).
    codings = ",".join(headers.getall(header, ())).lower().split(",")
    return [name for coding in codings if (name := coding.strip()) not in {"", "identity"}]


async def _read_bounded(raw: ClientResponse, limit: int | None) -> bytes:
    """Read a body that may be compressed, or larger than the limit."""
    try:
        return await _collect(raw, limit)
    except BaseException:
        # What is left of the body must not be taken for the next answer.
        raw.close()
        raise


async def _collect(raw: ClientResponse, limit: int | None) -> bytes:
    """Read a body piece by piece, so that a small one that unpacks to a large one ends in time."""
    pieces: list[bytes] = []
    size = 0

    async for piece in iterate_body(raw, _PIECE):
        size += len(piece)

        if limit is not None and size > limit:
            raise _too_large(raw, limit)

        pieces.append(piece)

    return b"".join(pieces)


def _too_large(raw: ClientResponse, limit: int) -> HttpError:
    return _error(HttpError, raw, f"the body is larger than max_response_size={limit}")


def _error(kind: type[HttpErrorT], raw: ClientResponse, text: str) -> HttpErrorT:
    url = mask_url(str(raw.url))
    return kind(f"{raw.method} {url}: {text}", method=raw.method, url=url)


async def iterate_body(raw: ClientResponse, size: int) -> AsyncIterator[bytes]:
    """Yield a body in decompressed pieces of at most ``size`` bytes."""
    encoding = content_codings(raw.headers)

    # aiohttp undoes chunks and leaves the rest as it is, although only chunks may come unasked.
    if (transfer := _codings(raw.headers, "transfer-encoding")) not in ([], ["chunked"]):
        text = f"the body has an unknown transfer-encoding: {', '.join(transfer)}"
        raise _error(HttpDecodeError, raw, text)

    if not encoding:
        async for chunk in _chunks(raw, size):
            yield chunk

        return

    try:
        decoder = _Decoder(encoding)

        async for chunk in _chunks(raw, size):
            for piece in decoder.decode(chunk, size):
                yield piece

        decoder.finish(may_be_empty=has_known_end(raw))
    except (zlib.error, ValueError) as error:
        text = f"the body cannot be decompressed ({encoding}): {error}"
        raise _error(HttpDecodeError, raw, text) from error


async def _chunks(raw: ClientResponse, size: int) -> AsyncIterator[bytes]:
    """Yield a body as it was sent."""
    body = raw._body  # there when a hook has read the body

    if body is not None:
        for start in range(0, len(body), size):
            yield body[start : start + size]

        return

    async for chunk in raw.content.iter_chunked(size):
        yield chunk


class _Decoder:
    """Decompresses a body, piece by piece, to its own end."""

    __slots__ = ("_begun", "_encoding", "_inflate")

    def __init__(self, encoding: str) -> None:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise ValueError("only gzip and deflate are understood")

        self._encoding = encoding
        self._inflate = zlib.decompressobj(_ZLIB if encoding == "deflate" else _GZIP)
        self._begun = False

    def decode(self, data: bytes, most: int) -> Iterator[bytes]:
        """Yield what data decompresses to, in pieces of at most ``most`` bytes."""
        # Servers disagree about what "deflate" is: with a zlib header (RFC 9110), or without. Such a header
        # begins with the number of its method, which is 8 (RFC 1950).
        if not self._begun and self._encoding == "deflate" and data[0] & 0xF != 8:
            self._inflate = zlib.decompressobj(_RAW_DEFLATE)

        self._begun = True

        while True:
            piece = self._inflate.decompress(data, most)
            data = self._inflate.unconsumed_tail

            if self._inflate.eof and (rest := self._inflate.unused_data):
                # A gzip body may have several members, and zeros behind the last.
                if not rest.strip(b"\0"):
                    rest = b""
                elif self._encoding == "deflate":
                    raise ValueError("something follows its end")
                else:
                    self._inflate = zlib.decompressobj(_GZIP)

                data = rest

            if piece:
                yield piece

            if not data and not piece:
                return

            if not data and self._inflate.eof:
                return

    def finish(self, *, may_be_empty: bool = False) -> None:
        """Raise ValueError when the body ended before its own end."""
        if not (self._inflate.eof or (may_be_empty and not self._begun)):
            raise ValueError("it ends too early")
