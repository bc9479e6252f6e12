"""A pool's session with its breakers and counters: sends a request until an attempt counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientResponse, ClientSession
from multidict import CIMultiDict
from yarl import URL

from ws_core.redaction import mask_url
from ws_pool._core import tracing
from ws_pool._http.bodies import Form, is_replayable
from ws_pool._http.circuit_breaker import HostBreakers
from ws_pool._http.content import ACCEPT_ENCODING, read_body
from ws_pool._http.credentials import CredentialGuard, secret_names
from ws_pool._http.errors import map_exception
from ws_pool._http.options import HttpOptions
from ws_pool._http.request import RequestOptions, aiohttp_arguments
from ws_pool._http.retry import IDEMPOTENT, retry_after, retry_delay
from ws_pool._http.statistics import RequestCounters
from ws_pool.errors import ClosedError, HttpConnectionError, UsageError, WsError

__all__ = ("Reader", "Transport")

Reader: TypeAlias = Callable[[ClientResponse], Awaitable[bytes]]
"""Reads of an answer what an attempt must include; nothing for a stream."""


_DISCONNECTED = (aiohttp.ServerDisconnectedError, ConnectionResetError)


class Transport:
    """One session over a pool's connections. Sessions of one pool share breakers and counters."""

    __slots__ = ("_breakers", "_loop", "_own_origin", "_secrets", "counters", "name", "options", "session")

    def __init__(
        self,
        name: str,
        options: HttpOptions,
        connector: aiohttp.BaseConnector,
        counters: RequestCounters,
        breakers: HostBreakers,
        *,
        own_cookies: bool = False,
    ) -> None:
        self.name: str = name
        self.options: HttpOptions = options
        self.session: aiohttp.ClientSession = _make_session(options, connector, own_cookies=own_cookies)
        self.counters: RequestCounters = counters
        self._breakers = breakers
        self._loop = asyncio.get_running_loop()
        self._own_origin = None if options.base_url is None else URL(options.base_url).origin()
        self._secrets = secret_names(options.headers)

    def with_own_cookies(self) -> Transport:
        """Make a second session over the same connections, breakers and counters."""
        assert self.session.connector is not None
        return Transport(
            self.name, self.options, self.session.connector, self.counters, self._breakers, own_cookies=True
        )

    def check(self) -> None:
        """Refuse a use after the close and from another loop."""
        if self.session.closed:
            raise ClosedError(f"http pool {self.name!r} is closed: make a new one", pool=self.name)

        if asyncio.get_running_loop() is not self._loop:
            message = f"http pool {self.name!r} belongs to another event loop: make one in this loop"
            raise UsageError(message, pool=self.name)

    async def send(
        self, method: str, url: str, options: RequestOptions, read: Reader | None = None
    ) -> tuple[ClientResponse, bytes]:
        """Make attempts until one counts, and return its answer or raise its failure."""
        retries = options.get("retries", self.options.retries)
        arguments = self._arguments(options, url)
        body = arguments.get("data")
        attempt = 1

        while True:
            if isinstance(body, Form):
                # aiohttp's form is consumed by sending it.
                arguments["data"] = body.build()

            raw, content, failure = await self._attempt(method, url, arguments, read)

            if raw is not None and raw.status not in self.options.retry_statuses:
                return raw, content

            delay = None

            if attempt <= retries and _may_repeat(method, options, body, failure):
                delay = self._delay(attempt, raw, failure)

            if delay is None:
                if raw is not None:
                    return raw, content

                assert failure is not None
                raise failure

            if raw is not None:
                raw.release()

            self.counters.retries += 1
            await asyncio.sleep(delay)
            attempt += 1

    def _arguments(self, options: RequestOptions, url: str) -> dict[str, Any]:  # aiohttp's own
        """Translate options for aiohttp, with the headers of the context."""
        arguments = aiohttp_arguments(options, self.options.connect_timeout) if options else {}

        if (context := self.options.context_headers) is not None:
            arguments["headers"] = {**context(), **(arguments.get("headers") or {})}

        given = secret_names(headers) if (headers := arguments.get("headers")) else ()

        # Secret headers are kept from other origins, redirects included: those of the pool are meant
        # for its base_url, those of the request for its own URL.
        if given or self._secrets:
            target = URL(url).origin()
            own = dict.fromkeys(self._secrets, self._own_origin or target)
            arguments["middlewares"] = (CredentialGuard(own | dict.fromkeys(given, target)),)

        return arguments

    def _delay(self, attempt: int, raw: ClientResponse | None, failure: WsError | None) -> float | None:
        """Return the seconds before the next attempt; None when the server asks for too many."""
        # A kept connection that the server has closed says nothing about how busy it is.
        if attempt == 1 and failure is not None and isinstance(failure.__cause__, _DISCONNECTED):
            return 0.0

        return retry_delay(
            attempt,
            first=self.options.retry_wait,
            most=self.options.retry_max_wait,
            asked=None if raw is None else _retry_after(raw),
            fraction=random.random(),
        )

    async def _attempt(
        self, method: str, url: str, arguments: dict[str, Any], read: Reader | None
    ) -> tuple[ClientResponse | None, bytes, WsError | None]:
        """Make one attempt; return an answer, or why there is none."""
        breaker = self._breakers.admit(url)
        failure: WsError | None = None
        raw: ClientResponse | None = None
        content = b""

        try:
            raw = await self.session.request(
                method, url, max_redirects=self.options.max_redirects, **arguments
            )
            content = await (read_body(raw, self.options.max_response_size) if read is None else read(raw))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = map_exception(error, method, url, pool=self.name)
            failure.__cause__ = error
            raw = None
        except BaseException:
            # A cancelled request says nothing about the host, but it may have been the breaker's probe.
            if breaker is not None:
                breaker.abandoned()

            raise

        if breaker is not None:
            self._breakers.record(breaker, failure, None if raw is None else raw.status)

        return raw, content, failure


def _make_session(
    options: HttpOptions, connector: aiohttp.BaseConnector, *, own_cookies: bool
) -> ClientSession:
    keeps_cookies = options.cookies or own_cookies
    secrets = secret_names(options.headers) if options.base_url is not None else ()
    own = dict.fromkeys(secrets, URL(options.base_url or "").origin()) if secrets else None
    headers = CIMultiDict({"accept-encoding": ACCEPT_ENCODING})
    headers.update(options.headers)
    session = ClientSession(
        connector=connector,
        connector_owner=not own_cookies,
        headers=headers,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=options.timeout, sock_connect=options.connect_timeout),
        cookie_jar=aiohttp.CookieJar() if keeps_cookies else aiohttp.DummyCookieJar(),
        trust_env=options.trust_env,
        proxy=options.proxy,
        middlewares=() if own is None else (CredentialGuard(own),),  # for WebSockets, which take none
    )
    # aiohttp repeats an idempotent request by itself when a kept connection turns out to be closed.
    # The server may have seen it all the same: repeating is for `retries` to say, and to count.
    session._retry_connection = False  # noqa: SLF001 - it has no public name
    return session


def _may_repeat(method: str, options: RequestOptions, body: object, failure: WsError | None) -> bool:
    """Decide whether an attempt may be made again."""
    # Three cases: the request never left, so any may be repeated; it may have arrived, so only an
    # idempotent one may; the failure is not the connection's, so none may.
    if not is_replayable(body) or isinstance(failure, UsageError):
        return False

    if failure is not None and failure.context.get("sent") is False:
        return True

    if failure is not None and not isinstance(failure, HttpConnectionError | TimeoutError):
        return False

    return options.get("idempotent", method in IDEMPOTENT)


def _retry_after(raw: ClientResponse) -> float | None:
    """Return how many seconds the server wants us to wait."""
    return retry_after(raw.headers.get("retry-after"), datetime.now(UTC))


def _describe(_: Transport, method: str, url: str, *__: object) -> tracing.Operation:
    """Describe a request for a trace: its URL without secrets."""
    attributes: dict[str, str | int] = {"http.request.method": method.upper(), "url.full": mask_url(url)}

    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # the request will say what is wrong with it
        parts, port = urlsplit(""), None

    if parts.hostname and port:
        attributes |= {"server.address": parts.hostname, "server.port": port}

    return tracing.Operation(method.upper(), attributes, "http.client.request.duration")


def _with_headers(args: tuple[Any, ...], headers: Mapping[str, str]) -> tuple[Any, ...]:
    """Return the arguments of `Transport.send` with headers that the request does not set itself."""
    method, url, options, *rest = args
    return (method, url, {**options, "headers": {**headers, **(options.get("headers") or {})}}, *rest)


tracing.point(
    Transport,
    "send",
    _describe,
    carry=_with_headers,
    learn=lambda result: {"http.response.status_code": result[0].status},
)
