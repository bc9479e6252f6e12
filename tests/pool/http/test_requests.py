"""Requests against a real server: what is sent, and what a response says."""

from __future__ import annotations

import asyncio
import base64
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import BasicAuth, ClientTimeout
from yarl import URL

from tests.pool.http._server import Site, serve
from ws_pool.errors import HttpDecodeError, HttpTimeout, UsageError
from ws_pool.http import HttpClient, HttpPool


class TestRequests:
    @pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
    async def test_methods(self, http: HttpClient, method: str) -> None:
        """Each method has a function of its name."""
        response = await getattr(http, method)("/echo/here")
        assert (response.status_code, response.json()["method"]) == (200, method.upper())
        assert response.json()["path"] == "/echo/here"

    async def test_head(self, http: HttpClient) -> None:
        """HEAD returns headers and no body."""
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

    async def test_types_of_the_ecosystem(self, site: Site) -> None:
        """`yarl.URL`, `BasicAuth` and `ClientTimeout` are taken by pools and requests."""
        with warnings.catch_warnings():  # newer versions of aiohttp have a function in its place
            warnings.simplefilter("ignore", DeprecationWarning)
            auth = BasicAuth("ann", "pässword")

        timeout = ClientTimeout(total=20)

        async with HttpPool(base_url=URL(site.url), auth=auth, timeout=timeout) as pool:
            told = (await pool.client.get(URL("/echo?q=a%20b"))).json()
            assert (told["query"], told["headers"]["authorization"]) == (
                {"q": ["a b"]},
                "Basic " + base64.b64encode("ann:pässword".encode("latin-1")).decode(),
            )
            told = (await pool.client.get(URL(site.url) / "echo", auth=auth, timeout=timeout)).json()
            assert told["path"] == "/echo"

            with pytest.raises(HttpTimeout):
                await pool.client.get("/slow", timeout=ClientTimeout(total=0.01))

        async with HttpPool(base_url=site.url, auth=("ann", "pw")) as pool:
            other = site.url.replace("127.0.0.1", "localhost")
            told = (await pool.client.get(f"{other}/echo")).json()
            assert "authorization" not in told["headers"]

    @pytest.mark.parametrize(
        "options",
        [
            {"headers": "x"},
            {"headers": ["a"]},
            {"headers": {"Content-Length": "5"}, "data": b"four"},
            {"headers": {"transfer-encoding": "chunked"}},
            {"params": 5},
            {"cookies": "x"},
            {"cookies": {"ä": "b"}},
            {"files": ["a"]},
            {"auth": "ann:pw"},
            {"auth": ("ann",)},
            {"timeout": "x"},
            {"timeout": float("inf")},
            {"data": 5},
            {"data": "\ud800"},
            {"json": object()},
            {"headers": {"a": "b\r\nc: d"}},
        ],
    )
    async def test_wrong_values(self, http: HttpClient, site: Site, options: dict[str, Any]) -> None:
        """A value that cannot be sent is a UsageError, before anything is."""
        with pytest.raises(UsageError):
            await http.post("/echo", **options)

        assert site.hits == []

    async def test_a_stream_may_have_a_length(self, http: HttpClient) -> None:
        """The length of an iterator's body is known to the caller only."""

        async def body() -> AsyncIterator[bytes]:
            yield b"four"

        told = (await http.post("/echo", data=body(), headers={"content-length": "4"})).json()
        assert (told["body"], told["headers"]["content-length"]) == ("four", "4")

        with pytest.raises(UsageError, match=r"a URL must be text or a yarl\.URL"):
            await http.get(5)  # type: ignore[arg-type]

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
