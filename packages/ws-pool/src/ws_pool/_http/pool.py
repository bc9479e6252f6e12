"""An HTTP pool: one aiohttp session, opened and closed with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from yarl import URL

from ws_core.component import Health
from ws_core.metrics import register
from ws_core.redaction import mask_url
from ws_pool._core.shared_client import SharedClient
from ws_pool._http.circuit_breaker import HostBreakers
from ws_pool._http.client import HttpClient
from ws_pool._http.connector import PoolConnector, make_connector
from ws_pool._http.mock import Answers, HttpMock
from ws_pool._http.options import HttpOptions, http_options
from ws_pool._http.statistics import HttpStatistics, RequestCounters
from ws_pool._http.transport import Transport
from ws_pool.errors import HttpError, UsageError


class HttpPool(SharedClient[HttpClient]):
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

    _kind = "http"

    def __init__(
        self,
        base_url: str | URL | None = None,
        *,
        name: str = "default",
        setting: str = "HttpPool",
        **options: object,
    ) -> None:
        given = dict(options) if base_url is None else {"base_url": base_url, **options}
        self._options: HttpOptions = http_options(given, where=setting)
        super().__init__(name, setting, mask_url(self._options.base_url or "any host"))
        self._counters = RequestCounters()
        self._breakers = HostBreakers(name, self._options.breaker_failures, self._options.breaker_reset)
        self._connector: PoolConnector | None = None
        self._transport: Transport | None = None
        register(self)

    def __del__(self) -> None:
        """Do nothing: aiohttp warns about a session that was not closed."""

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
        return self._block(alone=alone)

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
        _, connector = self.client, self._connector  # the client raises when the pool cannot be used here
        assert connector is not None

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

    def _make(self) -> HttpClient:
        self._connector = make_connector(self._options)
        self._transport = Transport(
            self._name, self._options, self._connector, self._counters, self._breakers
        )
        return HttpClient(self._transport)

    async def _check_server(self, client: HttpClient) -> None:
        """Check nothing: the first request connects, to whichever server it names."""

    async def _end(self, client: HttpClient) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        await transport.session.close()

    @asynccontextmanager
    async def _block(self, *, alone: bool = False) -> AsyncIterator[HttpClient]:
        client, transport = self.client, self._transport

        if not alone:
            yield client
            return

        assert transport is not None
        own = transport.with_own_cookies()

        async with own.session:
            yield HttpClient(own)
