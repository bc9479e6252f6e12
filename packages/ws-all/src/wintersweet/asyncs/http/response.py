"""The responses of requests as in 1.x."""

from __future__ import annotations

import functools
import json as _json
import os
from collections.abc import Callable, Generator
from typing import Any, Final, Self

from aiohttp import ClientResponse

from ws_pool.http import HttpResponse

__all__ = ("BaseResponse", "DownloadResponse", "HTTPResponse", "http_response_partial")

# Any below: headers and request of aiohttp, and whatever a body holds.


class BaseResponse:
    """A response around aiohttp's; awaiting it reads the body."""

    def __init__(self, client_response: ClientResponse) -> None:
        self._client_response = client_response
        self._parsed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status_code}]>"

    @property
    def response(self) -> ClientResponse:
        """Aiohttp's response."""
        return self._client_response

    @property
    def parsed(self) -> bool:
        """Whether the body was read."""
        return self._parsed

    @property
    def success(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    @property
    def status_code(self) -> int:
        """The status."""
        return self._client_response.status

    @property
    def headers(self) -> Any:
        """The headers; names are found in any case."""
        return self._client_response.headers

    @property
    def raw_headers(self) -> Any:
        """The headers as pairs of bytes."""
        return self._client_response.raw_headers

    @property
    def request(self) -> Any:
        """The request: its ``url``, ``method`` and ``headers``."""
        return self._client_response.request_info


class HTTPResponse(BaseResponse):
    """A response whose body is read into memory."""

    def __init__(self, client_response: ClientResponse) -> None:
        super().__init__(client_response)
        self._content = b""
        self._encoding = "utf-8"

    @classmethod
    def of(cls, library: HttpResponse) -> Self:
        """Make one of the library's response, which is read already."""
        made = cls(library.raw)
        made._take(library.content)
        return made

    def __await__(self) -> Generator[Any, Any, Self]:
        if not self._parsed:
            self._take((yield from self._client_response.read().__await__()))

        return self

    def _take(self, content: bytes) -> None:
        self._content = content
        self._encoding = self._client_response.charset or "utf-8"
        self._parsed = True

    @property
    def content(self) -> bytes:
        """The body."""
        return self._content

    @property
    def text(self) -> str:
        """The body as text in the declared encoding, or UTF-8."""
        return self.get_text()

    def get_text(self, encoding: str | None = None) -> str:
        """Return the body as text."""
        return self._content.decode(encoding or self._encoding)

    def json(self, encoding: str | None = None, loads: Callable[[str], Any] = _json.loads) -> Any:
        """Read the body as JSON."""
        return loads(self._content.strip().decode(encoding or self._encoding))


class DownloadResponse:
    """What `download` returns once the file is complete."""

    status_code: Final = 200
    success: Final = True
    parsed: Final = True

    def __init__(self, file_path: str | os.PathLike[str]) -> None:
        self.file_path: Final = file_path

    def __repr__(self) -> str:
        return f"<DownloadResponse [{self.status_code}]>"

    def __fspath__(self) -> str:
        return os.fspath(self.file_path)


http_response_partial: Final = functools.partial(HTTPResponse)
"""What ``handle_response_class=`` is by default."""
