"""Server-sent events: read as the HTML standard has them, and continued."""

from __future__ import annotations

import random
import re

import pytest

from tests.pool.http._server import serve_bytes
from ws_pool._http.sse import EventParser
from ws_pool.errors import HttpConnectionError, HttpDecodeError, HttpError, HttpStatusError, HttpTimeout
from ws_pool.http import HttpPool, ServerSentEvent

STREAM = (
    "\ufeff: a comment\r\n\r\n"
    "event: sale\rdata: one\r\r"
    "id: 7\ndata:two\ndata:  three\nretry: 20\n\n"
    "event: nothing\n\n"
    "data\n\n"
    "id: b\0d\nretry: soon\nunknown: x\ndata: żółć \U0001f6d2: ok\r\n\r\n"
    "id\ndata: reset\n\n"
    "data: not ended\n"
).encode()

EVENTS = [
    ServerSentEvent("one", "sale"),
    ServerSentEvent("two\n three", id="7"),
    ServerSentEvent("", id="7"),
    ServerSentEvent("żółć \U0001f6d2: ok", id="7"),
    ServerSentEvent("reset"),
]


def answer(
    body: bytes, *, length: int | None = None, kind: str = "text/event-stream; charset=utf-8"
) -> bytes:
    """Make an answer with a body, whose length may be a lie."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


class TestParser:
    def test_a_stream(self) -> None:
        """Fields, comments, line ends, ids and a byte order mark are read as the standard says."""
        parser = EventParser(1000)
        assert list(parser.feed(STREAM)) == EVENTS
        assert parser.retry == 0.02

    @pytest.mark.parametrize("seed", range(20))
    def test_cut_anywhere(self, seed: int) -> None:
        """Wherever the bytes are cut, the same events come out."""
        rng = random.Random(seed)
        parser = EventParser(1000)
        found: list[ServerSentEvent] = []
        start = 0

        while start < len(STREAM):
            end = start + rng.choice((1, 1, 2, 3, 7))
            found += parser.feed(STREAM[start:end])
            start = end

        assert found == EVENTS

    @pytest.mark.parametrize(
        "body", [b"data: " + b"x" * 200, b"data: x\n" * 30, b"x" * 200, b"event: " + b"x" * 200 + b"\n\n"]
    )
    def test_an_event_without_an_end(self, body: bytes) -> None:
        """What grows beyond the bound is refused, in one line or in many; streams may be of any length."""
        with pytest.raises(ValueError, match="max_event=100"):
            list(EventParser(100).feed(body))

        assert len(list(EventParser(100).feed(b": ping\nid: 5\ndata: x\n\n" * 1000))) == 1000

    @pytest.mark.parametrize(("retry", "wait"), [(b"0", 0.01), (b"9" * 50, 300.0), (b"-5", None)])
    def test_retry(self, retry: bytes, wait: float | None) -> None:
        """A server may ask for any wait; it gets one within bounds."""
        parser = EventParser(100)
        assert list(parser.feed(b"retry: " + retry + b"\n\n")) == []
        assert parser.retry == wait


class TestEvents:
    async def test_events(self) -> None:
        """Events come until the server ends the stream; the id to go on from is sent."""
        heads: list[str] = []
        stream = answer(STREAM), answer(STREAM)

        async with serve_bytes(*stream, heads=heads) as (url, _), HttpPool(url, retries=0) as pool:
            async with pool.client.sse("/") as events:
                assert [event async for event in events] == EVENTS

            async with pool.client.sse("/", last_event_id="5", headers={"x-a": "b"}) as events:
                assert (await anext(events)).id == "5"

            assert pool.statistics().connections == 0

        assert "last-event-id" not in heads[0]
        assert "accept: text/event-stream" in heads[0]
        assert "last-event-id: 5" in heads[1]
        assert "x-a: b" in heads[1]

    async def test_going_on(self) -> None:
        """After a cut or an end the next request has the last complete event's id; 204 ends it."""
        heads: list[str] = []
        cut = answer(b"retry: 10\nid: 1\ndata: a\n\nid: 2\ndata: lost", length=1000)
        rest = answer(b"id: 2\ndata: b\n\n")
        end = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"

        async with (
            serve_bytes(cut, rest, end, heads=heads) as (url, _),
            HttpPool(url, retries=0) as pool,
            pool.client.sse("/", reconnect=True) as events,
        ):
            assert [event.data async for event in events] == ["a", "b"]

        assert [re.findall("last-event-id: (.)", head) for head in heads] == [[], ["1"], ["2"]]

    async def test_a_cut_is_an_error(self) -> None:
        """Without `reconnect` a lost connection is an error, not the end of the stream."""
        async with (
            serve_bytes(answer(b"data: a\n\n", length=100)) as (url, _),
            HttpPool(url, retries=0) as pool,
            pool.client.sse("/") as events,
        ):
            assert (await anext(events)).data == "a"

            with pytest.raises(HttpConnectionError):
                await anext(events)

    async def test_silence(self) -> None:
        """The timeout is that of each read."""
        async with (
            serve_bytes(answer(b"data: a\n\n", length=100), hold=True) as (url, _),
            HttpPool(url, retries=0, timeout=0.2) as pool,
            pool.client.sse("/") as events,
        ):
            assert (await anext(events)).data == "a"

            with pytest.raises(HttpTimeout):
                await anext(events)

    @pytest.mark.parametrize("kind", ["text/html", "text/event-streams"])
    async def test_no_events(self, kind: str) -> None:
        """Another kind of answer is an error, and so are a bad status and an endless event."""
        bad = b"HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        endless = answer(b"data: " + b"x" * 100)

        async with (
            serve_bytes(answer(b"data: a\n\n", kind=kind), bad, endless) as (url, _),
            HttpPool(url, retries=0) as pool,
        ):
            async with pool.client.sse("/") as events:
                with pytest.raises(HttpDecodeError, match=f"did not answer with events but with 200, {kind}"):
                    await anext(events)

            async with pool.client.sse("/", reconnect=True) as events:
                with pytest.raises(HttpStatusError):
                    await anext(events)

            async with pool.client.sse("/", method="POST", json={}, max_event=50) as events:
                with pytest.raises(HttpError, match="larger than max_event=50"):
                    await anext(events)

            assert pool.statistics().connections == 0
