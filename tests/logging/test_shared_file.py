"""Several processes and one file, and a disk that does not take what it should."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.logging._accounts import accounts, check, check_order, finish, launch, read, run, until


class TestProcesses:
    """Several processes, one file."""

    @pytest.mark.parametrize("compression", [None, "gz", "zst"])
    def test_rotation_by_size(self, tmp_path: Path, compression: str | None) -> None:
        """Eight processes rotate and compress one another's file; every line is in exactly one."""
        program = (
            f"start(file_rotation=LogFileRotator(60_000), file_retention=None, compression={compression!r})\n"
            "for thread in threads(2, 1000): thread.join()\n"
        )
        processes = [launch(tmp_path, program) for _ in range(8)]

        for process in processes:
            finish(process)

        check(tmp_path, writers=16, each=1000)
        rotated = [path for path in tmp_path.iterdir() if path.name not in ("app.log", "app.log.lock")]
        assert len(rotated) > 10
        assert all(path.name.endswith(f".log.{compression}" if compression else ".log") for path in rotated)
        assert all(path.stat().st_size <= 60_000 for path in rotated)

    @pytest.mark.parametrize("compression", ["gz", "zst"])
    def test_everything_at_once(self, tmp_path: Path, compression: str) -> None:
        """Eight processes, full files, days that end, compression, retention, a stranger who renames."""
        program = (
            "rotator = LogFileRotator(40_000, '00:00:00')\n"
            "handle = start(file_rotation=rotator, file_retention=500, file_total_size=2**30,\n"
            f"    compression={compression!r})\n"
            # The clocks differ: some are before midnight, others after it.
            "handle._sinks[0]._file._clock = lambda: time.time() + (os.getpid() % 2) * 86_400\n"
            "for thread in threads(2, 500): thread.join()\n"
        )
        processes = [launch(tmp_path, program) for _ in range(8)]
        moved = 0

        # Five times and no more: a third of what is written, so that files become full too.
        while moved < 5 and any(process.poll() is None for process in processes):
            time.sleep(0.02)

            with suppress(FileNotFoundError):
                (tmp_path / "app.log").rename(tmp_path / f"moved.{moved}.log")
                moved += 1

        for process in processes:
            finish(process)

        check(tmp_path, writers=16, each=500)
        assert moved > 3
        assert len(list(tmp_path.glob(f"app.*.log.{compression}"))) > 3

    def test_retention(self, tmp_path: Path) -> None:
        """As many rotated files as were asked for, and the newest ones."""
        program = "start(file_rotation=LogFileRotator(10_000), file_retention=3)\nwork('a', 3000)\n"
        processes = [launch(tmp_path, program) for _ in range(3)]

        for process in processes:
            finish(process)

        assert len(list(tmp_path.glob("app.*.log"))) == 3

    @pytest.mark.parametrize("first", ["", "work('b', 10)\n"])
    def test_logging_while_the_interpreter_ends(self, tmp_path: Path, first: str) -> None:
        """When no thread can be started any more, lines are written and files tidied all the same."""
        program = (
            "start(file_rotation=LogFileRotator(10_000), file_retention=None, compression='gz')\n"
            f"{first}atexit.register(work, 'a', 2000)\n"
        )

        assert run(tmp_path, program) == ""
        found = {thread: sorted(numbers) for (_, thread), numbers in accounts(tmp_path).items()}
        assert found["a"] == list(range(2000))
        assert {path.suffix for path in tmp_path.glob("app.*.log*")} == {".gz"}

    def test_renamed_by_somebody_else(self, tmp_path: Path) -> None:
        """Logrotate's way: rename, and the writer follows to a new file."""
        process = launch(
            tmp_path, "start()\nwork('a', 1000)\nsay('half')\nsys.stdin.readline()\nwork('b', 1000)\n"
        )
        until(process, "half")
        (tmp_path / "app.log").rename(tmp_path / "old.log")
        finish_with(process, "go\n")
        check(tmp_path, writers=2, each=1000)
        assert (tmp_path / "app.log").stat().st_size > 0

    def test_copied_and_truncated_by_somebody_else(self, tmp_path: Path) -> None:
        """Logrotate's copytruncate: the writer goes on at the new end, without a hole of zeros."""
        process = launch(
            tmp_path,
            "h = start()\nwork('a', 1000)\nh.flush()\nsay('half')\nsys.stdin.readline()\nwork('b', 1000)\n",
        )
        until(process, "half")
        (tmp_path / "copy.log").write_bytes((tmp_path / "app.log").read_bytes())
        (tmp_path / "app.log").write_bytes(b"")
        finish_with(process, "go\n")
        check(tmp_path, writers=2, each=1000)


def finish_with(process: subprocess.Popen[str], text: str) -> None:
    """Send a text to a program, and wait for its end."""
    _, err = process.communicate(text, timeout=120)
    assert process.returncode == 0, err


class TestDisk:
    """What the disk does not take now is written later, once."""

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """/dev/full takes nothing; when there is room again all is written, and stderr had one report."""
        program = (
            "(directory / 'app.log').symlink_to('/dev/full')\n"
            "handle = start()\n"
            "work('a', 1000)\n"
            "assert not handle.flush(0.3)\n"
            "assert handle.statistics().file.failing\n"
            "assert 'No space left' in handle.statistics().file.last_error\n"
            "(directory / 'app.log').unlink()\n"
            "work('b', 1000)\n"
            "assert handle.flush(30)\n"
            "file = handle.statistics().file\n"
            "assert (file.accepted, file.written, file.dropped, file.failing) == (2000, 2000, 0, False)\n"
        )
        err = run(tmp_path, program)
        assert err.count("trouble with the log") == 1
        check(tmp_path, writers=2, each=1000)

    def test_a_size_limit_in_the_middle_of_a_line(self, tmp_path: Path) -> None:
        """RLIMIT_FSIZE makes writes short, then fail; what was begun is taken back, nothing doubles."""
        program = (
            "handle = start()\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_001, resource.RLIM_INFINITY))\n"
            "work('a', 2000)\n"
            "assert not handle.flush(0.3)\n"
            "assert (directory / 'app.log').read_bytes().endswith(b'\\n')\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        )
        run(tmp_path, program)
        check(tmp_path, writers=1, each=2000)
        check_order(tmp_path)

    def test_a_tiny_disk(self, tmp_path: Path) -> None:
        """A file system that is full in the middle of a batch; when it is made larger, nothing is lost."""
        place = tmp_path / "disk"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]

        if subprocess.run(words, check=False, capture_output=True, timeout=60).returncode:
            pytest.skip("needs the right to mount a file system")

        try:
            program = (
                "directory = directory / 'disk'\nhandle = start()\nwork('a', 3000)\n"
                "assert not handle.flush(0.5)\n"
                "assert handle.statistics().file.failing\nsay('full')\nsys.stdin.readline()\n"
                "assert handle.flush(30)\n"
            )
            process = launch(tmp_path, program)
            until(process, "full")
            subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True, timeout=60)
            err = finish(process, answer="\n")[1]
            assert "No space left" in err
            check(place, writers=1, each=3000)
            check_order(place)
        finally:
            subprocess.run(["umount", str(place)], check=True, timeout=60)

    def test_interrupted_writes(self, tmp_path: Path) -> None:
        """Signals that arrive all the time cost nothing of a batch."""
        program = (
            "signal.signal(signal.SIGALRM, lambda *_: None)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n"
            "start()\nwork('a', 3000)\nsignal.setitimer(signal.ITIMER_REAL, 0)\n"
        )
        run(tmp_path, program)
        check(tmp_path, writers=1, each=3000)
        check_order(tmp_path)

    def test_a_disk_that_never_heals(self, tmp_path: Path) -> None:
        """The process ends all the same, in time, and says how many lines are lost."""
        program = (
            "(directory / 'app.log').symlink_to('/dev/full')\n"
            "sink = QueuedFileSink(directory / 'app.log', stop_timeout=0.3)\n"
            "number = logger.add(sink, format='{message}')\n"
            "work('a', 10)\n"
            "logger.remove(number)\n"
            "s = sink.statistics()\n"
            "assert (s.accepted, s.written, s.dropped, s.pending) == (10, 0, 10, 0), s\n"
        )
        err = run(tmp_path, program)
        assert "10 log lines could not be written" in err
        assert "No space left" in err

    def test_a_directory_that_vanishes(self, tmp_path: Path) -> None:
        """Removed by somebody: it is made again, and the log goes on there."""
        place = tmp_path / "logs"
        program = (
            "import shutil\n"
            "directory = directory / 'logs'\n"
            "handle = start()\n"
            "work('a', 10)\n"
            "handle.flush(30)\n"
            "shutil.rmtree(directory)\n"
            "work('b', 10)\n"
            "assert handle.flush(30)\n"
        )
        run(tmp_path, program)
        assert len(read(place)) == 10
