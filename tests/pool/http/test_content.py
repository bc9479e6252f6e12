# ruff: noqa: ASYNC240 - small files in a temporary directory
"""Bodies of answers are whole, and not larger than allowed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.pool.http._server import serve_bytes
from ws_pool._http.content import _Decoder
from ws_pool.errors import HttpDecodeError, HttpError
from ws_pool.http import HttpClient, HttpPool

TEXT = b"a page of text; " * 1000


def raw_deflate(data: bytes) -> bytes:
    """Compress without the header that the standard wants."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@asynccontextmanager
async def answering(body: bytes, encoding: str | None, **options: object) -> AsyncIterator[HttpClient]:
    """Run a server that sends one body to each of two requests, with its true length."""
    kind = "" if encoding is None else f"content-encoding: {encoding}\r\n"
    answer = (
        f"HTTP/1.1 200 OK\r\nconnection: close\r\n{kind}content-length: {len(body)}\r\n\r\n".encode() + body
    )

    async with (
        serve_bytes(answer, answer) as (url, _),
        HttpPool(base_url=url, retries=0, **options) as pool,  # type: ignore[arg-type]
    ):
        yield pool.client


GOOD = [
    pytest.param(TEXT, None, id="plain"),
    pytest.param(TEXT, "identity", id="identity"),
    pytest.param(gzip.compress(TEXT), "gzip", id="gzip"),
    pytest.param(gzip.compress(TEXT), "X-GZIP", id="x-gzip"),
    pytest.param(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), "gzip", id="two members"),
    pytest.param(gzip.compress(TEXT) + bytes(100), "gzip", id="zeros behind it"),
    pytest.param(zlib.compress(TEXT), "deflate", id="deflate"),
    pytest.param(raw_deflate(TEXT), "deflate", id="deflate without header"),
]
BAD = [
    pytest.param(gzip.compress(TEXT)[:-1], "gzip", id="gzip cut in its checksum"),
    pytest.param(gzip.compress(TEXT)[:60], "gzip", id="gzip cut in the middle"),
    pytest.param(gzip.compress(TEXT) + gzip.compress(TEXT)[:30], "gzip", id="a second member cut"),
    pytest.param(gzip.compress(TEXT) + b"junk", "gzip", id="junk behind it"),
    pytest.param(zlib.compress(TEXT)[:-1], "deflate", id="deflate cut"),
    pytest.param(zlib.compress(TEXT) + b"junk", "deflate", id="junk behind deflate"),
    pytest.param(raw_deflate(TEXT)[:-1], "deflate", id="raw deflate cut"),
    pytest.param(TEXT, "gzip", id="not compressed"),
    pytest.param(TEXT, "br", id="another encoding"),
]


class TestCompressed:
    @pytest.mark.parametrize(("body", "encoding"), GOOD)
    async def test_whole(self, body: bytes, encoding: str | None) -> None:
        """A body is what the server compressed, read at once or piece by piece."""
        async with answering(body, encoding) as http:
            assert (await http.get("/")).content == TEXT

            async with http.request_stream("GET", "/") as stream:
                pieces = [piece async for piece in stream.chunks(1000)]

        assert b"".join(pieces) == TEXT
        assert max(map(len, pieces)) <= 1000

    @pytest.mark.parametrize(("body", "encoding"), BAD)
    async def test_what_is_not_whole_is_an_error(self, body: bytes, encoding: str) -> None:
        """Neither a request nor a stream takes it for the end."""
        async with answering(body, encoding) as http:
            with pytest.raises(HttpDecodeError, match="cannot be decompressed"):
                await http.get("/")

            async with http.request_stream("GET", "/") as stream:
                with pytest.raises(HttpDecodeError):
                    await stream.read()

    async def test_a_download(self, tmp_path: Path) -> None:
        """A server that compresses unasked is understood; a cut body is not saved."""
        async with answering(gzip.compress(TEXT), "gzip") as http:
            await http.download("/", tmp_path / "f")

        assert (tmp_path / "f").read_bytes() == TEXT

        async with answering(gzip.compress(TEXT)[:-5], "gzip") as http:
            with pytest.raises(HttpDecodeError):
                await http.download("/", tmp_path / "g")

        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    @pytest.mark.parametrize("size", [1, 7, 4096])
    def test_pieces_of_every_size(self, size: int) -> None:
        """However the bytes come in, the same come out."""
        packed = gzip.compress(TEXT) + gzip.compress(b"") + gzip.compress(TEXT)
        decoder = _Decoder("gzip")
        found = [
            piece
            for at in range(0, len(packed), size)
            for piece in decoder.decode(packed[at : at + size], 100)
        ]
        decoder.finish()
        assert b"".join(found) == TEXT * 2
        assert max(map(len, found)) <= 100


class TestSize:
    @pytest.mark.parametrize(
        ("body", "encoding"),
        [
            pytest.param(bytes(100_001), None, id="plain"),
            pytest.param(gzip.compress(bytes(100_001)), "gzip", id="small until it is decompressed"),
        ],
    )
    async def test_a_body_that_is_too_large(self, body: bytes, encoding: str | None) -> None:
        """It is an error that names the option; a stream takes it."""
        async with answering(body, encoding, max_response_size=100_000) as http:
            with pytest.raises(HttpError, match="larger than max_response_size=100000"):
                await http.get("/")

            async with http.request_stream("GET", "/") as stream:
                assert len(await stream.read()) == 100_001

        async with answering(body, encoding, max_response_size=100_001) as http:
            assert len((await http.get("/")).content) == 100_001

    async def test_a_bomb(self) -> None:
        """A hundred kilobytes that stand for a hundred megabytes cost no more than the bound."""
        bomb = gzip.compress(bytes(100_000_000))

        async with answering(bomb, "gzip", max_response_size=1_000_000) as http:
            with pytest.raises(HttpError, match="larger than"):
                await http.get("/")

    async def test_a_body_without_a_length(self) -> None:
        """Chunks are counted as they come."""
        chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
        answer = (
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            + chunk * 10
            + b"0\r\n\r\n"
        )

        async with serve_bytes(answer, answer) as (url, _):
            async with HttpPool(base_url=url, max_response_size=40_000, retries=0) as pool:
                with pytest.raises(HttpError, match="larger than"):
                    await pool.client.get("/")

            async with HttpPool(base_url=url, max_response_size=None) as pool:
                assert len((await pool.client.get("/")).content) == 40_960


class TestFraming:
    """What a body's headers say of its form and its end."""

    @pytest.mark.parametrize(
        ("headers", "body", "match"),
        [
            (
                ["content-encoding: gzip", "content-encoding: gzip"],
                gzip.compress(gzip.compress(TEXT)),
                "gzip, gzip",
            ),
            (["content-encoding: gzip"], b"", "too early"),
            (["content-encoding: deflate"], b"", "too early"),
            (["transfer-encoding: gzip"], gzip.compress(TEXT), "transfer-encoding: gzip"),
            (["transfer-encoding: gzip, chunked"], b"2\r\nok\r\n0\r\n\r\n", "transfer-encoding: gzip"),
        ],
        ids=[
            "compressed twice",
            "gzip of nothing",
            "deflate of nothing",
            "transfer gzip",
            "transfer gzip in chunks",
        ],
    )
    async def test_a_wrong_body_is_an_error(
        self, headers: list[str], body: bytes, match: str, tmp_path: Path
    ) -> None:
        """What is encoded otherwise, or ends with the connection before it began, is not the content."""
        head = "".join(f"{line}\r\n" for line in headers)
        answer = f"HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n".encode() + body

        async with serve_bytes(answer, answer) as (url, _), HttpPool(url, retries=0) as pool:
            with pytest.raises(HttpDecodeError, match=match):
                await pool.client.get("/")

            with pytest.raises(HttpDecodeError):
                await pool.client.download("/", tmp_path / "x", checksum=None)

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("lines", "body", "expected"),
        [
            (["content-encoding: identity", "content-encoding: gzip"], gzip.compress(TEXT), TEXT),
            (["content-encoding: gzip, identity"], gzip.compress(TEXT), TEXT),
            (["content-encoding: gzip", "content-length: 0"], b"", b""),
            (["transfer-encoding: Chunked"], b"2\r\nok\r\n0\r\n\r\n", b"ok"),
        ],
        ids=["two lines", "a list", "nothing", "capitals"],
    )
    async def test_a_good_body(self, lines: list[str], body: bytes, expected: bytes) -> None:
        """Several lines of a header are one list, and an empty body may be one by its length."""
        head = "".join(f"{line}\r\n" for line in lines)
        answer = f"HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n".encode() + body

        async with serve_bytes(answer) as (url, _), HttpPool(url, retries=0) as pool:
            assert (await pool.client.get("/")).content == expected

    @pytest.mark.parametrize(
        "line", ["content-encoding:", "content-encoding: IDENTITY", "transfer-encoding: xchunked"]
    )
    async def test_a_download_without_an_end(self, line: str, tmp_path: Path) -> None:
        """A header that only resembles another says nothing about where the file ends."""
        answer = f"HTTP/1.1 200 OK\r\nconnection: close\r\n{line}\r\n\r\nhalf".encode()

        async with serve_bytes(answer) as (url, _), HttpPool(url, retries=0) as pool:
            with pytest.raises(HttpDecodeError, match="no length"):
                await pool.client.download("/", tmp_path / "x")

        assert list(tmp_path.iterdir()) == []
