"""Server-sent events, as the HTML standard has them (9.2, Server-sent events)."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Final

from yarl import URL

from ws_pool._http.download import StreamRequest
from ws_pool._http.errors import http_error
from ws_pool._http.options import HttpOptions, read_timeout
from ws_pool._http.request import RequestOptions
from ws_pool._http.response import HttpStream
from ws_pool.errors import HttpConnectionError, HttpDecodeError, HttpError, HttpTimeout

_LINE_END: Final = re.compile("\r\n|\n|\r")
_RECONNECT: Final = 3.0  # seconds, until the server says how many
_SHORTEST_WAIT: Final = 0.01  # a server may ask for any number
_LONGEST_WAIT: Final = 300.0


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """
    One event of a stream.

    Args:
        data: Its text; several ``data`` lines are joined by newlines.
        event: Its type, ``message`` when the server names none.
        id: The last id that the server has named so far; empty when there is none.
    """

    data: str
    event: str = "message"
    id: str = ""


class EventParser:
    r"""
    Turns bytes into events, wherever the bytes are cut.

    Example:
        >>> list(EventParser(100).feed(b"id: 7\ndata: a\ndata: b\n\ndata: not yet"))
        [ServerSentEvent(data='a\nb', event='message', id='7')]
    """

    def __init__(self, limit: int, last_id: str = "") -> None:
        self.last_id: str = last_id
        self.retry: float | None = None
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line: list[str] = []  # pieces of a line that has not ended
        self._data: list[str] = []
        self._event = ""
        self._id = last_id  # it counts from the end of its event on: what is cut off is asked for again
        self._size = 0
        self._after_return = False

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that end in these bytes; raise ValueError when one is larger than the limit."""
        text = self._decoder.decode(data)

        if not text:
            return

        # A line may end with both characters, and the bytes may be cut between them.
        if self._after_return and text[0] == "\n":
            text = text[1:]

        self._after_return = text.endswith("\r") if text else False
        start = 0

        for end in _LINE_END.finditer(text):
            self._grow(text[start : end.start()])
            start = end.end()
            line = "".join(self._line)
            self._line.clear()

            if line:
                self._read(line)
            elif (event := self._dispatch()) is not None:
                yield event

        self._grow(text[start:])

    def _grow(self, piece: str) -> None:
        """Add to the present line."""
        if piece:
            self._line.append(piece)
            self._size += len(piece)

        if self._size > self._limit:
            raise ValueError(f"an event is larger than max_event={self._limit}")

    def _read(self, line: str) -> None:
        """Read a line; one that begins with a colon is a comment."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")

        if name == "data":
            self._data.append(value)
            return

        self._size -= len(line)  # only data is kept

        if name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = min(max(int(value[:9]) / 1000, _SHORTEST_WAIT), _LONGEST_WAIT)

    def _dispatch(self) -> ServerSentEvent | None:
        """Return the event that an empty line ends, if it has data."""
        data, event = self._data, self._event or "message"
        self._data, self._event, self._size = [], "", 0
        self.last_id = self._id
        return ServerSentEvent("\n".join(data), event, self.last_id) if data else None


@dataclass(slots=True)
class EventSource:
    """A stream of events; see `HttpClient.sse` for what the fields mean."""

    request: StreamRequest
    method: str
    url: URL
    last_event_id: str
    reconnect: bool
    max_event: int
    pool: HttpOptions
    options: RequestOptions

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield events, through lost connections if wanted."""
        wait = _RECONNECT

        while True:
            parser = EventParser(self.max_event, self.last_event_id)

            try:
                async with self.request(self.method, self.url, **self._options()) as stream:
                    # No content: the server asks to not come again.
                    if stream.status_code == 204:
                        return

                    self._check(stream)

                    async for chunk in stream.chunks():
                        for event in parser.feed(chunk):
                            self.last_event_id = event.id
                            yield event
            except ValueError as error:
                if isinstance(error, HttpError):
                    raise

                raise http_error(HttpError, self.method, self.url, f": {error}") from None
            except (HttpConnectionError, HttpTimeout):
                if not self.reconnect:
                    raise

            if not self.reconnect:
                return

            self.last_event_id = parser.last_id
            wait = wait if parser.retry is None else parser.retry
            await asyncio.sleep(wait)

    def _options(self) -> RequestOptions:
        """Return the options of the next request."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}

        if self.last_event_id:
            headers["last-event-id"] = self.last_event_id

        timeout = read_timeout(self.options.get("timeout", self.pool.timeout), self.pool.connect_timeout)
        headers |= self.options.get("headers") or {}
        return {**self.options, "headers": headers, "timeout": timeout, "raise_for_status": True}

    def _check(self, stream: HttpStream) -> None:
        """Refuse what is not a stream of events."""
        kind = stream.headers.get("content-type", "no content type")

        if stream.status_code != 200 or kind.partition(";")[0].strip().lower() != "text/event-stream":
            what = f" did not answer with events but with {stream.status_code}, {kind}"
            raise http_error(HttpDecodeError, self.method, self.url, what)
