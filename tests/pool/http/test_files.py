"""Files sent and files fetched."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from aiohttp import web

from tests.pool.http._server import Site
from ws_pool._http.bodies import Form, is_replayable
from ws_pool.errors import HttpStatusError, UsageError
from ws_pool.http import HttpClient


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

    async def test_an_upload_is_made_again(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """A file is sent whole by every attempt, from where it stood, and closed by its owner only."""
        path = tmp_path / "p"
        path.write_bytes(b"content")
        bodies: list[bytes] = []

        async def keep(request: web.Request) -> web.Response:
            bodies.append(await request.read())
            return web.Response(status=503 if len(bodies) < 3 else 200)

        site.handle = keep
        assert (await http.upload("/handled", path)).ok
        assert bodies == [b"content"] * 3
        bodies.clear()

        with path.open("rb") as file:
            file.seek(3)
            assert (await http.put("/handled", data=file)).ok
            assert bodies == [b"tent"] * 3
            assert not file.closed

        reader, writer = os.pipe()
        os.write(writer, b"once")
        os.close(writer)
        bodies.clear()

        with os.fdopen(reader, "rb", buffering=0) as pipe, pytest.raises(HttpStatusError):
            await http.put("/handled", data=pipe)

        assert bodies == [b"once"]

    async def test_upload(self, http: HttpClient, tmp_path: Path) -> None:
        """A file is sent as the body."""
        path = tmp_path / "p"
        path.write_bytes(b"content")
        response = await http.upload("/echo", path, headers={"x-extra": "1"})
        assert (response.json()["method"], response.json()["body"]) == ("PUT", "content")

        with pytest.raises(FileNotFoundError):
            await http.upload("/echo", tmp_path / "none")
