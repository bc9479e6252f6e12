"""What is tried again, when, and what never is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web

from tests.pool.http._server import Site, serve_bytes
from ws_pool._http.retry import retry_after, retry_delay
from ws_pool.errors import ConfigError, HttpConnectionError, HttpError, HttpStatusError
from ws_pool.http import HttpAttempt, HttpClient, HttpPool


class TestRetries:
    async def test_an_overloaded_server(self, http: HttpClient, site: Site, pool: HttpPool) -> None:
        """429 and 503 are tried again, as the server wishes."""
        site.script = [
            lambda: web.Response(status=503, headers={"retry-after": "0"}),
            lambda: web.Response(status=429),
        ]
        assert (await http.get("/scripted")).json() == {"ok": True}
        assert len(site.hits) == 3
        assert pool.statistics().retries == 2
        assert pool.statistics().requests == 1

    async def test_the_last_answer_counts(self, http: HttpClient, site: Site) -> None:
        """After the last attempt the answer is what it is."""
        site.script = [lambda: web.Response(status=503)] * 9

        with pytest.raises(HttpStatusError, match="503"):
            await http.get("/scripted")

        assert len(site.hits) == 3

    async def test_a_retry_after_that_is_too_long(self, http: HttpClient, site: Site) -> None:
        """A Retry-After beyond retry_max_wait is not waited for."""
        site.script = [lambda: web.Response(status=503, headers={"retry-after": "3600"})]

        with pytest.raises(HttpStatusError):
            await http.get("/scripted")

        assert len(site.hits) == 1

    async def test_post_is_not_repeated(self, http: HttpClient, site: Site) -> None:
        """A request that may not be repeated is not, unless the caller says that it may."""
        site.script = [lambda: web.Response(status=503)] * 2

        with pytest.raises(HttpStatusError):
            await http.post("/scripted")

        assert (await http.post("/scripted", idempotent=True)).ok
        assert site.hits == ["POST", "POST", "POST"]

    async def test_a_lost_connection(self) -> None:
        """A lost GET is made again; a lost POST is not."""
        good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

        async with serve_bytes(None, None, good) as (url, _), HttpPool(base_url=url, retry_wait=0) as pool:
            assert (await pool.client.get("/x")).text == "ok"

        async with serve_bytes(None, good) as (url, lines), HttpPool(base_url=url, retry_wait=0) as pool:
            with pytest.raises(HttpConnectionError):
                await pool.client.post("/x")

            assert len(lines) == 1

    async def test_other_errors_are_not_repeated(self, http: HttpClient, site: Site) -> None:
        """500, 404 and endless redirects come out at once."""
        for path in ("/status/500", "/status/404", "/loop"):
            with pytest.raises(HttpError):
                await http.get(path)

        assert site.hits == ["/status/500", "/status/404"]

    async def test_statuses_on_request(self, site: Site) -> None:
        """A pool chooses after which statuses it repeats."""
        async with HttpPool(base_url=site.url, retry_wait=0, retry_statuses={500, 408}) as pool:
            site.script = [lambda: web.Response(status=500), lambda: web.Response(status=408)]
            assert (await pool.client.get("/scripted")).ok
            site.script = [lambda: web.Response(status=503)]

            with pytest.raises(HttpStatusError, match="503"):
                await pool.client.get("/scripted")

        assert len(site.hits) == 4

    async def test_a_callback_decides(self, site: Site) -> None:
        """`retry_if` sees every attempt that may be repeated; its None leaves the usual rules."""
        seen: list[tuple[str, int, int | None, bytes]] = []

        def judge(attempt: HttpAttempt) -> bool | None:
            seen.append((attempt.method, attempt.number, attempt.status_code, attempt.content))
            return {202: True, 503: False}.get(attempt.status_code or 0)

        async with HttpPool(base_url=site.url, retry_wait=0, raise_for_status=False, retry_if=judge) as pool:
            site.script = [lambda: web.Response(status=202, text="wait")] * 2
            assert (await pool.client.post("/scripted")).json() == {"ok": True}
            site.script = [lambda: web.Response(status=202)] * 9
            assert (await pool.client.get("/scripted", retries=1)).status_code == 202
            site.script = [lambda: web.Response(status=503)]
            assert (await pool.client.get("/scripted")).status_code == 503
            site.script = [lambda: web.Response(status=429)]
            assert (await pool.client.get("/scripted")).status_code == 200

        assert seen[:2] == [("POST", 1, 202, b"wait"), ("POST", 2, 202, b"wait")]
        assert len(site.hits) == 3 + 2 + 1 + 2

    async def test_a_callback_sees_failures(self) -> None:
        """It may repeat what was lost, or leave it; its own error comes out, with no connection left."""
        good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

        async with serve_bytes(None, good, None, good) as (url, lines):
            async with HttpPool(base_url=url, retry_wait=0, retry_if=lambda a: a.error is not None) as pool:
                assert (await pool.client.post("/")).text == "ok"

            async with HttpPool(base_url=url, retry_wait=0, retry_if=lambda _: False) as pool:
                with pytest.raises(HttpConnectionError):
                    await pool.client.get("/")

            async with HttpPool(base_url=url, retry_if=lambda a: a.content[9] == 0) as pool:
                with pytest.raises(IndexError):
                    await pool.client.get("/")

                assert pool.statistics().connections == 0

        assert len(lines) == 4

    async def test_streams_are_not_repeated(self, http: HttpClient, site: Site) -> None:
        """A body that is gone cannot be sent again."""
        site.script = [lambda: web.Response(status=503)]

        async def body() -> AsyncIterator[bytes]:
            yield b"once"

        with pytest.raises(HttpStatusError):
            await http.put("/scripted", data=body())

        assert len(site.hits) == 1

    def test_full_jitter(self) -> None:
        """The wait is a random part of a bound that doubles up to its maximum, or that of Retry-After."""
        for attempt, bound in ((1, 1), (2, 2), (3, 4), (4, 5), (10**6, 5)):
            waits = [retry_delay(attempt, first=1, most=5, asked=None) or 0.0 for _ in range(500)]
            assert min(waits) < bound / 2 < max(waits) <= bound

        asked = [retry_delay(1, first=1, most=5, asked=5) or 0.0 for _ in range(500)]
        assert 5 <= min(asked) < 5.5 < max(asked) <= 6
        assert retry_delay(1, first=1, most=5, asked=5.1) is None

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            ("7", 7.0),
            (" 0 ", 0.0),
            ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
            ("Thu, 01 Jan 2025 00:00:30 GMT", 0.0),
            ("-1", None),
            ("soon", None),
            ("١", None),
        ],
    )
    def test_retry_after(self, value: str | None, expected: float | None) -> None:
        """Seconds and dates are understood, rubbish is ignored."""
        assert retry_after(value, datetime(2026, 1, 1, tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        ("Sun Nov  6 08:49:37 1994", 37.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 37.0),
        ("1.5", 1.5),
        ("-1", None),
        ("1e3", None),
        ("5, 7", None),
        ("Sun, 06 Nov 1994 08:49:37 +9999999", None),
    ],
)
def test_forms_of_retry_after(value: str, expected: float | None) -> None:
    """All three forms of dates are read, and fractions; what is neither counts for nothing."""
    assert retry_after(value, datetime(1994, 11, 6, 8, 49, tzinfo=UTC)) == expected


async def test_a_coroutine_function_cannot_judge_attempts(site: Site) -> None:
    """What it returns is true whatever it decides: it is refused and not obeyed."""

    async def never(attempt: HttpAttempt) -> bool:
        return False

    async with HttpPool(site.url, retry_wait=0, retry_if=never) as pool:
        with pytest.raises(ConfigError, match="retry_if must be a plain function"):
            await pool.client.get("/echo")

    assert site.hits == ["/echo"]


async def test_a_method_in_small_letters(http: HttpClient, site: Site) -> None:
    """It is sent in capitals, so it is as idempotent as those."""
    site.script = [lambda: web.Response(status=503)]
    assert (await http.request("get", "/scripted")).ok
    assert site.hits == ["GET", "GET"]
