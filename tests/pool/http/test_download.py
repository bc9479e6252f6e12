# ruff: noqa: ASYNC240 - small files in a temporary directory
"""Downloads are exact or an error, whatever the server does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pool.http._server import BIG, Site, serve_raw
from ws_pool._http.download import validator_of
from ws_pool.errors import (
    HttpConnectionError,
    HttpDecodeError,
    HttpError,
    HttpStatusError,
    HttpTimeout,
    UsageError,
)
from ws_pool.http import HttpClient, HttpPool

OLD = b"old-" * 50
NEW = b"new!" * 60

Answer = bytes | Callable[[dict[str, str]], bytes]


class Script:
    """A raw server: each connection gets the next answer, and is closed."""

    def __init__(self, *answers: Answer) -> None:
        self.url = ""
        self.requests: list[dict[str, str]] = []
        self._answers = list(answers)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.requests.append(headers)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        data = answer(headers) if callable(answer) else answer
        writer.write(data)
        await writer.drain()
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)

        if length is not None and int(length[1]) > len(body):
            # aiohttp drops what it finds together with the end of a connection.
            await asyncio.sleep(0.3)


@asynccontextmanager
async def scripted(*answers: Answer, **options: object) -> AsyncIterator[tuple[Script, HttpClient]]:
    """Run a raw server, and a pool for it."""
    script = Script(*answers)

    async with (
        serve_raw(script.handle) as script.url,
        HttpPool(base_url=script.url, retry_wait=0, **options) as pool,  # type: ignore[arg-type]
    ):
        yield script, pool.client


def answer(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Build an answer; its length may lie."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def whole(data: bytes, tag: str = '"new"', length: int | None = None) -> bytes:
    """Build an answer with the whole file, or less than it promises."""
    return answer("200 OK", data, f"etag: {tag}", length=length)


def partial(data: bytes, place: str, *headers: str, length: int | None = None) -> bytes:
    """Build an answer with a part of the file."""
    return answer("206 Partial Content", data, f"content-range: {place}", *headers, length=length)


def leave_part(
    path: Path, data: bytes, *, url: str, tag: str = '"old"', total: int | None = len(OLD)
) -> None:
    """Leave what an earlier call would have left."""
    path.with_name(f"{path.name}.part").write_bytes(data)
    note = {"url": f"{url}/f", "validator": tag, "total": total}
    path.with_name(f"{path.name}.part.json").write_text(json.dumps(note))


def rest_of(data: bytes, tag: str) -> Callable[[dict[str, str]], bytes]:
    """Answer the range that is asked for, whatever If-Range says."""

    def build(headers: dict[str, str]) -> bytes:
        start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        return partial(data[start:], f"bytes {start}-{len(data) - 1}/{len(data)}", f"etag: {tag}")

    return build


class TestChangedFile:
    """A part of an older file is here, and the server has another by now."""

    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(rest_of(NEW, '"new"'), id="If-Range is ignored"),
            pytest.param(rest_of(NEW, 'W/"old"'), id="a weak validator"),
            pytest.param(partial(NEW[100:], "bytes 100-239/240"), id="no validator"),
            pytest.param(partial(NEW[:140], "bytes 0-139/240", 'etag: "old"'), id="a range from zero"),
            pytest.param(partial(NEW[50:], "bytes 50-239/240", 'etag: "old"'), id="another range"),
            pytest.param(partial(NEW[100:], "bytes 100-239/240", 'etag: "old"'), id="another total"),
            pytest.param(partial(OLD[100:], "bytes 100-199/*", 'etag: "old"'), id="no total"),
            pytest.param(partial(OLD[100:], "bytes 100-150/200", 'etag: "old"'), id="longer than its range"),
            pytest.param(partial(OLD[100:], "bytes 199-100/200", 'etag: "old"'), id="a range backwards"),
            pytest.param(partial(OLD[100:], "lines 100-199/200", 'etag: "old"'), id="another unit"),
            pytest.param(answer("206 Partial Content", NEW[100:], 'etag: "old"'), id="no Content-Range"),
            pytest.param(
                partial(b"x", "bytes 100-199/200", 'etag: "old"', "content-encoding: gzip"), id="compressed"
            ),
            pytest.param(
                answer("206 Partial Content", b"--b", 'etag: "old"', "content-type: multipart/byteranges"),
                id="several ranges",
            ),
            pytest.param(answer("416 Range Not Satisfiable", b""), id="beyond the end"),
            pytest.param(whole(NEW), id="the whole file"),
        ],
    )
    async def test_it_is_fetched_from_zero(self, first: Answer, tmp_path: Path) -> None:
        """Whatever part the server sends, the file is that of the server in the end."""
        path = tmp_path / "f"

        async with scripted(first, whole(NEW)) as (script, http):
            leave_part(path, OLD[:100], url=script.url)
            await http.download("/f", path, resume=True)

        assert path.read_bytes() == NEW
        assert script.requests[0]["range"] == "bytes=100-"
        assert script.requests[0]["if-range"] == '"old"'
        assert "range" not in script.requests[-1] or len(script.requests) == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    @pytest.mark.parametrize(
        ("note", "data"),
        [
            ("", OLD[:100]),
            ("no json", OLD[:100]),
            ('{"url": "u", "validator": "", "total": 200}', OLD[:100]),
            ('{"url": "URL/other", "validator": "\\"old\\"", "total": 200}', OLD[:100]),
            ('{"url": "URL/f", "validator": "\\"old\\"", "total": 200}', OLD + b"more"),
            ('{"url": "URL/f", "validator": "\\"old\\""}', OLD[:100]),
        ],
    )
    async def test_a_part_that_proves_nothing_is_not_continued(
        self, note: str, data: bytes, tmp_path: Path
    ) -> None:
        """Without a note that fits, the request asks for the whole file."""
        async with scripted(whole(NEW)) as (script, http):
            (tmp_path / "f.part").write_bytes(data)
            (tmp_path / "f.part.json").write_text(note.replace("URL", script.url))
            await http.download("/f", tmp_path / "f", resume=True)

        assert (tmp_path / "f").read_bytes() == NEW
        assert ["range" in request for request in script.requests] == [False]

    async def test_a_part_that_is_complete(self, tmp_path: Path) -> None:
        """A call that ended before the rename is made up for."""
        async with scripted(answer("416 Range Not Satisfiable", b""), whole(OLD, '"old"')) as (script, http):
            leave_part(tmp_path / "f", OLD, url=script.url)
            await http.download("/f", tmp_path / "f", resume=True)

        assert (tmp_path / "f").read_bytes() == OLD


class TestSameFile:
    async def test_it_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """A part under the same validator is completed by the rest alone."""
        async with scripted(rest_of(OLD, '"old"')) as (script, http):
            leave_part(tmp_path / "f", OLD[:100], url=script.url)
            seen: list[tuple[int, int | None]] = []
            await http.download("/f", tmp_path / "f", resume=True, progress=lambda *now: seen.append(now))

        assert (tmp_path / "f").read_bytes() == OLD
        assert seen == [(200, 200)]

    async def test_a_shorter_range_is_continued(self, tmp_path: Path) -> None:
        """A server may send less than what was asked for; the next request asks for the rest."""

        def piece(headers: dict[str, str]) -> bytes:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            end = min(start + 30, len(OLD))
            return partial(OLD[start:end], f"bytes {start}-{end - 1}/{len(OLD)}", 'etag: "old"')

        async with scripted(piece) as (script, http):
            leave_part(tmp_path / "f", OLD[:100], url=script.url)
            await http.download("/f", tmp_path / "f", resume=True)

        assert (tmp_path / "f").read_bytes() == OLD
        assert [request["range"] for request in script.requests] == [
            "bytes=100-",
            "bytes=130-",
            "bytes=160-",
            "bytes=190-",
        ]

    async def test_a_cut_is_continued_within_the_call(self, tmp_path: Path) -> None:
        """Each lost connection is made up for, as long as each brings something."""
        steps = [whole(OLD[:40], '"old"', length=200)]
        steps += [
            partial(OLD[at : at + 40], f"bytes {at}-199/200", 'etag: "old"', length=200 - at)
            for at in (40, 80, 120, 160)
        ]

        async with scripted(*steps, retries=1) as (script, http):
            await http.download("/f", tmp_path / "f")

        assert (tmp_path / "f").read_bytes() == OLD
        assert len(script.requests) == 5

    async def test_without_a_validator_a_cut_begins_again(self, tmp_path: Path) -> None:
        """What cannot be proven to be the same is fetched from zero, as often as retries say."""
        cut = answer("200 OK", OLD[:40], length=200)

        async with scripted(cut, answer("200 OK", NEW)) as (_, http):
            await http.download("/f", tmp_path / "f")

        assert (tmp_path / "f").read_bytes() == NEW

        async with scripted(cut, retries=2) as (script, http):
            with pytest.raises(HttpConnectionError):
                await http.download("/f", tmp_path / "g", resume=True)

        assert len(script.requests) == 3
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    async def test_a_server_that_never_gets_further(self, tmp_path: Path) -> None:
        """A cut file and ranges that are not believed end after the retries, not never."""
        answers: list[Answer] = [whole(OLD[:40], '"old"', length=200), rest_of(NEW, '"new"')] * 20

        async with scripted(*answers, retries=2) as (script, http):
            with pytest.raises(HttpConnectionError):
                await http.download("/f", tmp_path / "f")

        assert len(script.requests) < 10
        assert list(tmp_path.iterdir()) == []

    async def test_retries_0_is_one_request(self, tmp_path: Path) -> None:
        """Without retries nothing is continued within the call; what came is kept for the next."""
        path = tmp_path / "f"

        async with scripted(whole(OLD[:40], '"old"', length=200), rest_of(OLD, '"old"')) as (script, http):
            with pytest.raises(HttpConnectionError):
                await http.download("/f", path, resume=True, retries=0)

            assert len(script.requests) == 1
            assert (tmp_path / "f.part").read_bytes() == OLD[:40]
            await http.download("/f", path, resume=True, retries=0)

        assert path.read_bytes() == OLD


class TestOneAnswer:
    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(partial(NEW[:100], "bytes 0-99/240"), id="an unasked part"),
            pytest.param(partial(NEW, "bytes 0-239/240"), id="an unasked part of everything"),
            pytest.param(answer("204 No Content", b""), id="no content"),
            pytest.param(answer("202 Accepted", b"later"), id="not yet"),
            pytest.param(whole(NEW[:100], length=240), id="shorter than its length"),
            pytest.param(whole(NEW, length=100), id="longer than its length"),
            pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + NEW, id="no length at all"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + NEW[:100],
                id="chunks cut off",
            ),
        ],
    )
    async def test_what_is_not_the_file_is_an_error(self, reply: bytes, tmp_path: Path) -> None:
        """A part, a promise or a piece is never saved as the file."""
        (tmp_path / "f").write_bytes(OLD)

        async with scripted(reply) as (_, http):
            with pytest.raises(HttpError):
                await http.download("/f", tmp_path / "f")

        assert (tmp_path / "f").read_bytes() == OLD
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]

    async def test_without_a_length_the_checksum_decides(self, tmp_path: Path) -> None:
        """An old server that just closes is believed when the content is right."""
        checksum = f"sha256:{hashlib.sha256(NEW).hexdigest()}"

        async with scripted(b"HTTP/1.1 200 OK\r\n\r\n" + NEW) as (_, http):
            await http.download("/f", tmp_path / "f", checksum=checksum)

        assert (tmp_path / "f").read_bytes() == NEW

    async def test_an_error_page_is_not_the_file(self, tmp_path: Path) -> None:
        """A pool that does not raise for a status raises for that of a download."""
        async with scripted(answer("404 Not Found", b"page"), raise_for_status=False) as (_, http):
            with pytest.raises(HttpStatusError):
                await http.download("/f", tmp_path / "f", raise_for_status=False)

        assert list(tmp_path.iterdir()) == []


class TestTime:
    async def test_a_long_download_outlives_the_timeout(self, tmp_path: Path) -> None:
        """While bytes arrive the download is not late, however long it takes."""

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n")

            for _ in range(12):
                writer.write(b"x")
                await asyncio.sleep(0.1)

        async with serve_raw(drip) as url, HttpPool(base_url=url, timeout=0.6) as pool:
            await pool.client.download("/f", tmp_path / "f")

        assert (tmp_path / "f").read_bytes() == b"x" * 12

    async def test_a_silent_server_is_late(self, tmp_path: Path) -> None:
        """A body that stops is an error after the timeout."""

        async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nxxx")
            await reader.read()

        async with serve_raw(stop) as url, HttpPool(base_url=url, timeout=0.2, retries=0) as pool:
            with pytest.raises(HttpTimeout):
                await pool.client.download("/f", tmp_path / "f")

        assert list(tmp_path.iterdir()) == []


class TestFile:
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

    async def test_a_big_file_that_is_cut(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """A real server's ranges complete what was cut, within the call and by the next one."""
        await http.download("/big?cut=1", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == BIG

        with pytest.raises(HttpConnectionError):
            await http.download("/big?cut=1", tmp_path / "b", resume=True, retries=0)

        have = (tmp_path / "b.part").stat().st_size
        assert have > 0
        site.ranges.clear()
        await http.download("/big?cut=1", tmp_path / "b", resume=True)
        assert (tmp_path / "b").read_bytes() == BIG
        assert site.ranges == [f"bytes={have}-"]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b"]

    async def test_two_downloads_to_one_path(self, http: HttpClient, tmp_path: Path) -> None:
        """They don't write into each other's part; each is complete when it is there."""
        path = tmp_path / "big"

        for resume in (False, True):
            await asyncio.gather(*(http.download("/big?cut=1", path, resume=resume) for _ in range(4)))
            assert path.read_bytes() == BIG
            assert [entry.name for entry in tmp_path.iterdir()] == ["big"]

    async def test_checksum(self, http: HttpClient, tmp_path: Path) -> None:
        """A wrong checksum saves nothing, also when resuming; a wrong kind is refused before."""
        for resume in (False, True):
            with pytest.raises(HttpDecodeError, match="not 0000"):
                await http.download("/big", tmp_path / "big", checksum=f"sha256:{0:064}", resume=resume)

            assert list(tmp_path.iterdir()) == []

        with pytest.raises(UsageError, match="is not like"):
            await http.download("/big", tmp_path / "big", checksum="crc:1")

    async def test_a_part_that_was_damaged_on_the_disk(self, tmp_path: Path) -> None:
        """When the checksum does not fit what an earlier call left, the file is fetched anew, once."""
        checksum = f"sha256:{hashlib.sha256(OLD).hexdigest()}"

        async with scripted(rest_of(OLD, '"old"'), whole(OLD, '"old"')) as (script, http):
            leave_part(tmp_path / "f", bytes(100), url=script.url)
            await http.download("/f", tmp_path / "f", resume=True, checksum=checksum)

        assert (tmp_path / "f").read_bytes() == OLD

    async def test_a_missing_file(self, http: HttpClient, tmp_path: Path) -> None:
        """An error status is not saved as a file."""
        with pytest.raises(HttpStatusError):
            await http.download("/status/404", tmp_path / "x")

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("resume", [False, True])
    async def test_cancelled(self, http: HttpClient, tmp_path: Path, *, resume: bool) -> None:
        """A cancelled download leaves nothing behind, or, with resume, all that it had received."""
        started = asyncio.Event()
        received = 0

        def progress(done: int, _: int | None) -> None:
            nonlocal received
            received = done
            started.set()

        task = asyncio.create_task(http.download("/big", tmp_path / "big", progress=progress, resume=resume))
        await started.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        if resume:
            assert (tmp_path / "big.part").read_bytes() == BIG[:received]
        else:
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": 'W/"a"'}, ""),
        ({}, ""),
        ({"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, ""),
        (
            {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "date": "Thu, 01 Jan 2026 00:00:00 GMT"},
            "",
        ),
        (
            {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "date": "Thu, 01 Jan 2026 00:00:01 GMT"},
            "Thu, 01 Jan 2026 00:00:00 GMT",
        ),
        ({"last-modified": "yesterday", "date": "today"}, ""),
    ],
)
def test_validators(headers: dict[str, str], expected: str) -> None:
    """Only what cannot stand for two files of the same name counts."""
    assert validator_of(headers) == expected


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"checksum": "shake_128:ab"}, "fixed length"),
            ({"checksum": "sha256:ab"}, "64 hexadecimal digits"),
            ({"checksum": b"sha256:ab"}, "is not like"),
            ({"checksum": "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="}, "64 hexadecimal"),
            ({"headers": {"Range": "bytes=1-"}}, "leave the header range out"),
            ({"progress": 3}, "plain function"),
            ({"progress": asyncio.sleep}, "plain function"),
            ({"timeout": 0}, "timeout must be"),
            ({"retries": "2"}, "retries must be"),
        ],
    )
    async def test_wrong_ones_are_refused_before_the_request(
        self, options: dict[str, Any], match: str, http: HttpClient, site: Site, tmp_path: Path
    ) -> None:
        """A file is not fetched only to find then that it cannot be judged."""
        with pytest.raises(UsageError, match=match):
            await http.download("/big", tmp_path / "x", **options)

        assert (site.ranges, list(tmp_path.iterdir())) == ([], [])

    async def test_a_folder_is_not_a_file(self, http: HttpClient, site: Site, tmp_path: Path) -> None:
        """It is refused before anything is sent, and not after the last byte."""
        for path in (tmp_path, Path()):
            with pytest.raises(IsADirectoryError, match="must be that of a file"):
                await http.download("/big", path)

        assert (site.ranges, list(tmp_path.iterdir())) == ([], [])

    async def test_the_name_of_a_digest_in_capitals(self, http: HttpClient, tmp_path: Path) -> None:
        """Names of digests are found in any case."""
        await http.download("/big", tmp_path / "x", checksum=f"SHA256:{hashlib.sha256(BIG).hexdigest()}")


class TestSource:
    """A date says that a file is the same only together with the URL that it is the date of."""

    DATES = (
        "last-modified: Mon, 01 Jan 2024 00:00:00 GMT",
        "date: Tue, 02 Jan 2024 00:00:00 GMT",
    )

    @pytest.mark.parametrize(
        ("first", "second", "continued"),
        [
            ({"params": {"id": 1}}, {"params": {"id": 2}}, False),
            ({"url": "/f?id=1"}, {"url": "/f?id=2"}, False),
            ({"url": "/f?id=1"}, {"params": {"id": 1}}, True),
            ({"url": "/f?id=1&sig=a&se=b"}, {"url": "/f?id=1&sig=c&se=d"}, True),
            ({"url": "/f?id=1&X-Amz-Date=a"}, {"url": "/f?id=1&X-Amz-Date=c"}, True),
        ],
    )
    async def test_a_part_belongs_to_its_query(
        self, first: dict[str, Any], second: dict[str, Any], *, continued: bool, tmp_path: Path
    ) -> None:
        """What one query left is not completed by the answer to another, signatures aside."""
        arrived = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()

            if not arrived.is_set():
                writer.write(answer("200 OK", OLD[:100], *self.DATES, length=len(OLD)))
                await arrived.wait()
            elif b"range: bytes=100-" in head:
                place = f"content-range: bytes 100-{len(OLD) - 1}/{len(OLD)}"
                writer.write(answer("206 Partial Content", OLD[100:], place, *self.DATES))
            else:
                writer.write(answer("200 OK", NEW, *self.DATES))

            await writer.drain()

        async with serve_raw(handle) as url, HttpPool(url, retries=0) as pool:
            with pytest.raises(HttpConnectionError):
                await pool.client.download(
                    path=tmp_path / "f",
                    resume=True,
                    progress=lambda *_: arrived.set(),
                    **{"url": "/f", **first},
                )

            await pool.client.download(path=tmp_path / "f", resume=True, **{"url": "/f", **second})

        assert (tmp_path / "f").read_bytes() == (OLD if continued else NEW)
