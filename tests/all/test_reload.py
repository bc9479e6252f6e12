"""``wintersweet run --reload``: a server started anew when a source file changes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.all._support import TIMEOUT, WORD_APP, running, until
from wintersweet._cli.reload import Reloader, changed, snapshot

pytestmark = pytest.mark.deployment

KILLED = """
import contextlib, os, pathlib
from ws_web import create_app

@contextlib.asynccontextmanager
async def lifespan(app):
    pathlib.Path("new").write_text(str(os.getpid()))
    os.rename("new", "begun")
    yield
    pathlib.Path("ended").touch()

def create():
    return create_app(lifespan=lifespan)
"""


class TestReload:
    """Starting anew when a source file changes."""

    def test_a_change_is_served(self, tmp_path: Path) -> None:
        """The new text is served after the file was written, and SIGINT ends with 130."""
        source = tmp_path / "words.py"
        source.write_text(WORD_APP)

        with running("run", "words:create", "--reload", "--port", "0", cwd=tmp_path) as process:
            stderr = process.stderr
            assert stderr is not None
            urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))

            with urllib.request.urlopen(f"{urls[0]}/word") as reply:
                assert json.load(reply)["data"] == "WORD"

            source.write_text(WORD_APP.replace("WORD", "OTHER"))
            urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))

            with urllib.request.urlopen(f"{urls[0]}/word") as reply:
                assert json.load(reply)["data"] == "OTHER"

            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130

    def test_a_killed_parent(self, tmp_path: Path) -> None:
        """SIGKILL leaves no server behind: its lifespan ends in order, and the process with it."""
        (tmp_path / "words.py").write_text(KILLED)

        with running("run", "words:create", "--reload", "--port", "0", cwd=tmp_path) as process:
            pid = int(until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text()))
            server = psutil.Process(pid)
            process.kill()
            server.wait(TIMEOUT)
            assert (tmp_path / "ended").exists()

    def test_what_counts_as_a_change(self, tmp_path: Path) -> None:
        """New, changed and removed sources count; environments, hidden directories and dead links do not."""
        for name in ("a.py", "b.py", "text.txt"):
            (tmp_path / name).touch()

        for hidden in (".git", "__pycache__", "venv"):
            (tmp_path / hidden).mkdir()
            (tmp_path / hidden / "c.py").touch()

        (tmp_path / "venv" / "pyvenv.cfg").touch()
        (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
        before = snapshot(tmp_path)
        assert sorted(path.name for path in before) == ["a.py", "b.py"]

        (tmp_path / "a.py").unlink()
        os.utime(tmp_path / "b.py", (1, 1))
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "d.py").touch()

        assert [path.name for path in changed(before, snapshot(tmp_path))] == ["a.py", "b.py", "d.py"]

    def test_a_child_that_does_not_stop_is_killed(self, tmp_path: Path) -> None:
        """The grace ends; so does the child."""
        deaf = tmp_path / "deaf"
        code = (
            "import pathlib, signal, sys, time; signal.signal(15, signal.SIG_IGN);"
            "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
        )
        reloader = Reloader([sys.executable, "-c", code, str(deaf)], tmp_path, say=lambda _: None, grace=0.2)
        child = reloader._start()
        until(deaf.exists)
        reloader._end(child)

        assert child.returncode == -signal.SIGKILL

    def test_a_child_that_has_ended_is_left_alone(self, tmp_path: Path) -> None:
        """Its own status stays: it is not signalled any more."""
        reloader = Reloader([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, say=lambda _: None)
        child = reloader._start()
        child.wait()
        reloader._end(child)

        assert child.returncode == 3

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
    def test_a_change_is_told_until_a_signal_comes(
        self, tmp_path: Path, number: signal.Signals, status: int
    ) -> None:
        """The changed file is named, the signal decides the status, and the handlers from before are back."""
        told: list[str] = []

        def say(line: str) -> None:
            told.append(line)
            signal.raise_signal(number)

        before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
        code = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
        command = [sys.executable, "-c", code, str(tmp_path / "new.py")]

        assert Reloader(command, tmp_path, say=say, look=0.01).run() == status
        assert told == ["new.py changed: starting anew"]
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
