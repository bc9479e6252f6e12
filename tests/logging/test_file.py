"""The file beneath the sink: followed, rotated, filled to the byte, and never left with half a line."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import Clock
from tests.logging._accounts import balanced, lines
from ws_logging import LogFileRotator
from ws_logging._file import RotatingFile


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
        """The first process to write after midnight rotates, others follow, one just started too."""
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

    def test_retention_by_total_size(self, pair: Any, tmp_path: Path) -> None:
        """The oldest go until all files together, the live one included, are small enough."""
        new, clock = pair
        file = new(rotator=LogFileRotator(100), total_size=350)

        for _ in range(8):
            file.append([b"x" * 89 + b"\n", b"y" * 9 + b"\n"])
            clock.now += 1

        file.tidy([])

        assert sum(path.stat().st_size for path in tmp_path.glob("app*.log")) == 300
        assert len(list(tmp_path.glob("app.*.log"))) == 2

    def test_a_removed_sidecar(self, pair: Any, tmp_path: Path) -> None:
        """Two writers keep each other out by the same sidecar, also when somebody has removed it."""
        new, _ = pair
        one, two = new(), new()
        one.append([b"a\n"])
        (tmp_path / "app.log.lock").unlink()
        two.append([b"b\n"])
        one.append([b"c\n"])

        with two._locked(), (tmp_path / "app.log.lock").open("rb") as other:
            assert os.fstat(one._lock_fd).st_ino == os.fstat(two._lock_fd).st_ino

            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_follower_looks_at_the_size(self, pair: Any, tmp_path: Path) -> None:
        """A file that another process has rotated, and filled again, is not written beyond its size."""
        new, clock = pair
        rotator = LogFileRotator(100)
        one, two = new(rotator=rotator), new(rotator=rotator)
        two.append([b"-" * 79 + b"\n"])

        for _ in range(3):
            one.append([b"x" * 79 + b"\n"])
            clock.now += 1

        two.append([b"y" * 79 + b"\n"])

        assert {path.stat().st_size for path in tmp_path.glob("app*.log")} == {80}

    def test_a_clock_that_was_wrong(self, pair: Any, tmp_path: Path) -> None:
        """A file that was begun in 2030, by a wrong clock, is rotated on the next day all the same."""
        new, clock = pair
        now = clock.now
        clock.now += 4 * 365 * 86400
        rotator = LogFileRotator(None, "00:00", tz=UTC)
        new(rotator=rotator).append([b"a\n"])
        os.utime(tmp_path / "app.log", (clock.now, clock.now))
        clock.now = now
        file = new(rotator=rotator)
        file.append([b"b\n"])
        clock.now += 86400

        assert len(file.append([b"c\n"])[2]) == 1

    def test_a_rotation_that_is_refused(
        self, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lines go on into the same file; the reason is kept, and a minute later it is tried again."""
        new, clock = pair
        file = new(rotator=LogFileRotator(100))
        refused = PermissionError("sticky directory")

        def refuse(*_: object) -> None:
            raise refused

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            result = file.append([b"x" * 79 + b"\n"] * 5)

        assert (result, file.refused) == ((5, None, []), refused)
        assert (tmp_path / "app.log").stat().st_size == 400
        clock.now += 61
        assert len(file.append([b"y\n"])[2]) == 1

    @pytest.mark.parametrize("compression", [None, "gz", "zst"])
    def test_modes_survive(self, pair: Any, tmp_path: Path, compression: str | None) -> None:
        """The mode that an administrator has given the file is that of its successors."""
        new, _ = pair
        file = new(rotator=LogFileRotator(10), compression=compression)
        file.append([b"x" * 9 + b"\n"])
        (tmp_path / "app.log").chmod(0o640)
        rotated = file.append([b"y\n"])[2]
        file.tidy(rotated)

        assert {
            path.stat().st_mode & 0o777 for path in tmp_path.glob("app*.log*") if path.suffix != ".lock"
        } == {0o640}

    @pytest.mark.parametrize("ending", ["gz", "zst"])
    def test_what_a_killed_process_has_left(self, pair: Any, tmp_path: Path, ending: str) -> None:
        """Half a compressed file goes, and the one that it was made of is compressed after all."""
        new, _ = pair
        name = "app.2026-01-31_00-00-00_000000.log"
        old = time.time() - 3600

        for path in (tmp_path / name, tmp_path / f"{name}.{ending}.part"):
            path.write_bytes(b"x\n")
            os.utime(path, (old, old))

        (tmp_path / f"app.2026-02-01_00-00-00_000000.log.{ending}.part").write_bytes(b"")  # in the making
        new(compression=ending).tidy([])

        assert {path.name for path in tmp_path.iterdir()} == {
            f"{name}.{ending}", f"app.2026-02-01_00-00-00_000000.log.{ending}.part",
        }  # fmt: skip

    def test_the_age_is_looked_at_without_a_rotation(
        self, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that has grown too old is deleted by a sink that does not rotate at all."""
        monkeypatch.setattr("ws_logging._queued_sink.TIDY_EVERY", 0.0)
        old = tmp_path / "app.2020-01-31_00-00-00_000000.log"
        old.write_bytes(b"x\n")
        os.utime(old, (0, 0))
        sink = make(retention=timedelta(days=1))
        sink.put(b"a\n")
        sink.stop()

        assert not old.exists()

    def test_tidying_reports_trouble_at_the_end(
        self, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One file that cannot be dealt with does not keep the others."""
        new, _ = pair
        file = new(rotator=LogFileRotator(4), compression="gz", retention=0)
        rotated = file.append([b"abc\n", b"def\n", b"ghi\n"])[2]
        rotated[0].unlink()
        monkeypatch.setattr("gzip.GzipFile", lambda *_, **__: (_ for _ in ()).throw(OSError("no room")))

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
