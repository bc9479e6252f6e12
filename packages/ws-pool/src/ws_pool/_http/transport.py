"""A pool's session with its breakers and counters: sends a request until an attempt counts."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from http.cookies import CookieError
from typing import Any, TypeAlias, cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, hdrs
from aiohttp.abc import AbstractCookieJar
from multidict import CIMultiDict
from yarl import URL

from ws_core.redaction import is_secret_name, mask_url
from ws_pool._core import tracing
from ws_pool._core.operation import Operation
from ws_pool._http.bodies import Rebuilt, is_replayable
from ws_pool._http.circuit_breaker import HostBreakers
from ws_pool._http.content import ACCEPT_ENCODING, read_body, received_body
from ws_pool._http.errors import map_exception
from ws_pool._http.hooks import HookFailed, Hooks
from ws_pool._http.options import HttpOptions, client_timeout
from ws_pool._http.request import RequestOptions, aiohttp_arguments
from ws_pool._http.response import HttpAttempt
from ws_pool._http.retry import IDEMPOTENT, retry_after, retry_delay
from ws_pool._http.statistics import RequestCounters
from ws_pool.errors import ClosedError, ConfigError, HttpConnectionError, UsageError, WsError

Reader: TypeAlias = Callable[[ClientResponse], Awaitable[bytes]]
"""Reads of an answer what an attempt must include; nothing for a stream."""


_SCHEMES = frozenset({"http", "https", "ws", "wss"})
# What looks like a scheme is not a path, misspelt as it may be.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(//)?", re.IGNORECASE)
_SURROUNDED = re.compile(r"\A\s|\s\Z|[\t\r\n]")
_DISCONNECTED = (aiohttp.ServerDisconnectedError, ConnectionResetError)
_KNOWN_URLS = 256

_is_secret = lru_cache(maxsize=1000)(is_secret_name)


class CredentialGuard:
    """
    A middleware of aiohttp that removes headers from requests to other origins.

    aiohttp does so for Authorization when it follows a redirect, but not for an API key, nor for the
    session's headers in a request to another host.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Mapping[str, URL]) -> None:
        self._names = names

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request without the headers that are meant for another origin."""
        origin = http_origin(request.url)

        for name, own in self._names.items():
            if origin != own:
                request.headers.popall(name, None)

        return await handler(request)


def http_origin(url: URL) -> URL:
    """Return the origin of a URL; that of a WebSocket is the one of its server's pages."""
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme)
    return url.origin() if scheme is None else url.origin().with_scheme(scheme)


def secret_names(headers: Iterable[str]) -> list[str]:
    """Return the names of headers that hold secrets, in small letters."""
    return [name.lower() for name in headers if _is_secret(name)]


class Transport:
    """One session over a pool's connections. Sessions of one pool share breakers and counters."""

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
        self.counters: RequestCounters = counters
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._breakers = breakers
        self._own_origin = None if options.base_url is None else http_origin(URL(options.base_url))
        self._secrets = secret_names(options.headers)
        self._unbound = bool(self._secrets) and self._own_origin is None  # each request's origin is theirs
        self.session: aiohttp.ClientSession = _make_session(
            options,
            connector,
            self._middlewares(),
            jar=_cookie_jar(keep=options.cookies or own_cookies),
            owner=not own_cookies,
        )
        # The same few URLs come again and again: looking one up costs less than putting it together.
        self.url: Callable[[str | URL], URL] = lru_cache(_KNOWN_URLS)(self._full_url)
        self._plain: dict[str, Any] = {"max_redirects": options.max_redirects}  # Any: aiohttp's own

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

        if asyncio.get_running_loop() is not self.loop:
            message = f"http pool {self.name!r} belongs to another event loop: make one in this loop"
            raise UsageError(message, pool=self.name)

    async def send(  # noqa: C901 - see below
        self, method: str, url: URL, options: RequestOptions, read: Reader | None = None
    ) -> tuple[ClientResponse, bytes]:
        """Make attempts until one counts, and return its answer or raise its failure."""
        # This function runs for every request; what only some of them need stands in functions of its own.
        pool = self.options
        context = None if pool.context_headers is None else pool.context_headers()
        plain = not (options or context or self._unbound)
        arguments = self._plain if plain else self._arguments(options, url, context or {})
        body = arguments.get("data")
        breakers = self._breakers if self._breakers.enabled else None
        number = 1

        while True:
            # aiohttp consumes forms and files by sending them.
            if isinstance(body, Rebuilt):
                arguments["data"] = body.build()

            admission = None if breakers is None else breakers.admit(url)
            failure: WsError | None = None
            raw: ClientResponse | None = None
            content: bytes | None = None

            try:
                raw = await self.session.request(method, url, **arguments)

                if read is not None:
                    content = await read(raw)
                elif (content := received_body(raw, pool.max_response_size)) is None:
                    content = await read_body(raw, pool.max_response_size)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = map_exception(error, method, url, pool=self.name)
                failure.__cause__ = error
                raw = None
            except BaseException as error:
                # A cancelled request says nothing about the host, but it may have been the breaker's probe.
                if admission is not None:
                    admission.abandoned()

                self._reraise(error, method, url)
                raise

            if admission is not None and breakers is not None:
                breakers.record(admission, failure, None if raw is None else raw.status)

            if raw is not None and raw.status not in pool.retry_statuses and pool.retry_if is None:
                return raw, content or b""

            attempt = HttpAttempt(method, str(url), number, raw, content or b"", failure)

            if (delay := self._delay_after(attempt, options, body)) is None:
                if raw is not None:
                    return raw, attempt.content

                assert failure is not None
                raise failure

            if raw is not None:
                raw.release()

            self.counters.retries += 1
            number += 1
            await asyncio.sleep(delay)

    def _reraise(self, error: BaseException, method: str, url: URL) -> None:
        """Raise what an error stands for, if it is another one."""
        # What aiohttp raises for an argument that it cannot use; AttributeError is for the method.
        refused = isinstance(error, TypeError | ValueError | ArithmeticError | CookieError)
        refused = refused or (isinstance(error, AttributeError) and not isinstance(method, str))

        if refused and not isinstance(error, WsError):
            message = f"{method} {mask_url(str(url))}: the request cannot be made: {error}"
            raise UsageError(message, pool=self.name) from error

        if isinstance(error, HookFailed):
            raise error.error from None

        if isinstance(error, RuntimeError):  # aiohttp's, for a closed session
            self.check()

    def _full_url(self, url: object) -> URL:
        """Complete a URL by the pool's base_url."""
        encoded = isinstance(url, URL)  # it may hold a signature, which another spelling breaks

        if not isinstance(url, str | URL):
            message = f"a URL must be text or a yarl.URL, not {type(url).__name__}"
            raise UsageError(message, pool=self.name)

        text = str(url)
        base = self.options.base_url

        if _SURROUNDED.search(text):
            message = f"{mask_url(text)!r}: a URL has no white space around it, and no line breaks"
            raise UsageError(message, pool=self.name)

        try:
            scheme = _SCHEME.match(text)

            if scheme and scheme[2] and scheme[1].lower() in _SCHEMES:
                return URL(text, encoded=encoded)

            if scheme and (scheme[2] or scheme[1].lower() in _SCHEMES):
                message = f"{mask_url(text)}: a URL must begin with http:// or https://, not {scheme[0]}"
                raise UsageError(message, pool=self.name)

            if base is not None:
                start = str(URL(base)).rstrip("/") if encoded else base
                return URL(f"{start}{'' if not text or text[0] in '/?' else '/'}{text}", encoded=encoded)
        except ValueError as error:
            message = f"{mask_url(text)}: this is not a URL of a web server: {error}"
            raise UsageError(message, pool=self.name) from error

        message = f"http pool {self.name!r} has no base_url: {mask_url(text)!r} must be an absolute URL"
        raise UsageError(message, pool=self.name)

    def _middlewares(self, *guards: CredentialGuard) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """Return what every request passes through: the credentials' guard last, behind the hooks."""
        pool = self.options
        hooks = () if pool.on_request is None and pool.on_response is None else (Hooks(pool),)

        if not guards and self._own_origin is not None and self._secrets:
            guards = (CredentialGuard(dict.fromkeys(self._secrets, self._own_origin)),)

        return (*hooks, *guards)

    def _arguments(
        self, options: RequestOptions, url: URL, context: Mapping[str, str]
    ) -> dict[str, Any]:  # aiohttp's own
        """Translate options for aiohttp, with the headers of the context."""
        arguments = aiohttp_arguments(options, self.options.connect_timeout) if options else {}
        arguments |= self._plain

        if context:
            if not isinstance(cast("object", context), Mapping):
                message = (
                    f"http pool {self.name!r}: context_headers() returned {context!r:.50}, not a mapping"
                )
                raise ConfigError(message, pool=self.name)

            arguments["headers"] = {**context, **(arguments.get("headers") or {})}

        given = secret_names(headers) if (headers := arguments.get("headers")) else ()

        if given or self._unbound:
            arguments["middlewares"] = self._guarded(url, given)

        return arguments

    def _guarded(self, url: URL, given: Iterable[str]) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """
        Return what keeps secret headers from other origins, redirects included.

        Those of the pool are meant for its base_url, those of the request for its own URL.
        """
        target = http_origin(url)
        own = dict.fromkeys(self._secrets, self._own_origin or target) | dict.fromkeys(given, target)
        return self._middlewares(CredentialGuard(own))

    @asynccontextmanager
    async def websocket_session(
        self, url: URL, headers: Mapping[str, str] | None
    ) -> AsyncIterator[ClientSession]:
        """Yield a session for one WebSocket: aiohttp takes no middlewares with it."""
        given = secret_names(headers) if headers else []

        if not given and not self._unbound:
            yield self.session
            return

        assert self.session.connector is not None
        session = _make_session(
            self.options, self.session.connector, self._guarded(url, given), jar=self.session.cookie_jar
        )

        async with session:
            yield session

    def _delay_after(self, attempt: HttpAttempt, options: RequestOptions, body: object) -> float | None:
        """Return the seconds before the next attempt; None when there shall be none."""
        pool = self.options

        if attempt.number > options.get("retries", pool.retries) or not is_replayable(body):
            return None

        if isinstance(attempt.error, UsageError):
            return None

        try:
            again: object = None if pool.retry_if is None else pool.retry_if(attempt)
        except BaseException:
            if attempt.raw is not None:
                attempt.raw.close()

            raise

        if inspect.isawaitable(again):
            if inspect.iscoroutine(again):
                again.close()

            message = f"http pool {self.name!r}: retry_if must be a plain function, not a coroutine function"
            raise ConfigError(message, pool=self.name)

        if again is None:
            again = _may_repeat(attempt, options, pool.retry_statuses)

        if not again:
            return None

        # A kept connection that the server has closed says nothing about how busy it is.
        if attempt.number == 1 and attempt.error and isinstance(attempt.error.__cause__, _DISCONNECTED):
            return 0.0

        asked = None if attempt.raw is None else attempt.raw.headers.get("retry-after")
        return retry_delay(
            attempt.number,
            first=pool.retry_wait,
            most=pool.retry_max_wait,
            asked=retry_after(asked, datetime.now(UTC)),
        )


def _cookie_jar(*, keep: bool) -> AbstractCookieJar:
    # unsafe: also the cookies of servers that are known by their address alone.
    return aiohttp.CookieJar(unsafe=True) if keep else aiohttp.DummyCookieJar()


def _make_session(
    options: HttpOptions,
    connector: aiohttp.BaseConnector,
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...],
    *,
    jar: AbstractCookieJar,
    owner: bool = False,
) -> ClientSession:
    headers = CIMultiDict(options.headers)

    # aiohttp asks for more than we decompress when brotli or zstandard is installed.
    if ClientRequest.DEFAULT_HEADERS.get(hdrs.ACCEPT_ENCODING) != ACCEPT_ENCODING:
        headers.setdefault("accept-encoding", ACCEPT_ENCODING)

    session = ClientSession(
        connector=connector,
        connector_owner=owner,
        headers=headers,
        auto_decompress=False,
        timeout=client_timeout(options.timeout, options.connect_timeout),
        cookie_jar=jar,
        json_serialize=partial(json.dumps, allow_nan=False),  # NaN is not JSON
        trust_env=options.trust_env,
        proxy=options.proxy,
        middlewares=middlewares,
    )
    # aiohttp repeats an idempotent request by itself when a kept connection turns out to be closed.
    # The server may have seen it all the same: repeating is for `retries` to say, and to count.
    session._retry_connection = False
    return session


def _may_repeat(attempt: HttpAttempt, options: RequestOptions, statuses: frozenset[int]) -> bool:
    """Decide whether an attempt may be made again."""
    failure = attempt.error

    # Three cases: the request never left, so any may be repeated; it may have arrived, so only an
    # idempotent one may; the failure is not the connection's, so none may.
    if failure is None:
        if attempt.status_code not in statuses:
            return False
    elif failure.context.get("sent") is False:
        return True
    elif not isinstance(failure, HttpConnectionError | TimeoutError):
        return False

    return options.get("idempotent", attempt.method.upper() in IDEMPOTENT)


def _describe(_: Transport, method: str, url: URL, *__: object) -> Operation:
    """Describe a request for a trace: its URL without secrets."""
    name = str(method).upper()  # whatever it is: sending it says what is wrong
    attributes: dict[str, str | int] = {"http.request.method": name, "url.full": mask_url(str(url))}

    if url.host and url.port:
        attributes |= {"server.address": url.host, "server.port": url.port}

    return Operation(name, attributes, "http.client.request.duration")


def _with_headers(args: tuple[Any, ...], headers: Mapping[str, str]) -> tuple[Any, ...]:
    """Return the arguments of `Transport.send` with headers that the request does not set itself."""
    method, url, options, *rest = args
    given = options.get("headers") or {}

    if not isinstance(given, Mapping):
        return args  # refused where requests are checked, as without a tracer

    return (method, url, {**options, "headers": {**headers, **given}}, *rest)


tracing.point(
    Transport,
    "send",
    _describe,
    carry=_with_headers,
    learn=lambda result: {"http.response.status_code": result[0].status},
)
