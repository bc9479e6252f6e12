"""Options of a request: what arrives is what was meant, and anything else is refused before it is sent."""

from __future__ import annotations

import io
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from tests.pool.http._server import Site, serve_raw
from ws_pool.errors import HttpError, HttpStatusError, UsageError
from ws_pool.http import HttpClient, HttpPool


class Colour(str, Enum):  # noqa: UP042 - the point of it
    """An enumeration of texts whose `str()` is not its value."""

    RED = "red"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"params": {"a": None}}, "is None"),
        ({"params": {"a": [1, True]}}, "is True"),
        ({"params": {"a": Decimal("1.5")}}, "not Decimal"),
        ({"params": {"a": uuid.UUID(int=7)}}, "not UUID"),
        ({"params": {"a": b"x"}}, "not bytes"),
        ({"params": 5}, "must map names"),
        ({"data": {"a": None}}, "is None"),
        ({"data": [("a", False)]}, "is False"),
        ({"data": [1, 2]}, "must map names"),
        ({"data": {"a": None}, "files": {"f": b"x"}}, "is None"),
        ({"cookies": {"a": None}}, "is None"),
        ({"cookies": "a=b"}, "must map names"),
        ({"json": {"a": float("nan")}}, "JSON"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": -1}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"timeout": True}, "timeout must be"),
        ({"retries": -1}, "retries must be"),
        ({"retries": float("nan")}, "retries must be"),
        ({"retries": "5"}, "retries must be"),
        ({"raise_for_status": "no"}, "True or False"),
        ({"idempotent": None}, "True or False"),
        ({"allow_redirects": 0}, "True or False"),
        ({"auth": ("u", None)}, "auth must be"),
        ({"auth": ("u:x", "p")}, "auth must be"),
        ({"auth": ("u", "p", "nothing")}, "cannot be encoded"),
        ({"auth": ("ż", "p", "latin1")}, "cannot be encoded"),
        ({"auth": ("u", "p"), "headers": {"Authorization": "Bearer t"}}, "exclude each other"),
    ],
)
async def test_wrong_values_are_refused(
    http: HttpClient, site: Site, options: dict[str, Any], match: str
) -> None:
    """A value that would be sent as something else, or mean something else, is refused."""
    with pytest.raises(UsageError, match=match):
        await http.put("/echo", **options)

    assert site.hits == []


async def test_a_method_that_is_not_text(http: HttpClient) -> None:
    """It is a UsageError, and not an error of some attribute."""
    with pytest.raises(UsageError, match="cannot be made"):
        await http.request(None, "/echo")  # type: ignore[arg-type]  # the point of it


async def test_lists_and_enumerations(http: HttpClient) -> None:
    """A list is sent item by item, in queries and both kinds of forms; of an enumeration the value."""
    fields: dict[str, Any] = {"a": ["x", 1], "b": Colour.RED}
    sent = (await http.get("/echo?z=0", params=fields)).json()
    assert sent["query"] == {"z": ["0"], "a": ["x", "1"], "b": ["red"]}
    sent = (await http.post("/echo", data=fields)).json()
    assert sent["body"] == "a=x&a=1&b=red"
    sent = (await http.post("/echo", data=fields, files={"f": b"content"})).json()
    assert sent["body"].count('name="a"') == 2
    assert "[" not in sent["body"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda file: {"f": file}, id="mapping"),
        pytest.param(lambda file: [("f", file)], id="pairs"),
        pytest.param(lambda file: [("n", "1"), ("f", file)], id="a file among texts"),
    ],
)
async def test_a_form_with_a_file_is_not_sent_again_without_it(
    http: HttpClient, site: Site, data: Any
) -> None:
    """Sending such a form consumes its file, so that a second attempt would send it empty."""
    received: list[bool] = []

    async def busy_once(request: web.Request) -> web.Response:
        received.append(b"content" in await request.read())
        return web.Response(status=503 if len(received) == 1 else 200)

    site.handle = busy_once

    with pytest.raises(HttpStatusError, match="503"):
        await http.put("/handled", data=data(io.BytesIO(b"content")))

    assert (await http.put("/handled", files={"f": io.BytesIO(b"content")})).ok
    assert received == [True, True]


async def test_a_redirect_that_wants_a_generator_again(http: HttpClient, site: Site) -> None:
    """What is read once cannot be sent to a second place, and the error says so."""

    async def pieces() -> Any:
        yield b"one"

    async def elsewhere(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=307, headers={"location": "/echo"})

    site.handle = elsewhere

    with pytest.raises(HttpError, match="body again") as caught:
        await http.post("/handled", data=pieces())

    assert not isinstance(caught.value, ConnectionError)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        ["ftp://x/", "htp://x/", "http:/x", "https:x", " http://x/", "http://ex\nample/", "/a ", "\t/a"],
    )
    async def test_what_is_not_a_path_is_not_appended_to_the_base_url(
        self, http: HttpClient, site: Site, url: str
    ) -> None:
        """A misspelt absolute URL is refused, and not sought below the pool's base_url."""
        with pytest.raises(UsageError, match=r"must begin with http|white space"):
            await http.get(url)

        assert site.hits == []

    async def test_a_scheme_in_capitals(self, http: HttpClient, site: Site) -> None:
        """Schemes are written in any case (RFC 3986, 3.1)."""
        assert (await http.get(site.url.replace("http", "HTTP") + "/echo")).url == f"{site.url}/echo"

    @pytest.mark.parametrize("path", ["/echo?next=http://x/", "echo/ftp://x", "echo:1"])
    async def test_paths_that_hold_a_url(self, http: HttpClient, site: Site, path: str) -> None:
        """Only the beginning of a URL is its scheme."""
        await http.get(path, raise_for_status=False)
        assert len(site.hits) == 1

    async def test_an_encoded_url_is_sent_as_it_is(self, tmp_path: Any) -> None:
        """A `yarl.URL` that says that it is encoded may be signed: it is spelt as its owner spelt it."""
        targets: list[bytes] = []

        async def answer(reader: Any, writer: Any) -> None:
            targets.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

        target = "/a%7Eb?x=%2f&y=a+b%20c"

        async with serve_raw(answer) as url, HttpPool(url) as pool:
            await pool.client.get(URL(url + target, encoded=True))
            await pool.client.get(URL(target, encoded=True))
            await pool.client.download(URL(url + target, encoded=True), tmp_path / "x")

        assert targets == [target.encode()] * 3
