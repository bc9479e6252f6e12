"""What a server answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import ClientResponse
from multidict import CIMultiDictProxy

from ws_core.redaction import mask_url
from ws_pool._http.content import iterate_body, read_body
from ws_pool._http.errors import http_error, map_exception
from ws_pool.errors import HttpDecodeError, HttpStatusError, WsError


class HttpResponse:
    """
    An answer, read completely; its connection is back in the pool.

    Args:
        raw: The answer as aiohttp has it.
        content: The body, already unpacked when it was compressed.
        elapsed: Seconds from the call to the last byte.

    Example:
        ```python no-run
        # needs a server
        response = await http.get("/items")
        print(response.status_code, response.headers["content-type"], response.json())
        ```
    """

    __slots__ = ("content", "elapsed", "raw", "status_code")

    def __init__(self, raw: ClientResponse, content: bytes, elapsed: float) -> None:
        self.raw: ClientResponse = raw
        self.status_code: int = raw.status
        self.content: bytes = content
        self.elapsed: float = elapsed

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status_code} {self.method} {mask_url(self.url)}>"

    @property
    def method(self) -> str:
        """The method of the request, the last one after redirects."""
        return self.raw.method

    @property
    def url(self) -> str:
        """The URL of the request, the last one after redirects."""
        return str(self.raw.url)

    @property
    def reason(self) -> str:
        """The server's words beside the status; may be empty."""
        return self.raw.reason or ""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers; names are found in any case."""
        return self.raw.headers

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that the server set."""
        return {name: morsel.value for name, morsel in self.raw.cookies.items()}

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    @property
    def text(self) -> str:
        """The body as text in the declared encoding, or UTF-8; what does not fit is replaced."""
        encoding = self.raw.charset or "utf-8"

        try:
            return self.content.decode(encoding, errors="replace")
        except LookupError:
            return self.content.decode(errors="replace")

    def json(self, loads: Callable[[bytes], Any] = json.loads) -> Any:  # whatever the server sent
        """
        Read the body as JSON.

        Args:
            loads: The decoder.

        Raises:
            HttpDecodeError: It is not JSON; also a `ValueError`.
        """
        try:
            return loads(self.content)
        except ValueError as error:
            kind = self.headers.get("content-type", "no content type")
            what = f" did not answer with JSON but with {len(self.content)} bytes, {kind}"
            raise http_error(HttpDecodeError, self.method, self.url, what, response=self) from error

    def raise_for_status(self) -> None:
        """
        Refuse an answer with a status from 400 on.

        Raises:
            HttpStatusError: The status is 400 or more.
        """
        if not self.ok:
            raise status_error(self)


@dataclass(frozen=True, slots=True)
class HttpAttempt:
    """
    One attempt of a request, for the option ``retry_if`` to judge.

    Args:
        method: The method of the request.
        url: Its URL.
        number: 1 for the first attempt.
        raw: The answer as aiohttp has it; None when there is none.
        content: The body; empty when a stream is asked for.
        error: Why there is no answer; None when there is one.

    Example:
        ```python
        from ws_pool.http import HttpAttempt, HttpPool

        def not_ready(attempt: HttpAttempt) -> bool | None:
            return True if attempt.status_code == 202 else None

        pool = HttpPool(retry_if=not_ready)
        ```
    """

    method: str
    url: str
    number: int
    raw: ClientResponse | None
    content: bytes
    error: WsError | None

    @property
    def status_code(self) -> int | None:
        """The status of the answer; None when there is none."""
        return None if self.raw is None else self.raw.status


class HttpStream:
    """An answer that is read piece by piece. `HttpClient.request_stream` yields it."""

    __slots__ = ("_pool", "raw", "status_code")

    def __init__(self, raw: ClientResponse, pool: str) -> None:
        self.raw: ClientResponse = raw
        self.status_code: int = raw.status
        self._pool = pool

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are found in any case."""
        return self.raw.headers

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        """
        Read the body in pieces.

        Args:
            size: Bytes of the largest piece.

        Yields:
            The pieces, unpacked when the body was compressed.

        Raises:
            HttpConnectionError: The connection was lost before the end.
            HttpTimeout: It took too long.
            HttpDecodeError: It cannot be decompressed, or its compressed form ends too early.
        """
        try:
            async for chunk in iterate_body(self.raw, size):
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise map_exception(error, self.raw.method, str(self.raw.url), pool=self._pool) from error

    async def read(self) -> bytes:
        """Read what is left of the body."""
        return await read_content(self.raw, self._pool)


def status_error(response: HttpResponse) -> HttpStatusError:
    """Build the error for an answer with a status from 400 on."""
    status = response.status_code
    what = f" was answered with {status} {response.reason}".rstrip()
    context = {"status_code": status, "response": response}
    return http_error(HttpStatusError, response.method, response.url, what, **context)


async def read_content(raw: ClientResponse, pool: str, limit: int | None = None) -> bytes:
    """Read the body of an answer whose reading was left for later."""
    try:
        return await read_body(raw, limit)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise map_exception(error, raw.method, str(raw.url), pool=pool) from error
