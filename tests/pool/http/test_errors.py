"""Every failure is an error that says what went wrong."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.http._server import Site, serve_bytes
from ws_pool.errors import (
    HttpConnectionError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    UnavailableError,
    WsError,
)
from ws_pool.http import HttpClient, HttpPool


class TestErrors:
    async def test_a_bad_status_is_raised(self, http: HttpClient, site: Site) -> None:
        """A status from 400 on is an error that carries the answer."""
        with pytest.raises(HttpStatusError) as caught:
            await http.get("/status/404?token=secret")

        error = caught.value
        assert str(error) == f"GET {site.url}/status/404?token=*** was answered with 404 Not Found"
        assert error.status_code == 404
        assert error.response.text == "as requested"  # type: ignore[attr-defined]
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
        """A host that never ends its TLS handshake is an HttpTimeout, and nothing was sent."""

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
