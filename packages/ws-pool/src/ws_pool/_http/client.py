"""The client of an HTTP pool: requests, streams, files and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Unpack

import aiohttp
from aiohttp import ClientResponse, ClientWebSocketResponse
from yarl import URL

from ws_core.redaction import mask_url
from ws_pool._http.download import Download, Progress
from ws_pool._http.errors import http_error, map_exception
from ws_pool._http.request import RequestOptions
from ws_pool._http.response import HttpResponse, HttpStream, read_content, status_error
from ws_pool._http.sse import EventSource, ServerSentEvent
from ws_pool._http.transport import Transport
from ws_pool._http.verbs import HttpVerbs
from ws_pool.errors import HttpStatusError, UsageError


class HttpClient(HttpVerbs):
    """
    Makes requests over a pool's connections. `HttpPool.get_client` returns it.

    URLs that begin with ``/`` are appended to the pool's ``base_url``.

    Example:
        ```python no-run
        # needs a server
        async with pool.get_client() as http:
            item = (await http.get("/items/1")).json()
            await http.post("/items", json=item, timeout=5)
        ```
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        base = self._transport.options.base_url
        return f"<HttpClient of pool {self._transport.name!r}: {mask_url(base or 'any host')}>"

    async def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> HttpResponse:
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
            HttpError: The answer is not HTTP, redirects too often, or is larger than ``max_response_size``.
            UsageError: The URL or an option is wrong, or the pool is used from another loop.
        """
        transport = self._transport

        if asyncio.get_running_loop() is not transport.loop:
            transport.check()

        started = transport.counters.begin()

        try:
            raw, content = await transport.send(method, transport.url(url), options)
        except BaseException:
            transport.counters.end(started, failed=True)
            raise

        response = HttpResponse(raw, content, transport.counters.end(started))

        if response.status_code >= 400 and options.get(
            "raise_for_status", transport.options.raise_for_status
        ):
            raise status_error(response)

        return response

    @asynccontextmanager
    async def request_stream(
        self, method: str, url: str | URL, **options: Unpack[RequestOptions]
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
        transport = self._transport
        transport.check()
        started = transport.counters.begin()
        failed = True

        try:
            raw, _ = await transport.send(method, transport.url(url), options, _read_nothing)

            async with raw:
                if raw.status >= 400 and options.get("raise_for_status", transport.options.raise_for_status):
                    raise status_error(
                        HttpResponse(
                            raw,
                            await read_content(raw, transport.name, transport.options.max_response_size),
                            0.0,
                        )
                    )

                yield HttpStream(raw, transport.name)
                failed = False
        finally:
            transport.counters.end(started, failed=failed)

    async def download(
        self,
        url: str | URL,
        path: str | Path,
        *,
        resume: bool = False,
        checksum: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[RequestOptions],
    ) -> Path:
        """
        Save an answer's body as a file, which appears only when it is complete.

        It is written beside its final place and then renamed. A connection that is lost on the way is
        made up for within the call, as often as ``retries`` says without any progress; the download
        goes on where it was if the server confirms that the file is still the same, by a strong ETag or
        Last-Modified, and begins again otherwise. The timeout is that of each read, not of the whole.

        Args:
            url: See `request`.
            path: Where to save it; an existing file is replaced.
            resume: Whether to keep an incomplete file as ``NAME.part``, for the next call to go on from.
            checksum: What the content must have, such as ``sha256:2cf24d…``.
            progress: Called with the bytes so far and the total, or None when that is unknown.
            **options: See `RequestOptions`.

        Returns:
            The path.

        Raises:
            HttpDecodeError: The checksum is another, or there is neither a checksum nor a length that
                would show that the file is complete; nothing is saved.
            HttpError: See `request`.
            OSError: The file cannot be written.
        """
        return await Download(
            self.request_stream,
            self._transport.url(url),
            Path(path),
            resume,
            checksum,
            progress,
            self._transport.options,
            options,
        ).run()

    async def upload(
        self, url: str | URL, path: str | Path, *, method: str = "PUT", **options: Unpack[RequestOptions]
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
    async def sse(
        self,
        url: str | URL,
        *,
        method: str = "GET",
        last_event_id: str = "",
        reconnect: bool = False,
        max_event: int = 1024 * 1024,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        """
        Read server-sent events.

        The request is made when the first event is asked for. The timeout is that of each read, so that
        a server which sends nothing at all, no comment either, is found out.

        Args:
            url: See `request`.
            method: GET, or POST for a server that wants a body.
            last_event_id: The id of the last event of an earlier stream, to go on from there.
            reconnect: Whether to go on after the end of a connection, with the last id, as browsers do:
                after 3 s, or as long as the server's ``retry`` says, until it answers 204.
            max_event: Most characters of an event's data.
            **options: See `RequestOptions`.

        Yields:
            The events, to be iterated over.

        Raises:
            HttpDecodeError: The answer is not a stream of events.
            HttpError: See `request`; the connection was lost, without ``reconnect``; an event is larger
                than ``max_event``.
        """
        source = EventSource(
            self.request_stream,
            method,
            self._transport.url(url),
            last_event_id,
            reconnect,
            max_event,
            self._transport.options,
            options,
        )

        async with aclosing(source.events()) as events:
            yield events

    @asynccontextmanager
    async def websocket(
        self,
        url: str | URL,
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
            UsageError: The URL or an argument is wrong.
        """
        transport = self._transport
        transport.check()
        full = transport.url(url)
        _check_socket(headers, protocols, heartbeat)

        try:
            async with (
                asyncio.timeout(transport.session.timeout.total),
                transport.websocket_session(full, headers) as session,
            ):
                socket = await session.ws_connect(
                    full,
                    headers=headers,
                    protocols=protocols,
                    heartbeat=heartbeat,
                    max_msg_size=max_message,
                    proxy=transport.options.proxy,
                )
        except aiohttp.WSServerHandshakeError as error:
            what = f" did not become a WebSocket but was answered with {error.status}"
            raise http_error(HttpStatusError, "GET", full, what, status_code=error.status) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise map_exception(error, "GET", full, pool=transport.name) from error

        async with socket:
            yield socket


def _check_socket(headers: object, protocols: object, heartbeat: float | None) -> None:
    """Refuse what aiohttp would take for something else, or raise a raw error for."""
    if headers is not None and not (
        isinstance(headers, Mapping)
        and all(isinstance(text, str) for item in headers.items() for text in item)
    ):
        raise UsageError("headers must map names to texts")

    if isinstance(protocols, str):
        raise UsageError(f"protocols must be a tuple of names, such as ({protocols!r},)")

    if heartbeat is not None and not heartbeat > 0:
        raise UsageError(f"heartbeat must be seconds above 0, or None, not {heartbeat!r:.50}")


async def _read_nothing(raw: ClientResponse) -> bytes:
    return b""
