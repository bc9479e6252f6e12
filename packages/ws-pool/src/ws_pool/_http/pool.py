"""An HTTP pool: one aiohttp session, opened and closed with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from yarl import URL

from ws_core.component import Health
from ws_core.metrics import register
from ws_core.redaction import mask_url
from ws_pool._core.config import pool_name
from ws_pool._http.circuit_breaker import HostBreakers
from ws_pool._http.client import HttpClient
from ws_pool._http.connector import PoolConnector, make_connector
from ws_pool._http.mock import Answers, HttpMock
from ws_pool._http.options import HttpOptions, http_options
from ws_pool._http.statistics import HttpStatistics, RequestCounters
from ws_pool._http.transport import Transport
from ws_pool.errors import ClosedError, HttpError, NotReadyError, UsageError

__all__ = ("HttpPool",)


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
        base_url: str | URL | None = None,
        *,
        name: str = "default",
        setting: str = "HttpPool",
        **options: object,
    ) -> None:
        given = dict(options) if base_url is None else {"base_url": base_url, **options}
        self._name = pool_name(name, setting)
        self._options: HttpOptions = http_options(given, where=setting)
        self._counters = RequestCounters()
        self._breakers = HostBreakers(name, self._options.breaker_failures, self._options.breaker_reset)
        self._connector: PoolConnector | None = None
        self._transport: Transport | None = None
        self._client: HttpClient | None = None
        register(self)
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._transport is None else "ready"
        return f"<HttpPool {self._name!r} {state}: {mask_url(self._options.base_url or 'any host')}>"

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
        if self._transport is not None:
            raise UsageError(f"http pool {self._name!r} is open already", pool=self._name)

        self._closed = False
        self._connector = make_connector(self._options)
        self._transport = Transport(
            self._name, self._options, self._connector, self._counters, self._breakers
        )
        self._client = HttpClient(self._transport)

    async def close(self) -> None:
        """Close all connections; requests in flight fail. May be called again."""
        self._closed = True
        transport, self._transport, self._client = self._transport, None, None

        if transport is not None:
            await transport.session.close()

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[HttpClient]:
        """
        Return a context manager whose block has the client.

        Args:
            alone: Whether the client keeps cookies of its own, over the same connections.

        Returns:
            An async context manager.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop.
        """
        return self._client_of(alone=alone)

    @property
    def client(self) -> HttpClient:
        """
        The client that all tasks share.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop.
        """
        self._open_transport().check()
        assert self._client is not None
        return self._client

    async def health(self) -> Health:
        """Request ``health_path``, if there is one; otherwise check only that the pool is open."""
        if self._transport is None:
            return Health(ok=False, detail=f"http pool {self._name!r} is not open")

        path = self._options.health_path

        if path is None:
            return Health(ok=True, detail="no health_path to request")

        try:
            response = await self.client.get(path, retries=0)
        except HttpError as error:
            return Health(ok=False, detail=error.message)

        return Health(ok=response.ok, latency=response.elapsed)

    def statistics(self) -> HttpStatistics:
        """Count connections and requests."""
        connector = None if self._transport is None else self._transport.session.connector
        # aiohttp counts these but has no public name for the counts.
        in_use = len(getattr(connector, "_acquired", ()))
        idle = sum(len(kept) for kept in getattr(connector, "_conns", {}).values())
        counters = self._counters
        return HttpStatistics(
            name=self._name,
            limit=self._options.limit,
            connections=in_use,
            idle=idle,
            active=counters.active,
            requests=counters.requests,
            retries=counters.retries,
            failures=counters.failures,
            time=counters.times.snapshot(),
        )

    @asynccontextmanager
    async def mock(self, answers: Answers) -> AsyncIterator[HttpMock]:
        """
        Let a test answer the requests of a block: nothing reaches the network.

        The requests are made by the pool's own code, with its retries, timeouts and hooks; only the
        connections lead to the test.

        Args:
            answers: A function, or a coroutine function, of the request (aiohttp's
                ``web.BaseRequest``); or a mapping of ``"GET /path"`` or ``"GET host/path"`` to such
                functions or to answers. An answer is an ``aiohttp.web`` response, a status, text, bytes,
                or a dict or list as JSON. What a function raises is raised where the request was made.

        Yields:
            The mock; its ``calls`` are the requests so far.

        Raises:
            UsageError: Requests are in flight, or there is a mock already. In the block: a request
                without an answer.

        Example:
            ```python
            from ws_pool.http import HttpPool

            async with HttpPool("https://bank.example") as pool:
                async with pool.mock({"GET /accounts/7": {"id": 7}, "POST /transfers": 503}) as mock:
                    account = (await pool.client.get("/accounts/7")).json()
                    assert account == {"id": 7}
                    assert mock.calls[0].headers["host"] == "bank.example"
            ```
        """
        self._open_transport().check()
        assert self._connector is not None
        connector = self._connector

        if connector.is_busy:
            message = f"http pool {self._name!r} is in use, or mocked already: mock it before its requests"
            raise UsageError(message, pool=self._name)

        mock = HttpMock(self._name, answers)
        connector.use_mock(mock)

        try:
            yield mock
        finally:
            connector.use_mock(None)
            await mock.close()

    def _open_transport(self) -> Transport:
        """Return the transport, or raise why there is none."""
        if self._transport is not None:
            return self._transport

        if self._closed:
            raise ClosedError(f"http pool {self._name!r} is closed: make a new one", pool=self._name)

        message = f"http pool {self._name!r} is not started: enter it with `async with`"
        raise NotReadyError(message, pool=self._name)

    @asynccontextmanager
    async def _client_of(self, *, alone: bool) -> AsyncIterator[HttpClient]:
        if not alone:
            yield self.client
            return

        transport = self._open_transport()
        transport.check()

        own = transport.with_own_cookies()

        async with own.session:
            yield HttpClient(own)
