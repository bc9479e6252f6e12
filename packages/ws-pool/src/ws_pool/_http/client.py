"""The client: one method per HTTP method, one loop for all attempts."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack

import aiohttp

from ws_pool._core.config import mask_url
from ws_pool._http.bodies import Files, Form, is_replayable
from ws_pool._http.download import Download, Progress
from ws_pool._http.errors import map_exception
from ws_pool._http.options import HttpOptions
from ws_pool._http.response import HttpResponse, status_error
from ws_pool._http.retry import IDEMPOTENT, RETRY_STATUS, retry_after, retry_delay
from ws_pool.errors import HttpConnectionError, HttpStatusError, UsageError, WsError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientWebSocketResponse

    from ws_pool.http import HttpPool

__all__ = ("HttpClient", "HttpStream", "RequestOptions")


class RequestOptions(TypedDict, total=False):
    """
    What every request takes beside its URL, as keyword arguments.

    Args:
        params: Added to the URL's query.
        headers: Added to the pool's headers.
        json: Sent as JSON.
        data: Sent as it is (bytes, text, an open file, an async iterator of bytes), or a mapping
            as a form.
        files: Sent as a multipart form, with ``data`` as its plain fields: field names to bytes,
            text, a path, an open binary file, or a tuple (name, file, content type).
        cookies: Sent with this request.
        auth: User and password for basic authentication.
        timeout: Seconds for each attempt, in place of the pool's; None for no bound.
        retries: In place of the pool's.
        idempotent: Whether the request may be made again; by default its method decides.
        raise_for_status: In place of the pool's.
        allow_redirects: Whether redirects are followed; True by default.
    """

    params: Mapping[str, str | int | float | list[str]] | None
    headers: Mapping[str, str] | None
    json: Any  # whatever the encoder takes
    data: Any  # whatever aiohttp takes
    files: Files | None
    cookies: Mapping[str, str] | None
    auth: tuple[str, str] | None
    timeout: float | None
    retries: int
    idempotent: bool
    raise_for_status: bool
    allow_redirects: bool


_NONE: RequestOptions = {}

Answer: TypeAlias = Coroutine[Any, Any, HttpResponse]
"""What a method returns: to be awaited. It is not a coroutine function itself, which saves a frame."""


class HttpClient:
    """
    Makes requests over a pool's connections. `HttpPool.get_client` gives it.

    URLs that begin with ``/`` are appended to the pool's ``base_url``.

    Example:
        ```python no-run
        # needs a server
        async with pool.get_client() as http:
            item = (await http.get("/items/1")).json()
            await http.post("/items", json=item, timeout=5)
        ```
    """

    __slots__ = ("_options", "_pool", "_session", "_timeout")

    def __init__(self, pool: HttpPool, session: ClientSession, options: HttpOptions) -> None:
        self._pool = pool
        self._session = session
        self._options = options
        self._timeout = options.timeout

    def __repr__(self) -> str:
        return f"<HttpClient of {self._pool!r}>"

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a GET request; see `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> Answer:
        """Make a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> HttpResponse:
        """
        Make a request and read the whole answer.

        An attempt that fails is made again, as often as ``retries`` says, when the connection was
        never opened, or when the request is idempotent and the connection was lost, or the server
        answered 429 or 503. A server's Retry-After is honoured.

        Args:
            method: The method in capitals.
            url: An absolute URL, or one that begins with ``/`` for the pool's ``base_url``.
            **options: See `RequestOptions`.

        Returns:
            The answer.

        Raises:
            HttpStatusError: The status is 400 or more, unless ``raise_for_status`` is off.
            HttpConnectionError: The server cannot be reached, or the connection was lost.
            HttpTimeout: No complete answer came in time.
            HttpError: The answer is not HTTP, or redirects too often.
            UsageError: The URL or an option is wrong, or the pool is used from another loop.
        """
        started = self._pool._begin()

        try:
            if options:
                raw, content = await self._attempts(method, url, options, None)
            else:
                raw, content = await self._attempts(method, url, _NONE, None)
        except BaseException:
            self._pool._end(started, failed=True)
            raise

        response = HttpResponse(raw, content, self._pool._end(started))

        if response.status_code >= 400 and options.get("raise_for_status", self._options.raise_for_status):
            raise status_error(response)

        return response

    @asynccontextmanager
    async def request_stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[HttpStream]:
        """
        Make a request and give its answer to be read piece by piece.

        Args:
            method: The method in capitals.
            url: See `request`.
            **options: See `RequestOptions`. The timeout covers the whole block.

        Yields:
            The answer; leaving the block before its end closes the connection.

        Raises:
            HttpError: See `request`; also while the body is being read.
        """
        started = self._pool._begin()
        failed = True

        try:
            raw, _ = await self._attempts(method, url, options, _open)

            async with raw:
                if raw.status >= 400 and options.get("raise_for_status", self._options.raise_for_status):
                    raise status_error(HttpResponse(raw, await _content(raw, self._pool.name), 0.0))

                yield HttpStream(raw, self._pool.name)
                failed = False
        finally:
            self._pool._end(started, failed=failed)

    async def download(
        self,
        url: str,
        path: str | Path,
        *,
        resume: bool = False,
        checksum: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[RequestOptions],
    ) -> Path:
        """
        Save an answer's body as a file, which appears only when it is complete.

        It is written beside its final place as ``NAME.part`` and then renamed.

        Args:
            url: See `request`.
            path: Where to save it; an existing file is replaced.
            resume: Whether to keep an incomplete file, and go on from it next time if the server
                says that it is still the same (by ETag or Last-Modified).
            checksum: What the content must have, such as ``sha256:2cf24d…``.
            progress: Called with the bytes so far and the total, or None when that is unknown.
            **options: See `RequestOptions`.

        Returns:
            The path.

        Raises:
            HttpDecodeError: The checksum is another; nothing is saved.
            HttpError: See `request`.
            OSError: The file cannot be written.
        """
        return await Download(self, url, Path(path), resume, checksum, progress, options).run()

    async def upload(
        self, url: str, path: str | Path, *, method: str = "PUT", **options: Unpack[RequestOptions]
    ) -> HttpResponse:
        """
        Send a file as the body, without reading it into memory.

        Args:
            url: See `request`.
            path: The file.
            method: PUT, or POST.
            **options: See `RequestOptions`.

        Returns:
            The answer.

        Raises:
            HttpError: See `request`.
            OSError: The file cannot be read.
        """
        with await asyncio.to_thread(Path(path).open, "rb") as file:
            options["data"] = file
            return await self.request(method, url, **options)

    @asynccontextmanager
    async def websocket(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = (),
        heartbeat: float | None = 30.0,
        max_message: int = 4 * 1024 * 1024,
    ) -> AsyncIterator[ClientWebSocketResponse]:
        """
        Open a WebSocket.

        Args:
            url: See `request`; also ``ws://`` and ``wss://``.
            headers: Added to the pool's headers.
            protocols: Subprotocols, in order of preference.
            heartbeat: Seconds between pings; a missing answer closes the socket. None for none.
            max_message: Bytes of the largest message taken.

        Yields:
            aiohttp's socket: ``send_str send_json receive_json close``, and iteration over messages.

        Raises:
            HttpStatusError: The server refused.
            HttpConnectionError: The server cannot be reached.
            HttpTimeout: No answer in time.
        """
        self._pool._check()
        full = self._url(url)

        try:
            async with asyncio.timeout(self._timeout):
                socket = await self._session.ws_connect(
                    full,
                    headers=headers,
                    protocols=protocols,
                    heartbeat=heartbeat,
                    max_msg_size=max_message,
                    proxy=self._options.proxy,
                )
        except aiohttp.WSServerHandshakeError as error:
            shown = mask_url(full)
            message = f"GET {shown} did not become a WebSocket but was answered with {error.status}"
            raise HttpStatusError(message, method="GET", url=shown, status_code=error.status) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise map_exception(error, "GET", full, pool=self._pool.name) from error

        async with socket:
            yield socket

    async def _attempts(
        self, method: str, url: str, options: RequestOptions, read: Reader | None
    ) -> tuple[ClientResponse, bytes]:
        """Make attempts until one counts, and give its answer or raise its failure."""
        full = self._url(url)
        retries = options.get("retries", self._options.retries)
        arguments = self._arguments(options) if options else {}

        if (context := self._options.context_headers) is not None:
            arguments["headers"] = {**context(), **(arguments.get("headers") or {})}

        body = arguments.get("data")
        attempt = 1

        while True:
            if isinstance(body, Form):
                arguments["data"] = body.build()

            raw, content, failure = await self._attempt(method, full, arguments, read)

            if raw is not None and raw.status not in RETRY_STATUS:
                return raw, content

            delay = None

            if attempt <= retries and self._may_repeat(method, options, body, failure):
                delay = retry_delay(
                    attempt,
                    first=self._options.retry_wait,
                    most=self._options.retry_max_wait,
                    asked=None if raw is None else _asked(raw),
                    fraction=random.random(),
                )

            if delay is None:
                if raw is not None:
                    return raw, content

                assert failure is not None  # noqa: S101 - an attempt has one or the other
                raise failure

            if raw is not None:
                raw.release()

            self._pool._retried()
            await asyncio.sleep(delay)
            attempt += 1

    async def _attempt(
        self, method: str, url: str, arguments: dict[str, Any], read: Reader | None
    ) -> tuple[ClientResponse | None, bytes, WsError | None]:
        """Make one attempt; give an answer, or why there is none."""
        breaker = self._pool._breaker(url) if self._options.breaker_failures else None
        failure: WsError | None = None
        raw: ClientResponse | None = None
        content = b""

        try:
            raw = await self._session.request(
                method, url, max_redirects=self._options.max_redirects, **arguments
            )
            content = await (raw.read() if read is None else read(raw))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = map_exception(error, method, url, pool=self._pool.name)
            failure.__cause__ = error
            raw = None
        except BaseException:
            if breaker is not None:
                breaker.abandoned()

            raise

        if breaker is not None:
            self._pool._learn(breaker, failure, None if raw is None else raw.status)

        return raw, content, failure

    def _may_repeat(
        self, method: str, options: RequestOptions, body: object, failure: WsError | None
    ) -> bool:
        """
        Decide whether an attempt may be made again.

        There are three cases: the request never left, so any may be repeated; it may have arrived,
        so only an idempotent one may; it is not the connection's fault, so none may.
        """
        if not is_replayable(body) or isinstance(failure, UsageError):
            return False

        if failure is not None and failure.context.get("sent") is False:
            return True

        if failure is not None and not isinstance(failure, HttpConnectionError | TimeoutError):
            return False

        return options.get("idempotent", method in IDEMPOTENT)

    def _url(self, url: str) -> str:
        base = self._options.base_url

        if url.startswith(("http://", "https://", "ws://", "wss://")):
            return url

        if base is None:
            message = f"http pool {self._pool.name!r} has no base_url: {url!r} must be an absolute URL"
            raise UsageError(message, pool=self._pool.name)

        return f"{base}{url}" if url.startswith(("/", "?")) or not url else f"{base}/{url}"

    def _arguments(self, options: RequestOptions) -> dict[str, Any]:
        """Say in aiohttp's words what the request takes."""
        arguments: dict[str, Any] = {}  # as aiohttp's own signature has it

        for name, value in options.items():
            if name in _PLAIN:
                arguments[name] = value
            elif name == "timeout":
                connect = self._options.connect_timeout
                arguments[name] = aiohttp.ClientTimeout(total=value, sock_connect=connect)  # type: ignore[arg-type]
            elif name not in _OWN:
                raise UsageError(f"{name!r} is not an option of a request", option=name)

        if auth := options.get("auth"):
            arguments["headers"] = {**(arguments.get("headers") or {}), "authorization": _basic(*auth)}

        if files := options.get("files"):
            fields = options.get("data")

            if fields is not None and not isinstance(fields, Mapping):
                raise UsageError("with files, data must be a mapping of plain fields")

            arguments["data"] = Form(fields, files)

        return arguments


class HttpStream:
    """An answer being read piece by piece. `HttpClient.request_stream` gives it."""

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
        """
        try:
            async for chunk in self.raw.content.iter_chunked(size):
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise map_exception(error, self.raw.method, str(self.raw.url), pool=self._pool) from error

    async def read(self) -> bytes:
        """Read what is left of the body."""
        return await _content(self.raw, self._pool)


_PLAIN = frozenset({"params", "headers", "json", "data", "cookies", "allow_redirects"})
_OWN = frozenset({"files", "auth", "retries", "idempotent", "raise_for_status"})

Reader = Callable[["ClientResponse"], Awaitable[bytes]]


def _asked(raw: ClientResponse) -> float | None:
    """Find how many seconds the server asks to wait."""
    return retry_after(raw.headers.get("retry-after"), datetime.now(UTC))


def _basic(user: str, password: str) -> str:
    """Encode credentials (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _open(raw: ClientResponse) -> bytes:  # noqa: ARG001 - the body is read later
    return b""


async def _content(raw: ClientResponse, pool: str) -> bytes:
    try:
        return await raw.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise map_exception(error, raw.method, str(raw.url), pool=pool) from error
