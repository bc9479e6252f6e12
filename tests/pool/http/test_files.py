# ruff: noqa: ASYNC240 - small files in a temporary directory
"""Files sent and files fetched."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path

import pytest
from aiohttp import web

from tests.pool.http._server import BIG, Site
from ws_pool._http.bodies import Form, is_replayable
from ws_pool.errors import HttpConnectionError, HttpDecodeError, HttpStatusError, UsageError
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

    async def test_upload(self, http: HttpClient, tmp_path: Path) -> None:
        """A file is sent as the body."""
        path = tmp_path / "p"
        path.write_bytes(b"content")
        response = await http.upload("/echo", path, headers={"x-extra": "1"})
        assert (response.json()["method"], response.json()["body"]) == ("PUT", "content")

        with pytest.raises(FileNotFoundError):
            await http.upload("/echo", tmp_path / "none")


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
