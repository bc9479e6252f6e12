"""Nothing is lost: however the process ends, whatever the disk does, whoever forks or rotates."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.logging._accounts import accounts, check, check_order, finish, launch, read, run

Hold = Callable[[Path], AbstractContextManager[None]]

# The twin: it forgets its queue when stopped, as the first version of the library did.
BROKEN = "QueuedFileSink.stop = lambda self: None\n"


def until(process: subprocess.Popen[str], word: str) -> None:
    """Wait until a program has said a word."""
    assert process.stdout is not None

    for line in process.stdout:
        if line.strip() == word:
            return

    pytest.fail(f"it ended without saying {word}: {process.communicate()}")


class TestEnds:
    """How a process ends."""

    @pytest.mark.parametrize(
        ("ending", "code"),
        [("", 0), ("sys.exit(3)", 3), ("raise ValueError('uncaught')", 1), ("handle.close()", 0)],
    )
    def test_every_message_is_there(self, tmp_path: Path, ending: str, code: int) -> None:
        """After return, sys.exit, an uncaught exception, close."""
        program = f"handle = start()\nfor thread in threads(4, 2000): thread.join()\n{ending}\n"
        run(tmp_path, program, code)
        check(tmp_path, writers=4, each=2000)
        check_order(tmp_path)

    def test_threads_that_outlive_main(self, tmp_path: Path) -> None:
        """The interpreter waits for them, and the drain comes after."""
        run(tmp_path, "start()\nthreads(4, 2000)\n")
        check(tmp_path, writers=4, each=2000)

    def test_a_hook_that_runs_after_ours(self, tmp_path: Path) -> None:
        """Atexit calls in reverse: a hook registered earlier still finds a log."""
        run(tmp_path, "atexit.register(work, 'late', 100)\nstart()\nwork('early', 100)\n")
        check(tmp_path, writers=2, each=100)

    def test_daemon_threads_that_never_stop(self, tmp_path: Path) -> None:
        """What they log is cut off somewhere, but without holes, and main's is all there."""
        run(tmp_path, "start()\nthreads(2, 10**9, daemon=True)\nwork('main', 3000)\n")
        found = accounts(tmp_path)
        (main,) = [numbers for (_, thread), numbers in found.items() if thread == "main"]
        assert main == list(range(3000))

        for numbers in found.values():
            assert numbers == list(range(len(numbers)))

    def test_os_exit_after_flush(self, tmp_path: Path) -> None:
        """The one end that runs no hooks: flush first."""
        run(tmp_path, "handle = start()\nwork('a', 5000)\nassert handle.flush(30)\nos._exit(0)\n")
        check(tmp_path, writers=1, each=5000)


class TestSignals:
    """SIGTERM while 20,000 messages wait, because the disk is slow."""

    PROGRAM = "handle = start()\nwork('a', 20000)\nsay('queued')\nsys.stdin.read()\n"

    def end(self, tmp_path: Path, hold: Hold, program: str, *signals: int, code: int) -> str:
        """Let the messages wait, send the signals, and let the disk go on."""
        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "queued")

            for number in signals:
                process.send_signal(number)

            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)  # it waits for the disk, it has not given up

        return finish(process, code)[1]

    def test_sigterm(self, tmp_path: Path, hold: Hold) -> None:
        """All are written, and the process dies of the signal as it would have."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    def test_a_second_sigterm_changes_nothing(self, tmp_path: Path, hold: Hold) -> None:
        """An impatient supervisor loses nothing."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGTERM, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    def test_sigint(self, tmp_path: Path, hold: Hold) -> None:
        """KeyboardInterrupt ends the process in the normal way."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGINT, code=-signal.SIGINT)
        check(tmp_path, writers=1, each=20000)

    def test_somebody_elses_handler(self, tmp_path: Path, hold: Hold) -> None:
        """A handler that was there is left alone; it exits, and the drain comes at exit."""
        program = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + self.PROGRAM
        self.end(tmp_path, hold, program, signal.SIGTERM, code=7)
        check(tmp_path, writers=1, each=20000)

    def test_in_the_middle_of_logging(self, tmp_path: Path) -> None:
        """The signal interrupts the caller itself; what was logged so far is there without holes."""
        process = launch(tmp_path, "start()\nsay('go')\nwork('a', 10**9)\n")
        until(process, "go")

        while not (tmp_path / "app.log").stat().st_size:
            pass

        process.send_signal(signal.SIGTERM)
        finish(process, -signal.SIGTERM)
        (numbers,) = accounts(tmp_path).values()
        assert numbers == list(range(len(numbers)))

    def test_sigkill_loses_the_queue_at_most(self, tmp_path: Path) -> None:
        """What was flushed stays, no line is torn, and what is there has no holes."""
        program = "handle = start()\nwork('a', 5000)\nhandle.flush(30)\nsay('flushed')\nwork('b', 10**9)\n"
        process = launch(tmp_path, program)
        until(process, "flushed")
        process.kill()
        finish(process, -signal.SIGKILL)

        for (_, thread), numbers in accounts(tmp_path).items():
            assert numbers == list(range(len(numbers)))
            assert thread != "a" or len(numbers) == 5000

    def test_the_broken_twin_is_found_out(self, tmp_path: Path, hold: Hold) -> None:
        """A sink that does not drain fails these very checks."""
        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, BROKEN + self.PROGRAM)
            until(process, "queued")
            process.send_signal(signal.SIGTERM)
            finish(process, -signal.SIGTERM)

        with pytest.raises(AssertionError):
            check(tmp_path, writers=1, each=20000)


class TestProcesses:
    """Several processes, one file."""

    @pytest.mark.parametrize("compression", [None, "gz"])
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
        assert all(path.name.endswith(".log.gz" if compression else ".log") for path in rotated)
        assert all(path.stat().st_size <= 60_000 for path in rotated)

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


class TestForks:
    """Children have a log of their own, and nothing of their parent's."""

    def test_children_of_multiprocessing(self, tmp_path: Path) -> None:
        """Forked while threads are logging; all of the parent's and of the children's is there, once."""
        run(
            tmp_path,
            "start()\n"
            "busy = threads(3, 4000)\n"
            "context = multiprocessing.get_context('fork')\n"
            "children = [context.Process(target=work, args=('child', 300)) for _ in range(8)]\n"
            "for child in children: child.start()\n"
            "for child in children: child.join()\n"
            "assert [child.exitcode for child in children] == [0] * 8\n"
            "for thread in busy: thread.join()\n",
        )
        found = accounts(tmp_path)
        children = [numbers for (_, thread), numbers in found.items() if thread == "child"]
        assert [sorted(numbers) for numbers in children] == [list(range(300))] * 8
        parent = [numbers for (_, thread), numbers in found.items() if thread != "child"]
        assert [sorted(numbers) for numbers in parent] == [list(range(4000))] * 3

    def test_bare_fork_with_a_full_queue(self, tmp_path: Path, hold: Hold) -> None:
        """The child does not write its parent's queue a second time."""
        program = (
            "handle = start()\n"
            "work('a', 2000)\n"
            "if os.fork() == 0:\n"
            "    work('child', 10)\n"
            "    handle.flush(60)\n"
            "    os._exit(0)\n"
            "say('forked')\n"
            "os.wait()\n"
        )

        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "forked")

        finish(process)
        found = {thread: numbers for (_, thread), numbers in accounts(tmp_path).items()}
        assert found == {"a": list(range(2000)), "child": list(range(10))}


class TestDisk:
    """What the disk does not take now is written later, once."""

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """/dev/full takes nothing; when there is room again all is written, and stderr was told once."""
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
        assert err.count("trouble with the log file") == 1
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
        """Removed and made again by somebody: the log goes on."""
        place = tmp_path / "logs"
        program = (
            "import shutil\n"
            "directory = directory / 'logs'\n"
            "handle = start()\n"
            "work('a', 10)\n"
            "handle.flush(30)\n"
            "shutil.rmtree(directory)\n"
            "work('b', 10)\n"
            "assert not handle.flush(0.2)\n"
            "directory.mkdir()\n"
        )
        run(tmp_path, program)
        assert len(read(place)) == 10
