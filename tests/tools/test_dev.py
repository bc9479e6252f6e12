"""The program that sets up a checkout: its answers when something is missing, and how it hands over."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from tools import dev

SOURCE = Path(dev.__file__)


class Checkout:
    """A checkout with nothing in it but the program and one distribution."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "tools" / "dev.py"
        self.program.parent.mkdir(parents=True)
        shutil.copy(SOURCE, self.program)
        (root / "packages" / "ws-core").mkdir(parents=True)
        (root / "packages" / "ws-core" / "pyproject.toml").write_text("")
        (root / ".dev").mkdir()

    def load(self) -> ModuleType:
        """Import this checkout's own copy of the program."""
        spec = importlib.util.spec_from_file_location("copied_dev", self.program)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def with_demo(self, script: str) -> Checkout:
        """Pretend that the demo's environment is finished, with a script for its program."""
        program = self.root / ".dev" / "demo" / "bin" / "wintersweet"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        copied = self.load()
        copied.mark_ready(copied.STATE / "demo", copied.fingerprint(*copied.package_files()))
        return self

    def command(self, *words: str) -> list[str]:
        """Return the command line of this checkout's program."""
        return [dev.base_python(), str(self.program), *words]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a checkout of its own."""
    return Checkout(tmp_path / "checkout")


class TestHandingOver:
    def test_arguments_output_and_exit_code(self, checkout: Checkout, tmp_path: Path) -> None:
        """The demo gets its arguments, runs where the user is, and its exit code and stdout are its own."""
        checkout.with_demo('pwd; echo "$@"; exit 7')

        done = subprocess.run(
            checkout.command("demo", "--load", "20 00"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.stdout == f"{tmp_path}\ndemo --load 20 00\n"
        assert done.returncode == 7

    def test_interrupt_reaches_the_program(self, checkout: Checkout) -> None:
        """Ctrl-C is the program's own: it decides how to end, and with which code."""
        checkout.with_demo("trap 'echo clean; exit 5' INT; echo up; while :; do sleep 0.05; done")

        with subprocess.Popen(checkout.command("demo"), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[0] == "clean\n"

        assert process.returncode == 5

    def test_a_job_in_the_background_can_be_interrupted(self) -> None:
        """A shell lets its background jobs ignore Ctrl-C; the tests of it undo that for their children."""
        code = (
            "import signal, subprocess, sys; from tools import dev; dev.listen_to_interrupts();"
            "sys.exit(subprocess.call(['sh', '-c', 'trap \"exit 9\" INT; kill -INT $$; exit 1']))"
        )
        words = ["sh", "-c", f"trap '' INT; {sys.executable} -c \"$0\"", code]

        assert subprocess.run(words, cwd=SOURCE.parents[1], check=False, timeout=30).returncode == 9


class TestMarkers:
    def test_changed_files_ask_for_an_update(self, checkout: Checkout) -> None:
        """A set-up counts as finished only for the very files that it was made for."""
        copied = checkout.load()
        before = copied.fingerprint(*copied.package_files())
        copied.mark_ready(copied.STATE / "demo", before)
        assert copied.is_ready(copied.STATE / "demo", before)

        (checkout.root / "packages" / "ws-core" / "pyproject.toml").write_text("[project]")

        after = copied.fingerprint(*copied.package_files())
        assert not copied.is_ready(copied.STATE / "demo", after)

    def test_an_interrupted_set_up_is_not_finished(self, checkout: Checkout) -> None:
        """An environment without its marker is made again."""
        (checkout.root / ".dev" / "demo" / "bin").mkdir(parents=True)
        copied = checkout.load()

        assert not copied.is_ready(copied.STATE / "demo", copied.fingerprint())

    def test_the_lock_can_be_nested(self, checkout: Checkout) -> None:
        """A step of the set-up may ask for the lock that its caller holds, and another thread waits."""
        copied = checkout.load()
        order: list[str] = []

        def other() -> None:
            with copied.set_up_lock():
                order.append("other")

        with copied.set_up_lock():
            thread = threading.Thread(target=other)
            thread.start()

            with copied.set_up_lock():
                order.append("nested")

            order.append("outer")

        thread.join()
        assert order == ["nested", "outer", "other"]


class TestMissingPrograms:
    @pytest.fixture(autouse=True)
    def nothing_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Hide every program but those that a test puts into ``tmp_path``."""
        monkeypatch.setattr(dev, "find_program", lambda _name: None)
        monkeypatch.setenv("PATH", str(tmp_path))

    def apt(self, place: Path, *, refuses: str = "nothing") -> Path:
        """Put an apt-get there that only notes how it was called, and refuses one package."""
        log = place / "log"
        program = place / "apt-get"
        says = f'case "$*" in *{refuses}*) echo "E: apt says no"; exit 100;; esac'
        program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{says}\n')
        program.chmod(0o755)
        dpkg = place / "dpkg"
        dpkg.write_text("#!/bin/sh\n")
        dpkg.chmod(0o755)
        return log

    def test_without_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without root, the exact line to run is printed and nothing is tried."""
        log = self.apt(tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)

        with pytest.raises(
            dev.Stop,
            match="redis-server, redis-sentinel, mariadb-server, postgresql, pgbouncer, prometheus, logro",
        ) as caught:
            dev.system_packages()

        assert "apt-get install --no-install-recommends -y redis-server redis-sentinel" in caught.value.remedy
        assert caught.value.remedy.startswith("Run this, then try again:  sudo sh -c '")
        assert not log.exists()

    def test_as_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """As root, exactly what is missing is installed."""
        log = self.apt(tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(dev, "find_program", lambda name: name if "redis" in name else None)

        dev.system_packages()

        installed = [line.partition(" -y ")[2] for line in log.read_text().splitlines() if " -y " in line]
        assert installed == ["mariadb-server postgresql pgbouncer prometheus logrotate", "chromium"]

    def test_without_a_browser(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A distribution whose apt has no browser can run all other tests."""
        self.apt(tmp_path, refuses="chromium")
        monkeypatch.setattr(os, "geteuid", lambda: 0)

        dev.system_packages()

        assert "tests that need a browser are skipped" in capsys.readouterr().err

    def test_apt_fails(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """When apt fails, what it said is shown."""
        self.apt(tmp_path, refuses="mariadb-server")
        monkeypatch.setattr(os, "geteuid", lambda: 0)

        with pytest.raises(dev.Stop, match="exit code 100 from: apt-get"):
            dev.system_packages()

        assert "apt says no" in capsys.readouterr().err

    def test_without_apt(self) -> None:
        """Where there is no apt, the names of what is missing are printed."""
        with pytest.raises(dev.Stop, match="missing: redis-server") as caught:
            dev.system_packages()

        assert "no apt here" in caught.value.remedy


class TestAnswers:
    def test_unknown_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The error of a wrong command lists the right ones, with exit code 2."""
        assert dev.main(["tset"]) == 2
        assert "unknown command 'tset': use one of demo, test" in capsys.readouterr().err

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Help is on stdout and is not a failure."""
        assert dev.main(["--help"]) == 0
        assert "tools/dev.py demo" in capsys.readouterr().out

    def test_too_old(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """A Python that is too old gets one clear message."""
        monkeypatch.setattr(dev, "NEEDED_PYTHON", (9, 9))

        assert dev.main(["test"]) == 1
        assert "and wintersweet needs 9.9 or newer" in capsys.readouterr().err

    def test_not_writable(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A checkout that cannot be written to gets one clear message."""
        (tmp_path / "file").touch()
        monkeypatch.setattr(dev, "STATE", tmp_path / "file" / ".dev")

        assert dev.main(["demo"]) == 1
        assert "cannot write to" in capsys.readouterr().err

    def test_unknown_benchmark(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The error of a wrong benchmark lists the right ones."""
        assert dev.main(["bench", "nonsense"]) == 1
        assert "there is no benchmark 'nonsense'" in capsys.readouterr().err

    def test_offline(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A failed step shows its whole output, and names the network where that may be the reason."""
        with pytest.raises(dev.Stop, match="exit code 2 from: ") as caught:
            dev.run(["sh", "-c", "echo half; echo no route >&2; exit 2"], network=True)

        assert "online" in caught.value.remedy
        assert capsys.readouterr().err == "half\nno route\n\n"

    def test_no_such_program(self) -> None:
        """A step whose program does not exist ends in one clear message."""
        with pytest.raises(dev.Stop, match="cannot start /no/such: No such file"):
            dev.run(["/no/such"])
