"""HTTP pools: one aiohttp session per named pool, errors that are raised, retries that are safe.

`HttpPool` works alone; `HttpPoolManager` is a named set of them for the settings section
HTTP_CONFIG. The functions `get`, `post`, … make requests over the default pool of
`http_pool_manager`; when no pools are registered, each over a pool of its own, which keeps no
connection. This module needs the extra ``ws-pool[http]``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Unpack

from ws_pool._core.extras import missing

try:
    from yarl import URL

    from ws_pool._http.client import HttpClient
    from ws_pool._http.mock import HttpMock, HttpMockCall
    from ws_pool._http.pool import HttpPool
    from ws_pool._http.request import RequestOptions
    from ws_pool._http.response import HttpAttempt, HttpResponse, HttpStream
    from ws_pool._http.sse import ServerSentEvent
    from ws_pool._http.statistics import HttpStatistics
    from ws_pool._http.verbs import HttpVerbs, Verb
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "http") from _error

from ws_pool.base import BasePoolManager
from ws_pool.errors import (
    HttpAddressDenied,
    HttpCircuitOpen,
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
)

__all__ = (
    "HttpAddressDenied",
    "HttpAttempt",
    "HttpCircuitOpen",
    "HttpClient",
    "HttpConnectionError",
    "HttpDecodeError",
    "HttpError",
    "HttpMock",
    "HttpMockCall",
    "HttpPool",
    "HttpPoolManager",
    "HttpResponse",
    "HttpStatistics",
    "HttpStatusError",
    "HttpStream",
    "HttpTimeout",
    "RequestOptions",
    "ServerSentEvent",
    "delete",
    "download",
    "get",
    "head",
    "http_pool_manager",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "request_stream",
)


class HttpPoolManager(BasePoolManager[HttpPool, HttpClient]):
    """
    A named set of HTTP pools.

    Example:
        ```python
        from ws_pool.http import HttpPoolManager

        manager = HttpPoolManager()
        manager.register({"default": {"timeout": 10}, "bank": {"base_url": "https://bank.example/api"}})
        await manager

        async with manager.get_client("bank") as http:
            print(http)

        await manager.close()
        ```
    """

    settings_key: ClassVar[str] = "HTTP_CONFIG"

    # Any: what a section holds is checked by the pool.
    def _build(self, name: str, section: Mapping[str, Any], where: str) -> HttpPool:
        return HttpPool(name=name, setting=where, **section)

    async def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> HttpResponse:
        """Make a request over the default pool; see `HttpClient.request`."""
        return await self.get_pool().client.request(method, url, **options)


http_pool_manager: HttpPoolManager = HttpPoolManager()
"""The ready-made manager of HTTP_CONFIG."""


@asynccontextmanager
async def _client() -> AsyncIterator[HttpClient]:
    """Yield the default pool's client; when no pools are registered, that of a pool for this block."""
    if http_pool_manager.names:
        yield http_pool_manager.get_pool().client
        return

    async with HttpPool(name="unregistered") as pool:
        yield pool.client


class _DefaultPool(HttpVerbs):
    """The methods of HTTP over the default pool."""

    async def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> HttpResponse:
        """Make a request over the default pool; see `HttpClient.request`."""
        async with _client() as client:
            return await client.request(method, url, **options)


_default = _DefaultPool()


async def request(method: str, url: str | URL, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a request over the default pool; see `HttpClient.request`."""
    return await _default.request(method, url, **options)


get: Verb = _default.get
"""Make a GET request over the default pool; see `HttpClient.request`."""
head: Verb = _default.head
"""Make a HEAD request over the default pool; see `HttpClient.request`."""
options: Verb = _default.options
"""Make an OPTIONS request over the default pool; see `HttpClient.request`."""
post: Verb = _default.post
"""Make a POST request over the default pool; see `HttpClient.request`."""
put: Verb = _default.put
"""Make a PUT request over the default pool; see `HttpClient.request`."""
patch: Verb = _default.patch
"""Make a PATCH request over the default pool; see `HttpClient.request`."""
delete: Verb = _default.delete
"""Make a DELETE request over the default pool; see `HttpClient.request`."""


async def download(url: str | URL, path: str | Path, **options: Unpack[RequestOptions]) -> Path:
    """Save an answer as a file over the default pool; see `HttpClient.download`."""
    async with _client() as client:
        return await client.download(url, path, **options)


@asynccontextmanager
async def request_stream(
    method: str, url: str | URL, **options: Unpack[RequestOptions]
) -> AsyncIterator[HttpStream]:
    """Read an answer piece by piece over the default pool; see `HttpClient.request_stream`."""
    async with _client() as client, client.request_stream(method, url, **options) as stream:
        yield stream


for _public in (
    HttpAttempt,
    HttpClient,
    HttpMock,
    HttpMockCall,
    HttpPool,
    HttpResponse,
    HttpStatistics,
    HttpStream,
    RequestOptions,
    ServerSentEvent,
):
    _public.__module__ = __name__
