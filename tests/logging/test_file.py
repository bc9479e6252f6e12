"""The file beneath the sink: followed, rotated, filled to the byte, and never left with half a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logging._accounts import balanced, lines
from ws_logging import LogFileRotator
from ws_logging._file import RotatingFile


class Clock:
    """Time as a test wants it."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> Any:
        """Tell it."""
        return self.now


class TestRotatingFile:
    """The file beneath: two of them stand for two processes."""

    @pytest.fixture
    def pair(self, tmp_path: Path) -> Iterator[Any]:
        """Two writers of one file, with one clock."""
        clock = Clock(10 * 86400.0 - 10)

        def new(cls: type[RotatingFile] = RotatingFile, **options: Any) -> Any:
            file = cls(tmp_path / "app.log", clock=clock, **options)
            opened.append(file)
            return file

        opened: list[RotatingFile] = []
        yield new, clock

        for file in opened:
            file.close()

    def test_midnight_is_seen_once(self, pair: Any, tmp_path: Path) -> None:
        """Whoever writes first after midnight rotates, the other follows; also one that was just started."""
        new, clock = pair
        rotator = LogFileRotator(None, "00:00", tz=__import__("datetime").UTC)
        one, two = new(rotator=rotator), new(rotator=rotator)
        one.append([b"a\n"])
        two.append([b"b\n"])
        clock.now += 20
        assert len(two.append([b"c\n"])[2]) == 1
        assert one.append([b"d\n"])[2] == []
        three = new(rotator=rotator)
        assert three.append([b"e\n"])[2] == []
        assert lines(tmp_path / "app.log") == ["c", "d", "e"]
        clock.now += 86400
        assert len(three.append([b"f\n"])[2]) == 1
        assert (one.rotations, two.rotations, three.rotations) == (0, 1, 1)

    def test_a_file_of_unknown_age(self, pair: Any, tmp_path: Path) -> None:
        """Without a note in the sidecar the time of the last write counts."""
        new, clock = pair
        path = tmp_path / "app.log"
        path.write_text("old\n")
        os.utime(path, (0, clock.now - 86400))
        rotator = LogFileRotator(None, "00:00", tz=__import__("datetime").UTC)
        assert len(new(rotator=rotator).append([b"new\n"])[2]) == 1
        assert lines(path) == ["new"]

    def test_names_do_not_collide(self, pair: Any, tmp_path: Path) -> None:
        """Rotations within one microsecond get numbers, compressed ones count too."""
        new, _ = pair
        file = new(rotator=LogFileRotator(4), compression="gz")

        for _ in range(4):
            file.tidy(file.append([b"abc\n"])[2])

        names = sorted(path.name for path in tmp_path.glob("app.*.gz"))
        assert len(names) == 3
        assert names[0].endswith("_000000.2.log.gz")

    def test_retention_by_age(self, pair: Any, tmp_path: Path) -> None:
        """Files last written before the limit go; what is not ours stays."""
        new, clock = pair
        file = new(rotator=LogFileRotator(4), retention=timedelta(days=1))
        (tmp_path / "app.notes.log").touch()
        rotated = file.append([b"abc\n", b"def\n", b"ghi\n"])[2]
        os.utime(rotated[0], (0, clock.now - 90000))
        os.utime(rotated[1], (0, clock.now - 80000))
        file.tidy(rotated)
        assert [path.exists() for path in rotated] == [False, True]
        assert (tmp_path / "app.notes.log").exists()

    def test_tidying_reports_trouble_at_the_end(
        self, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One file that cannot be dealt with does not keep the others."""
        new, _ = pair
        file = new(rotator=LogFileRotator(4), compression="gz", retention=0)
        rotated = file.append([b"abc\n", b"def\n", b"ghi\n"])[2]
        rotated[0].unlink()
        monkeypatch.setattr("gzip.open", lambda *_, **__: (_ for _ in ()).throw(OSError("no room")))

        with pytest.raises(OSError, match="no room"):
            file.tidy(rotated)

        monkeypatch.undo()
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("read-only")))

        with pytest.raises(OSError, match="read-only"):
            file.tidy([tmp_path / "app.log"])

    def test_trouble_with_tidying_is_counted(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The lines are safe; stderr has a report."""
        monkeypatch.setattr(RotatingFile, "tidy", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
        sink = make(rotation=LogFileRotator(4))

        for _ in range(3):
            sink.put(b"abc\n")

        sink.stop()
        assert balanced(sink).written == 3
        assert "read-only" in balanced(sink).last_error

    def test_the_broken_twin_loses_lines(self, pair: Any, tmp_path: Path) -> None:
        """A writer that does not look whether its file is still the one of that name."""

        class Broken(RotatingFile):
            def _follow(self, adding: int) -> Any:
                return None

        new, _ = pair
        one, two = new(rotator=LogFileRotator(4), compression="gz"), new(Broken)
        two.append([b"one\n"])
        one.tidy(one.append([b"two\n"])[2])
        two.append([b"six\n"])
        found = lines(tmp_path / "app.log")
        assert "six" not in found

    def test_short_writes(self, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The system may take less than it was given."""
        new, _ = pair
        file = new()
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        assert file.append([b"abcdef\n", b"ghijkl\n"]) == (2, None, [])
        assert lines(tmp_path / "app.log") == ["abcdef", "ghijkl"]

    def test_a_half_line_is_taken_back(
        self, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that nobody else's line is glued to it."""
        new, _ = pair
        one, two = new(), new()
        real, calls = os.write, []

        def failing(fd: int, data: Any) -> Any:
            calls.append(1)

            if len(calls) > 1:
                raise OSError(28, "No space left on device")

            return real(fd, data[:10])

        monkeypatch.setattr(os, "write", failing)
        done, error, _ = one.append([b"abcdef\n", b"ghijkl\n"])
        monkeypatch.undo()
        assert (done, error and error.errno) == (1, 28)
        two.append([b"other\n"])
        assert one.append([b"ghijkl\n"])[0] == 1
        assert lines(tmp_path / "app.log") == ["abcdef", "other", "ghijkl"]

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(5, 60))
    def test_no_file_is_larger_than_it_may_be(
        self, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
    ) -> None:
        """Whatever the lines are, unless a single line is longer; and all lines are there, in order."""
        directory = tmp_path_factory.mktemp("log")
        file = RotatingFile(directory / "app.log", rotator=LogFileRotator(limit), clock=Clock())
        text = [b"x" * (size - 1) + b"\n" for size in sizes]
        done, error, rotated = file.append(text)
        file.close()
        assert (done, error) == (len(text), None)
        files = [*rotated, directory / "app.log"]
        assert b"".join(path.read_bytes() for path in files) == b"".join(text)

        for path in files:
            content = path.read_bytes()
            assert len(content) <= limit or content.count(b"\n") == 1
