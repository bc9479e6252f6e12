# ruff: noqa: ASYNC240 - small files in a temporary directory
"""HTTP pools against real servers: requests, errors, retries, cancellation."""

from __future__ import annotations

import asyncio
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.pool.http_server import BIG, Site, serve, serve_bytes
from ws_core.component import Health
from ws_pool import http as shortcuts
from ws_pool._http._bodies import Form, is_replayable
from ws_pool._http._failures import _denied
from ws_pool._http._guard import DeniedAddress, is_public
from ws_pool._http._retry import retry_after, retry_delay
from ws_pool.errors import (
    ClosedError,
    ConfigError,
    HttpAddressDenied,
    HttpCircuitOpen,
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    NotReadyError,
    UnavailableError,
    UsageError,
    WsError,
)
from ws_pool.http import HttpClient, HttpPool, HttpPoolManager, http_pool_manager


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A web server."""
    async with serve() as site:
        yield site


@pytest.fixture
async def pool(site: Site) -> AsyncIterator[HttpPool]:
    """A pool for the web server, which waits for nothing between attempts."""
    async with HttpPool(base_url=site.url, retry_wait=0, headers={"x-app": "shop"}) as pool:
        yield pool


@pytest.fixture
async def http(pool: HttpPool) -> AsyncIterator[HttpClient]:
    """The pool's client."""
    async with pool.get_client() as http:
        yield http


class TestRequests:
    @pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
    async def test_methods(self, http: HttpClient, method: str) -> None:
        """Each method has a function of its name."""
        response = await getattr(http, method)("/echo/here")
        assert (response.status_code, response.json()["method"]) == (200, method.upper())
        assert response.json()["path"] == "/echo/here"

    async def test_head(self, http: HttpClient) -> None:
        """HEAD gives headers and no body."""
        response = await http.head("/echo")
        assert (response.status_code, response.content) == (200, b"")

    async def test_what_a_response_tells(self, http: HttpClient, site: Site) -> None:
        """Status, headers, text, bytes, JSON, cookies, URL and time are there."""
        response = await http.get("/echo", params={"q": "1"})
        assert response.ok
        assert response.reason == "OK"
        assert response.headers["Content-Type"] == response.headers["content-type"]
        assert response.text.encode() == response.content
        assert response.cookies == {"seen": "yes"}
        assert response.url == f"{site.url}/echo?q=1"
        assert response.elapsed > 0
        assert response.method == "GET"
        assert repr(response) == f"<HttpResponse 200 GET {site.url}/echo?q=1>"
        response.raise_for_status()

    async def test_what_is_sent(self, http: HttpClient) -> None:
        """Query, headers, JSON, forms, raw bytes, cookies and a password arrive."""
        sent = (
            await http.post(
                "/echo",
                params={"a": ["1", "2"]},
                headers={"x-extra": "yes"},
                json={"hello": "wörld"},
                cookies={"c": "1"},
                auth=("me", "pass"),
            )
        ).json()
        assert sent["query"] == {"a": ["1", "2"]}
        assert (sent["headers"]["x-extra"], sent["headers"]["x-app"]) == ("yes", "shop")
        assert sent["headers"]["content-type"].startswith("application/json")
        assert sent["headers"]["authorization"] == "Basic bWU6cGFzcw=="
        assert sent["cookies"] == {"c": "1"}
        assert (await http.post("/echo", data={"a": "1"})).json()["body"] == "a=1"
        assert (await http.post("/echo", data=b"raw")).json()["body"] == "raw"
        assert (await http.get("/echo", auth=None)).ok

    async def test_urls(self, http: HttpClient, site: Site) -> None:
        """Relative URLs are appended to base_url; absolute ones are taken as they are."""
        for url in ("/echo/a", "echo/a", f"{site.url}/echo/a"):
            assert (await http.get(url)).json()["path"] == "/echo/a"

        async with HttpPool(url=f"{site.url}/echo/") as pool:
            assert (await pool.client.get("/b")).json()["path"] == "/echo/b"
            assert (await pool.client.get("")).json()["path"] == "/echo"
            assert (await pool.client.get("?q=1")).json()["query"] == {"q": ["1"]}

        async with HttpPool() as pool:
            with pytest.raises(UsageError, match="has no base_url"):
                await pool.client.get("/x")

            with pytest.raises(UsageError, match="not a URL"):
                await pool.client.get("http://")

    async def test_encodings(self, http: HttpClient) -> None:
        """Text is read in the declared encoding; an unknown one falls back to UTF-8."""
        assert (await http.get("/latin", params={"charset": "iso-8859-2"})).text == "żółć"
        assert "�" in (await http.get("/latin", params={"charset": "klingon"})).text

    async def test_not_json(self, http: HttpClient) -> None:
        """A body that is not JSON is an error that says what it is, and a ValueError."""
        response = await http.get("/latin", params={"charset": "iso-8859-2"})

        with pytest.raises(
            HttpDecodeError, match="not answer with JSON but with 4 bytes, text/plain"
        ) as caught:
            response.json()

        assert isinstance(caught.value, ValueError)

    async def test_unknown_options(self, http: HttpClient) -> None:
        """A misspelt option is refused."""
        with pytest.raises(UsageError, match="'jason' is not an option"):
            await http.get("/echo", jason={})  # type: ignore[call-arg]

    async def test_cookies_are_kept_by_no_one_unless_asked(self, pool: HttpPool, site: Site) -> None:
        """A shared client keeps no cookies; a client alone keeps its own; a pool may keep them."""
        async with pool.get_client() as shared, pool.get_client(alone=True) as alone:
            await shared.get("/echo")
            assert (await shared.get("/echo")).json()["cookies"] == {}
            await alone.get(site.url.replace("127.0.0.1", "localhost") + "/echo")
            assert (await shared.get("/echo")).json()["cookies"] == {}

        async with HttpPool(cookies=True) as keeping:
            url = site.url.replace("127.0.0.1", "localhost")
            await keeping.client.get(f"{url}/echo")
            assert (await keeping.client.get(f"{url}/echo")).json()["cookies"] == {"seen": "yes"}

        async with pool.get_client() as shared:
            assert (await shared.get("/echo")).ok, "closing a client alone closes nothing of the pool"

    async def test_unix_socket(self, tmp_path: Path) -> None:
        """All requests go through a unix socket when there is one."""
        path = str(tmp_path / "s")

        async with serve(path) as site, HttpPool(base_url=site.url, unix_socket=path) as pool:
            assert (await pool.client.get("/echo")).json()["headers"]["host"] == "shop"

    async def test_concurrency(self, pool: HttpPool, http: HttpClient) -> None:
        """Hundreds of requests share the pool, each with its own answer."""
        urls = [f"/echo/{n}" for n in range(300)]
        responses = await asyncio.gather(*(http.get(url) for url in urls))
        assert [response.json()["path"] for response in responses] == urls
        statistics = pool.statistics()
        assert (statistics.requests, statistics.active, statistics.failures) == (300, 0, 0)
        assert statistics.idle <= 100
        assert statistics.time.count == 300
        assert statistics.status()["requests"] == 300


class TestFiles:
    async def test_multipart(self, http: HttpClient, tmp_path: Path) -> None:
        """Files may be bytes, text, a path, an open file, or a tuple with name and type."""
        path = tmp_path / "p.txt"
        path.write_text("from a path")
        file = io.BytesIO(b"__from memory")
        file.seek(2)

        with path.open("rb") as opened:
            response = await http.post(
                "/form",
                data={"plain": 1},
                files={
                    "a": b"bytes",
                    "b": "text",
                    "c": path,
                    "d": file,
                    "e": ("e.png", b"png", "image/png"),
                    "f": ("f.bin", b"f"),
                    "g": opened,
                },
            )

        octets = "application/octet-stream"
        assert response.json() == {
            "plain": "1",
            "a": ["a", octets, "bytes"],
            "b": ["b", octets, "text"],
            "c": ["p.txt", octets, "from a path"],
            "d": ["d", octets, "from memory"],
            "e": ["e.png", "image/png", "png"],
            "f": ["f.bin", octets, "f"],
            "g": ["p.txt", octets, "from a path"],
        }
        assert not file.closed

    async def test_multipart_is_built_anew_for_a_retry(self, http: HttpClient, site: Site) -> None:
        """An open file is sent from the same place again."""
        site.script = [lambda: web.Response(status=503)]
        response = await http.put("/form", files={"f": io.BytesIO(b"content")})
        assert response.json() == {"f": ["f", "application/octet-stream", "content"]}
        assert len(site.hits) == 2

    def test_what_can_be_sent_again(self) -> None:
        """Streams cannot; everything at hand can."""

        class Stream(io.RawIOBase):
            def seekable(self) -> bool:
                return False

            def readable(self) -> bool:
                return True

        assert is_replayable(None)
        assert is_replayable(b"x")
        assert is_replayable(Form(None, {"a": b"x"}))
        assert not is_replayable(Form(None, {"a": Stream()}))  # type: ignore[dict-item]
        assert not is_replayable(iter([b"x"]))

    async def test_bad_files(self, http: HttpClient) -> None:
        """What is not a file is refused by the field's name."""
        for value in (5, (1, b"x"), ("n", b"x", 5), ("a", "b", "c", "d")):
            with pytest.raises(UsageError, match=r"files\['f'\]"):
                await http.post("/form", files={"f": value})  # type: ignore[dict-item]

        with pytest.raises(UsageError, match="mapping of plain fields"):
            await http.post("/form", data=b"x", files={"f": b"x"})

    async def test_upload(self, http: HttpClient, tmp_path: Path) -> None:
        """A file is sent as the body."""
        path = tmp_path / "p"
        path.write_bytes(b"content")
        response = await http.upload("/echo", path, headers={"x-extra": "1"})
        assert (response.json()["method"], response.json()["body"]) == ("PUT", "content")

        with pytest.raises(FileNotFoundError):
            await http.upload("/echo", tmp_path / "none")


class TestErrors:
    async def test_a_bad_status_is_raised(self, http: HttpClient, site: Site) -> None:
        """A status from 400 on is an error that carries the answer."""
        with pytest.raises(HttpStatusError) as caught:
            await http.get("/status/404?token=secret")

        error = caught.value
        assert str(error) == f"GET {site.url}/status/404?token=*** was answered with 404 Not Found"
        assert error.status_code == 404
        assert error.response.text == "told so"  # type: ignore[attr-defined]
        assert isinstance(error, HttpError)
        assert isinstance(error, WsError)
        assert HttpStatusError("x").status_code == 0

    async def test_a_bad_status_may_be_an_answer(self, http: HttpClient, site: Site) -> None:
        """raise_for_status can be off for one request or for the pool."""
        response = await http.get("/status/500", raise_for_status=False)
        assert not response.ok

        with pytest.raises(HttpStatusError):
            response.raise_for_status()

        async with HttpPool(base_url=site.url, raise_for_status=False) as pool:
            assert (await pool.client.get("/status/500")).status_code == 500

    async def test_nobody_listens(self, unused_tcp_port: int) -> None:
        """A refused connection is an UnavailableError, and was never sent."""
        async with HttpPool(base_url=f"http://127.0.0.1:{unused_tcp_port}", retries=1, retry_wait=0) as pool:
            with pytest.raises(HttpConnectionError, match="cannot connect") as caught:
                await pool.client.post("/x", json={})

            assert isinstance(caught.value, UnavailableError)
            assert caught.value.context["sent"] is False
            assert pool.statistics().retries == 1, "even a POST, since nothing was sent"
            assert pool.statistics().failures == 1

    async def test_the_connection_is_lost(self) -> None:
        """A server that closes without an answer is an error, not an empty answer."""
        async with serve_bytes(None) as (url, lines), HttpPool(base_url=url, retries=0) as pool:
            with pytest.raises(HttpConnectionError, match="lost") as caught:
                await pool.client.post("/x")

            assert caught.value.context["sent"] is True
            assert lines == ["POST /x HTTP/1.1"]

    async def test_half_a_body(self) -> None:
        """A body that ends early is an error."""
        half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"

        async with serve_bytes(half) as (url, _), HttpPool(base_url=url, retries=0) as pool:
            with pytest.raises(HttpConnectionError, match="lost"):
                await pool.client.get("/x")

    async def test_not_http(self) -> None:
        """An answer in another protocol is an HttpError."""
        async with (
            serve_bytes(b"SSH-2.0-OpenSSH\r\n\r\n") as (url, _),
            HttpPool(base_url=url, retries=0) as pool,
        ):
            with pytest.raises(HttpError):
                await pool.client.get("/x")

    async def test_timeout(self, http: HttpClient, site: Site) -> None:
        """A late answer is an HttpTimeout and a TimeoutError."""
        with pytest.raises(HttpTimeout, match="no complete answer in time") as caught:
            await http.get("/slow", timeout=0.05, retries=0)

        assert isinstance(caught.value, TimeoutError)
        assert site.hits == ["slow"]
        site.gate.set()
        assert (await http.get("/slow", timeout=None)).text == "late"

    async def test_connect_timeout(self) -> None:
        """A host that never ends its TLS greeting is an HttpTimeout, and nothing was sent."""

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()
                gone.set()

        gone = asyncio.Event()
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async with server, HttpPool(url=f"https://127.0.0.1:{port}", connect_timeout=0.05, retries=0) as pool:
            with pytest.raises(HttpTimeout, match="no connection in time") as caught:
                await pool.client.get("/")

            await gone.wait()

        assert caught.value.context["sent"] is False

    async def test_endless_redirects(self, http: HttpClient) -> None:
        """A circle of redirects ends in an error; redirects can be left to the caller."""
        with pytest.raises(HttpError, match="too many redirects"):
            await http.get("/loop")

        assert (await http.get("/loop", allow_redirects=False)).status_code == 302

    async def test_certificates_are_checked(self, site: Site) -> None:
        """TLS to a server without TLS fails as a connection error."""
        async with HttpPool(base_url=site.url.replace("http:", "https:"), retries=0) as pool:
            with pytest.raises(HttpConnectionError):
                await pool.client.get("/echo")


class TestRetries:
    async def test_an_overloaded_server(self, http: HttpClient, site: Site, pool: HttpPool) -> None:
        """429 and 503 are tried again, as the server asks."""
        site.script = [
            lambda: web.Response(status=503, headers={"retry-after": "0"}),
            lambda: web.Response(status=429),
        ]
        assert (await http.get("/scripted")).json() == {"ok": True}
        assert len(site.hits) == 3
        assert pool.statistics().retries == 2
        assert pool.statistics().requests == 1

    async def test_patience_has_an_end(self, http: HttpClient, site: Site) -> None:
        """After the last attempt the answer is what it is."""
        site.script = [lambda: web.Response(status=503)] * 9

        with pytest.raises(HttpStatusError, match="503"):
            await http.get("/scripted")

        assert len(site.hits) == 3

    async def test_a_server_that_asks_for_too_much(self, http: HttpClient, site: Site) -> None:
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

    async def test_streams_are_not_repeated(self, http: HttpClient, site: Site) -> None:
        """A body that is gone cannot be sent again."""
        site.script = [lambda: web.Response(status=503)]

        async def body() -> AsyncIterator[bytes]:
            yield b"once"

        with pytest.raises(HttpStatusError):
            await http.put("/scripted", data=body())

        assert len(site.hits) == 1

    def test_full_jitter(self) -> None:
        """The wait is a random part of a bound that doubles up to its maximum."""
        bounds = [retry_delay(n, first=1, most=5, asked=None, fraction=1) for n in range(1, 6)]
        assert bounds == [1, 2, 4, 5, 5]
        assert retry_delay(1, first=1, most=5, asked=None, fraction=0) == 0
        assert retry_delay(1, first=1, most=5, asked=5, fraction=0.5) == 5.5
        assert retry_delay(10**6, first=1, most=5, asked=None, fraction=0.5) == 2.5

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


class TestBreaker:
    async def test_opens_and_closes(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        """After some failures in a row nothing is sent; later one request tries, and its outcome decides."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=2, breaker_reset=10) as pool:
            pool._clock = lambda: now
            http = pool.client

            for _ in range(2):
                with pytest.raises(HttpStatusError):
                    await http.get("/status/503")

            with pytest.raises(HttpCircuitOpen, match=r"next try in 10\.0 s") as caught:
                await http.get("/echo")

            assert isinstance(caught.value, UnavailableError)
            assert site.hits == ["/status/503"] * 2
            assert "is left alone" in caplog.text
            now = 10.0

            with pytest.raises(HttpStatusError):
                await http.get("/status/502")

            with pytest.raises(HttpCircuitOpen):
                await http.get("/echo")

            now = 20.0
            assert (await http.get("/echo")).ok
            assert (await http.get("/echo")).ok

    async def test_each_host_has_its_own(self, site: Site, unused_tcp_port: int) -> None:
        """A host that is down does not keep others from being asked; lost connections count."""
        async with HttpPool(retries=0, breaker_failures=1) as pool:
            dead = f"http://me:secret@127.0.0.1:{unused_tcp_port}/"

            with pytest.raises(HttpConnectionError):
                await pool.client.get(dead)

            with pytest.raises(HttpCircuitOpen) as caught:
                await pool.client.get(dead)

            assert "secret" not in str(caught.value)
            assert (await pool.client.get(f"{site.url}/echo")).ok

    async def test_one_probe_at_a_time(self, site: Site) -> None:
        """While one request tries, the others are refused; a cancelled one has learned nothing."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=1, breaker_reset=10) as pool:
            pool._clock = lambda: now
            http = pool.client

            with pytest.raises(HttpStatusError):
                await http.get("/status/504")

            now = 10.0
            probe = asyncio.create_task(http.get("/slow"))
            await site.reached.wait()

            with pytest.raises(HttpCircuitOpen, match=r"next try in 0\.0 s"):
                await http.get("/echo")

            probe.cancel()

            with pytest.raises(asyncio.CancelledError):
                await probe

            with pytest.raises(HttpError, match="redirects"):
                await http.get("/loop")

            assert (await http.get("/status/404", raise_for_status=False)).status_code == 404
            assert (await http.get("/echo")).ok

    async def test_many_hosts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hosts without failures are forgotten when there are too many."""
        monkeypatch.setattr("ws_pool.http._MANY_HOSTS", 2)
        pool = HttpPool(breaker_failures=5)
        pool.breaker("http://a/").failed(0.0)
        pool.breaker("http://b/")
        pool.breaker("http://c/")
        assert list(pool._breakers) == ["a:80", "c:80"]


class TestGuard:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_private_addresses(self, site: Site, host: str) -> None:
        """Neither an address nor a name leads inside, and nothing is sent there."""
        async with HttpPool(deny_private=True, retry_wait=0) as pool:
            with pytest.raises(HttpAddressDenied, match="is not a public address"):
                await pool.client.get(f"{site.url.replace('127.0.0.1', host)}/echo")

            assert pool.statistics().retries == 0

        assert site.hits == []

    async def test_redirects(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A public server that redirects inside is not followed."""
        other = site.url.replace("127.0.0.1", "127.0.0.2")
        site.script = [lambda: web.Response(status=302, headers={"location": f"{other}/echo"})]
        monkeypatch.setattr("ws_pool._http._guard.is_public", lambda address: address == "127.0.0.1")

        async with HttpPool(deny_private=True) as pool:
            with pytest.raises(HttpAddressDenied, match=r"127\.0\.0\.2 is not"):
                await pool.client.get(f"{site.url}/scripted")

        assert site.hits == ["GET"]

    @pytest.mark.parametrize(
        ("address", "public"),
        [
            ("93.184.215.14", True),
            ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
            ("10.1.2.3", False),
            ("172.16.0.1", False),
            ("192.168.0.1", False),
            ("169.254.169.254", False),
            ("100.64.0.1", False),
            ("0.0.0.0", False),
            ("224.0.0.1", False),
            ("255.255.255.255", False),
            ("::1", False),
            ("fe80::1%eth0", False),
            ("fd00::1", False),
            ("ff02::1", False),
            ("::ffff:169.254.169.254", False),
            ("64:ff9b::a9fe:a9fe", False),
            ("64:ff9b::5db8:d70e", True),
            ("2002:a00:1::", False),
        ],
    )
    def test_addresses(self, address: str, *, public: bool) -> None:
        """Addresses inside are known as such, also in the ways that IPv6 wraps them."""
        assert is_public(address) is public

    def test_a_group_of_refusals(self) -> None:
        """The refusal is found in whatever the connector makes of several addresses."""
        denied = DeniedAddress("10.0.0.1 is not a public address")
        assert _denied(BaseExceptionGroup("all", [OSError("x"), denied])) is denied
        assert _denied(OSError("Multiple exceptions: 10.0.0.1 is not a public address")) is not None
        assert _denied(BaseExceptionGroup("all", [OSError("x")])) is None


class TestContext:
    async def test_headers(self, site: Site) -> None:
        """Headers of the context are sent with each request, unless it says otherwise."""
        ids = iter(range(9))

        async with HttpPool(
            base_url=site.url, context_headers=lambda: {"x-request-id": f"r{next(ids)}"}
        ) as pool:
            sent = [
                (await pool.client.get("/echo")).json()["headers"]["x-request-id"],
                (await pool.client.get("/echo", headers={"a": "b"})).json()["headers"]["x-request-id"],
                (await pool.client.get("/echo", headers={"x-request-id": "mine"})).json()["headers"][
                    "x-request-id"
                ],
            ]

        assert sent == ["r0", "r1", "mine"]


class TestStreams:
    async def test_chunks(self, http: HttpClient, pool: HttpPool) -> None:
        """A body comes in pieces, and the connection is back afterwards."""
        async with http.request_stream("GET", "/big") as stream:
            assert stream.status_code == 200
            assert stream.headers["etag"] == '"v1"'
            assert b"".join([chunk async for chunk in stream.chunks(1000)]) == BIG

        async with http.request_stream("GET", "/big") as stream:
            assert await stream.read() == BIG

        assert pool.statistics().connections == 0

    async def test_leaving_early(self, http: HttpClient, pool: HttpPool) -> None:
        """Leaving the block before the end closes the connection."""
        async with http.request_stream("GET", "/big") as stream:
            async for _ in stream.chunks():
                break

        assert pool.statistics().connections == 0
        assert pool.statistics().active == 0

    async def test_a_bad_status(self, http: HttpClient) -> None:
        """The status is an error as for other requests, unless told otherwise."""
        with pytest.raises(HttpStatusError) as caught:
            async with http.request_stream("GET", "/status/404"):
                pytest.fail("not reached")

        assert caught.value.response.text == "told so"  # type: ignore[attr-defined]

        async with http.request_stream("GET", "/status/404", raise_for_status=False) as stream:
            assert stream.status_code == 404

    async def test_a_cut(self, http: HttpClient, pool: HttpPool) -> None:
        """A body that is cut is an error for those who read pieces, too."""
        async with http.request_stream("GET", "/big?cut=1") as stream:
            with pytest.raises(HttpConnectionError):
                assert [chunk async for chunk in stream.chunks()] == []

        async with http.request_stream("GET", "/big?cut=1") as stream:
            with pytest.raises(HttpConnectionError):
                await stream.read()

        with pytest.raises(HttpConnectionError):
            await http.get("/big?cut=1", retries=0)

        assert pool.statistics().failures == 1


class TestDownload:
    async def test_complete(self, http: HttpClient, tmp_path: Path) -> None:
        """The file is there when it is complete, with progress on the way and nothing left beside it."""
        seen: list[tuple[int, int | None]] = []
        path = tmp_path / "big"
        path.write_text("old")
        checksum = "sha256:" + hashlib.sha256(BIG).hexdigest().upper()
        saved = await http.download("/big", path, checksum=checksum, progress=lambda *now: seen.append(now))
        assert saved == path
        assert path.read_bytes() == BIG
        assert seen[-1] == (len(BIG), len(BIG))
        assert [entry.name for entry in tmp_path.iterdir()] == ["big"]

    async def test_a_cut_leaves_nothing(self, http: HttpClient, tmp_path: Path) -> None:
        """A broken download leaves the old file and no other."""
        path = tmp_path / "big"
        path.write_text("old")

        with pytest.raises(HttpConnectionError):
            await http.download("/big?cut=1", path)

        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["big"]

    async def test_resume(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """A broken download goes on where it stopped, when the file is still the same."""
        path = tmp_path / "big"

        with pytest.raises(HttpConnectionError):
            await http.download("/big?cut=1", path, resume=True)

        have = (tmp_path / "big.part").stat().st_size
        assert have > 0
        await http.download("/big?cut=1", path, resume=True)
        assert path.read_bytes() == BIG
        assert site.ranges == [None, f"bytes={have}-"]
        assert [entry.name for entry in tmp_path.iterdir()] == ["big"]

    @pytest.mark.parametrize("tag", ['"v2"', 'W/"v1"', ""])
    async def test_resume_of_another_file(self, http: HttpClient, tmp_path: Path, tag: str) -> None:
        """When the server's file is another, or may be, it is fetched from the beginning."""
        (tmp_path / "big.part").write_bytes(b"x" * 100)
        (tmp_path / "big.part.etag").write_text(tag)
        await http.download("/big", tmp_path / "big", resume=True)
        assert (tmp_path / "big").read_bytes() == BIG

    async def test_resume_beyond_the_end(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """A part that is too long is thrown away."""
        (tmp_path / "big.part").write_bytes(BIG + b"more")
        (tmp_path / "big.part.etag").write_text('"v1"')
        await http.download("/big", tmp_path / "big", resume=True)
        assert (tmp_path / "big").read_bytes() == BIG
        assert len(site.ranges) == 2

    async def test_checksum(self, http: HttpClient, tmp_path: Path) -> None:
        """A wrong checksum saves nothing, also when resuming; a wrong kind is refused before."""
        for resume in (False, True):
            with pytest.raises(HttpDecodeError, match="not 00"):
                await http.download("/big", tmp_path / "big", checksum="sha256:00", resume=resume)

            assert not (tmp_path / "big.part").exists()
            assert not (tmp_path / "big").exists()

        with pytest.raises(UsageError, match="is not like"):
            await http.download("/big", tmp_path / "big", checksum="crc:1")

    async def test_a_missing_file(self, http: HttpClient, tmp_path: Path) -> None:
        """An error status is not saved as a file."""
        with pytest.raises(HttpStatusError):
            await http.download("/status/404", tmp_path / "x")

        assert list(tmp_path.iterdir()) == []

    async def test_cancelled(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """A cancelled download leaves nothing behind."""
        started = asyncio.Event()
        task = asyncio.create_task(http.download("/big", tmp_path / "big", progress=lambda *_: started.set()))
        await started.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert list(tmp_path.iterdir()) == []


class TestWebSocket:
    async def test_messages(self, http: HttpClient) -> None:
        """A socket sends and receives, with the headers given."""
        async with http.websocket("/socket", headers={"x-who": "me"}, protocols=("shop",)) as socket:
            assert socket.protocol == "shop"
            await socket.send_str("hello")
            assert (await socket.receive()).data == "me: hello"

        assert socket.closed

    async def test_refusals(self, http: HttpClient, unused_tcp_port: int) -> None:
        """A server without a socket, or none at all, is an error of ours."""
        with pytest.raises(HttpStatusError) as caught:
            async with http.websocket("/echo"):
                pytest.fail("not reached")

        assert caught.value.status_code == 200

        with pytest.raises(HttpConnectionError):
            async with http.websocket(f"ws://127.0.0.1:{unused_tcp_port}/"):
                pytest.fail("not reached")


class TestLife:
    async def test_misuse(self, site: Site) -> None:
        """Each wrong use is refused with what to do."""
        pool = HttpPool(base_url=site.url)
        assert repr(pool) == f"<HttpPool 'default' new: {site.url}>"

        with pytest.raises(NotReadyError, match="async with"):
            async with pool.get_client():
                pass

        assert await pool.health() == Health(ok=False, detail="http pool 'default' is not open")

        async with pool:
            client = pool.client
            assert repr(client) == f"<HttpClient of {pool!r}>"

            with pytest.raises(UsageError, match="open already"):
                await pool.start()

            def elsewhere() -> None:
                asyncio.run(client.get("/echo"))

            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(elsewhere)

        with pytest.raises(ClosedError, match="make a new one"):
            await client.get("/echo")

        await pool.close()
        await pool.start()
        assert (await pool.client.get("/echo")).ok
        await pool.close()
        assert pool.statistics().idle == 0

    async def test_cancellation(self, http: HttpClient, pool: HttpPool, site: Site) -> None:
        """A cancelled request gives its connection up and is counted."""
        task = asyncio.create_task(http.get("/slow"))

        await site.reached.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert pool.statistics().connections == 0
        assert (pool.statistics().active, pool.statistics().failures) == (0, 1)
        assert (await http.get("/echo")).ok

    async def test_health(self, site: Site) -> None:
        """Health asks for health_path and says what is wrong."""
        async with HttpPool(base_url=site.url) as pool:
            assert (await pool.health()).ok

        async with HttpPool(base_url=site.url, health_path="/echo") as pool:
            health = await pool.health()
            assert health.ok
            assert health.latency is not None

        async with HttpPool(base_url=site.url, health_path="/status/500") as pool:
            assert (await pool.health()).detail.endswith("500 Internal Server Error")

    async def test_manager(self, site: Site) -> None:
        """A manager holds named pools."""
        manager = HttpPoolManager()
        manager.register({"default": {"base_url": site.url}, "any": {}})
        await manager

        async with manager.get_client() as http:
            assert (await http.get("/echo")).ok

        assert (await manager.request("GET", "/echo")).ok
        assert manager.pool_status("default")["requests"] == 2
        assert await manager.check_health()
        await manager.close()

    async def test_shortcuts(self, site: Site, tmp_path: Path) -> None:
        """The module's functions use the default pool of the ready-made manager."""
        http_pool_manager.register({"default": {"base_url": site.url}})
        await http_pool_manager.initialize()

        try:
            for name in ("get", "post", "put", "patch", "delete", "options"):
                assert (await getattr(shortcuts, name)("/echo")).json()["method"] == name.upper()

            assert (await shortcuts.head("/echo")).ok
            assert (await shortcuts.request("GET", "/echo")).ok
            assert (await shortcuts.download("/big", tmp_path / "b")).read_bytes() == BIG

            async with shortcuts.request_stream("GET", "/big") as stream:
                assert await stream.read() == BIG
        finally:
            await http_pool_manager.close()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"base_url": "shop"}, "HttpPool.base_url: 'shop' is not like"),
            ({"base_url": "ftp://x"}, "is not like"),
            ({"base_url": "http://x:99999"}, "is not like"),
            ({"base_url": "http://x/?q"}, "is not like"),
            ({"base_url": "http://u:secret@"}, "is not like"),
            ({"timeout": 0}, "HttpPool.timeout"),
            ({"limit": -1}, "HttpPool.limit"),
            ({"retries": "many"}, "HttpPool.retries"),
            ({"headers": "x"}, "HttpPool.headers must map"),
            ({"headers": {"a": 1}}, "HttpPool.headers.a"),
            ({"headers": {"a": "b\r\nc: d"}}, "control characters"),
            ({"verify": "/no/such/file"}, "cannot read certificates"),
            ({"deny_private": True, "proxy": "http://p"}, "cannot see behind"),
            ({"context_headers": {}}, "HttpPool.context_headers must be a function"),
            ({"timeuot": 1}, "did you mean 'timeout'"),
            ({"unix_socket": "/s", "proxy": "http://p"}, "exclude each other"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named, without its secrets, before anything starts."""
        with pytest.raises(ConfigError) as caught:
            HttpPool(**options)

        assert part in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_good_options(self) -> None:
        """Strings from the environment are understood, and a context may be given."""
        context = ssl.create_default_context()
        make: Callable[..., HttpPool] = HttpPool
        assert make(verify=context)._options.verify is context
        assert make(verify="false", timeout="5", limit="7")._options.limit == 7
        assert make(timeout=None, base_url=None)._options.timeout is None
        assert make(proxy="http://proxy:3128")._options.proxy == "http://proxy:3128"
