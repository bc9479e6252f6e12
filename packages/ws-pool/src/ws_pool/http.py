"""HTTP pools: one aiohttp session per named pool, errors that are raised, retries that are safe.

`HttpPool` works alone; `HttpPoolManager` is a named set of them for the settings section
HTTP_CONFIG. The functions `get`, `post`, … make requests over the default pool of
`http_pool_manager`; when no pools are registered, each over a pool of its own, which keeps no
connection. This module needs the extra ``ws-pool[http]``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, Unpack

from ws_pool._core.extras import missing

try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "http") from _error

from ws_core.component import Health
from ws_pool._core.config import mask_url
from ws_pool._core.statistics import Histogram, HistogramBuilder
from ws_pool._http.address_guard import guarded_socket
from ws_pool._http.circuit_breaker import CircuitBreaker
from ws_pool._http.client import HttpClient, HttpStream, RequestOptions
from ws_pool._http.options import HttpOptions, http_options
from ws_pool._http.response import HttpResponse
from ws_pool.base import BasePoolManager
from ws_pool.errors import (
    ClosedError,
    HttpAddressDenied,
    HttpCircuitOpen,
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    NotReadyError,
    UsageError,
    WsError,
)

__all__ = (
    "HttpAddressDenied",
    "HttpCircuitOpen",
    "HttpClient",
    "HttpConnectionError",
    "HttpDecodeError",
    "HttpError",
    "HttpPool",
    "HttpPoolManager",
    "HttpResponse",
    "HttpStatistics",
    "HttpStatusError",
    "HttpStream",
    "HttpTimeout",
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


logger: logging.Logger = logging.getLogger("ws_pool")

_MANY_HOSTS = 1000
_DOWN = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """
    The state of an HTTP pool at one moment.

    Args:
        name: The pool's name.
        limit: Most connections at once; 0 for any number.
        connections: Connections in use.
        idle: Connections kept for the next request.
        active: Requests under way.
        requests: Requests made so far, each with all its attempts as one.
        retries: Attempts after the first.
        failures: Requests that got no complete answer.
        time: How long requests took.
    """

    name: str
    limit: int
    connections: int
    idle: int
    active: int
    requests: int
    retries: int
    failures: int
    time: Histogram

    def status(self) -> Mapping[str, object]:
        """Give plain numbers and strings, for logs, status pages and `pool_status`."""
        return {
            "name": self.name,
            "limit": self.limit,
            "connections": self.connections,
            "idle": self.idle,
            "active": self.active,
            "requests": self.requests,
            "retries": self.retries,
            "failures": self.failures,
            "time_p50": self.time.quantile(0.5),
            "time_p99": self.time.quantile(0.99),
        }


class HttpPool:
    """
    Connections to web servers, shared by all tasks of a loop.

    Args:
        base_url: What URLs beginning with ``/`` are appended to; ``url`` is another name for it.
        name: The pool's name in messages and statistics.
        setting: What begins the names of options in errors.
        **options: See the guide; the usual ones are ``headers timeout limit limit_per_host
            retries raise_for_status``.

    Raises:
        ConfigError: An option is wrong; nothing was started.

    Example:
        ```python
        from aiohttp import web

        from ws_pool.http import HttpPool

        async def hello(request: web.Request) -> web.Response:
            return web.json_response({"hello": request.query["name"]})

        app = web.Application()
        app.add_routes([web.get("/hello", hello)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]

        async with HttpPool(base_url=f"http://{host}:{port}", timeout=5) as pool:
            async with pool.get_client() as http:
                response = await http.get("/hello", params={"name": "you"})
                assert response.status_code == 200
                assert response.json() == {"hello": "you"}

        await runner.cleanup()
        ```
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        name: str = "default",
        setting: str = "HttpPool",
        **options: object,
    ) -> None:
        given = dict(options) if base_url is None else {"base_url": base_url, **options}
        self._name = name
        self._options: HttpOptions = http_options(given, where=setting)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._client: HttpClient | None = None
        self._closed = False
        self._active = self._requests = self._retries = self._failures = 0
        self._times = HistogramBuilder()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._clock = time.monotonic

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._session is None else "ready"
        return f"<HttpPool {self._name!r} {state}: {self._options.base_url or 'any host'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    async def start(self) -> None:
        """
        Make the session; nothing is connected yet.

        Raises:
            UsageError: The pool is open already.
        """
        if self._session is not None:
            raise UsageError(f"http pool {self._name!r} is open already", pool=self._name)

        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._session = self._make_session(self._make_connector())
        self._client = HttpClient(self, self._session, self._options)

    async def close(self) -> None:
        """Close all connections; requests under way fail. May be called again."""
        self._closed = True
        session, self._session, self._client = self._session, None, None

        if session is not None:
            await session.close()

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[HttpClient]:
        """
        Give the client for the length of a block.

        Args:
            alone: Whether the client keeps cookies of its own, over the same connections.

        Returns:
            An async context manager.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop.
        """
        return self._lend(alone=alone)

    @property
    def client(self) -> HttpClient:
        """
        The client that all tasks share.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop.
        """
        self._check()
        assert self._client is not None  # noqa: S101 - the check has looked
        return self._client

    async def health(self) -> Health:
        """Ask for ``health_path``, if there is one; otherwise being open is all there is to check."""
        if self._client is None:
            return Health(ok=False, detail=f"http pool {self._name!r} is not open")

        path = self._options.health_path

        if path is None:
            return Health(ok=True, detail="no health_path to ask for")

        try:
            response = await self._client.get(path, retries=0)
        except HttpError as error:
            return Health(ok=False, detail=error.message)

        return Health(ok=response.ok, latency=response.elapsed)

    def statistics(self) -> HttpStatistics:
        """Count connections and requests."""
        connector = None if self._session is None else self._session.connector
        # aiohttp counts these but has no public name for the counts.
        in_use = len(getattr(connector, "_acquired", ()))
        idle = sum(len(kept) for kept in getattr(connector, "_conns", {}).values())
        return HttpStatistics(
            name=self._name,
            limit=self._options.limit,
            connections=in_use,
            idle=idle,
            active=self._active,
            requests=self._requests,
            retries=self._retries,
            failures=self._failures,
            time=self._times.snapshot(),
        )

    # For the client: checks and counts of each request.

    def _check(self) -> None:
        """Refuse the use before the start, after the close and from another loop."""
        if self._session is None:
            if self._closed:
                raise ClosedError(f"http pool {self._name!r} is closed: make a new one", pool=self._name)

            message = f"http pool {self._name!r} is not started: enter it with `async with`"
            raise NotReadyError(message, pool=self._name)

        if asyncio.get_running_loop() is not self._loop:
            message = f"http pool {self._name!r} belongs to another event loop: make one in this loop"
            raise UsageError(message, pool=self._name)

    def _begin(self) -> float:
        """Count a request that begins; return the time."""
        self._check()
        self._active += 1
        self._requests += 1
        return time.perf_counter()

    def _end(self, began: float, *, failed: bool = False) -> float:
        """Count a request that has ended; return the seconds it took."""
        elapsed = time.perf_counter() - began
        self._active -= 1
        self._failures += failed
        self._times.record(elapsed)
        return elapsed

    def _breaker(self, url: str) -> CircuitBreaker:
        """
        Ask the breaker of a URL's host.

        Returns:
            The breaker, to be told of the outcome.

        Raises:
            HttpCircuitOpen: The host is left alone for now.
        """
        parts = URL(url)
        host = f"{parts.host}:{parts.port}"
        breaker = self._breakers.get(host)

        if breaker is None:
            if len(self._breakers) >= _MANY_HOSTS:
                self._breakers = {name: kept for name, kept in self._breakers.items() if not kept.is_idle}

            breaker = CircuitBreaker(self._options.breaker_failures, self._options.breaker_reset)
            self._breakers[host] = breaker

        if (wait := breaker.refusal(self._clock())) is not None:
            message = f"{mask_url(url)}: {host} failed too often, next try in {wait:.1f} s"
            raise HttpCircuitOpen(message, pool=self._name, url=mask_url(url), retry_after=wait)

        return breaker

    def _learn(self, breaker: CircuitBreaker, failure: WsError | None, status: int | None) -> None:
        """Tell a breaker what came of a request."""
        if isinstance(failure, HttpConnectionError | HttpTimeout) or status in _DOWN:
            breaker.failed(self._clock())

            if not breaker.is_closed:
                logger.warning(
                    "http pool %r: a host fails and is left alone: %s", self._name, failure or status
                )
        elif failure is None:
            breaker.succeeded()
        else:
            breaker.abandoned()

    def _retried(self) -> None:
        """Count an attempt that is made again."""
        self._retries += 1

    @asynccontextmanager
    async def _lend(self, *, alone: bool) -> AsyncIterator[HttpClient]:
        client = self.client

        if not alone:
            yield client
            return

        assert self._session is not None  # noqa: S101 - there is a client
        connector = self._session.connector
        assert connector is not None  # noqa: S101 - an open session has one

        async with self._make_session(connector, owner=False) as session:
            yield HttpClient(self, session, self._options)

    def _make_connector(self) -> aiohttp.BaseConnector:
        options = self._options

        if options.unix_socket is not None:
            return aiohttp.UnixConnector(
                options.unix_socket,
                limit=options.limit,
                limit_per_host=options.limit_per_host,
                keepalive_timeout=options.keepalive,
            )

        return aiohttp.TCPConnector(
            limit=options.limit,
            limit_per_host=options.limit_per_host,
            keepalive_timeout=options.keepalive,
            ssl=options.verify,
            socket_factory=guarded_socket if options.deny_private else None,
        )

    def _make_session(self, connector: aiohttp.BaseConnector, *, owner: bool = True) -> aiohttp.ClientSession:
        options = self._options
        keeps_cookies = options.cookies or not owner
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=owner,
            headers=options.headers,
            timeout=aiohttp.ClientTimeout(total=options.timeout, sock_connect=options.connect_timeout),
            cookie_jar=aiohttp.CookieJar() if keeps_cookies else aiohttp.DummyCookieJar(),
            trust_env=options.trust_env,
            proxy=options.proxy,
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

    def _build(self, name: str, section: Mapping[str, object], where: str) -> HttpPool:
        return HttpPool(name=name, setting=where, **section)  # type: ignore[arg-type]  # checked inside

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
        """Make a request over the default pool; see `HttpClient.request`."""
        return await self.get_pool().client.request(method, url, **options)


http_pool_manager: HttpPoolManager = HttpPoolManager()
"""The ready-made manager of HTTP_CONFIG."""


@asynccontextmanager
async def _client() -> AsyncIterator[HttpClient]:
    """Give the default pool's client; when no pools are registered, that of a pool for this block."""
    if http_pool_manager.names:
        yield http_pool_manager.get_pool().client
        return

    async with HttpPool(name="unregistered") as pool:
        yield pool.client


async def request(method: str, url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a request over the default pool; see `HttpClient.request`."""
    async with _client() as client:
        return await client.request(method, url, **options)


async def get(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a GET request over the default pool; see `HttpClient.request`."""
    return await request("GET", url, **options)


async def head(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a HEAD request over the default pool; see `HttpClient.request`."""
    return await request("HEAD", url, **options)


async def options(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make an OPTIONS request over the default pool; see `HttpClient.request`."""
    return await request("OPTIONS", url, **options)


async def post(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a POST request over the default pool; see `HttpClient.request`."""
    return await request("POST", url, **options)


async def put(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a PUT request over the default pool; see `HttpClient.request`."""
    return await request("PUT", url, **options)


async def patch(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a PATCH request over the default pool; see `HttpClient.request`."""
    return await request("PATCH", url, **options)


async def delete(url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
    """Make a DELETE request over the default pool; see `HttpClient.request`."""
    return await request("DELETE", url, **options)


async def download(url: str, path: str | Path, **options: Unpack[RequestOptions]) -> Path:
    """Save an answer as a file over the default pool; see `HttpClient.download`."""
    async with _client() as client:
        return await client.download(url, path, **options)


@asynccontextmanager
async def request_stream(
    method: str, url: str, **options: Unpack[RequestOptions]
) -> AsyncIterator[HttpStream]:
    """Read an answer piece by piece over the default pool; see `HttpClient.request_stream`."""
    async with _client() as client, client.request_stream(method, url, **options) as stream:
        yield stream


for _public in (HttpClient, HttpResponse, HttpStream):
    _public.__module__ = __name__
