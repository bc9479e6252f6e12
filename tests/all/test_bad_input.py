"""Wrong input to the real command line: one clear message, a status, no traceback, nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.all._support import Outcome, wintersweet
from tools.servers import PortReservation

DEMO = ("demo", "--load", "1", "--stock", "1", "--exit")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the directory in which commands make their temporary files."""
    # Not below tmp_path: with a long number of the run, a socket in it has no room for its name.
    with tempfile.TemporaryDirectory(prefix="ws-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


@pytest.fixture
def taken() -> Iterator[int]:
    """Yield a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def deaf() -> Iterator[int]:
    """Yield a port that nobody listens on, nor will meanwhile."""
    with PortReservation() as reservation:
        yield reservation.port


def check_refused(outcome: Outcome, *parts: str, status: int = 2) -> None:
    """Check that a command was refused with one message that has all these parts."""
    assert outcome.out == ""
    assert outcome.status == status, outcome.err
    assert "Traceback" not in outcome.err
    assert "Error" not in outcome.err.replace("─ Error ─", "")
    assert len(outcome.said) < 600, outcome.err

    for part in parts:
        assert part in outcome.said


@pytest.mark.deployment
class TestDemo:
    """``wintersweet demo`` cannot start."""

    def test_a_wrong_settings_module(self, temporary: Path) -> None:
        """The module is named."""
        outcome = wintersweet(*DEMO, env={"WINTERSWEET_SETTINGS_MODULE": "no.such.settings"})

        check_refused(outcome, "no.such.settings", "WINTERSWEET_SETTINGS_MODULE")
        assert list(temporary.iterdir()) == []

    @pytest.mark.parametrize(
        ("variable", "url", "parts"),
        [
            ("WS_DATABASES__default__url", "oracle://scott@db/shop", ["DATABASES.default", "oracle"]),
            ("WS_DATABASES__default__url", "mysql://root@localhost:99999/x", ["DATABASES.default", "99999"]),
            ("WS_DATABASES__default__url", "", ["DATABASES.default"]),
            ("WS_REDIS_CONFIG__default__url", "http://localhost", ["REDIS_CONFIG.default", "http"]),
            ("WS_DATABASES__default__colour", "red", ["DATABASES.default", "colour"]),
            (
                "WS_DATABASE__default__url",
                "mysql://root@db/x",
                ["no setting DATABASE (environment)", "did you mean DATABASES?"],
            ),
        ],
    )
    def test_a_wrong_setting(self, temporary: Path, variable: str, url: str, parts: Sequence[str]) -> None:
        """The setting and its value are named."""
        check_refused(wintersweet(*DEMO, env={variable: url}), *parts)
        assert list(temporary.iterdir()) == []

    def test_a_database_without_default(self, temporary: Path) -> None:
        """The demo says which pool it needs."""
        outcome = wintersweet(*DEMO, env={"WS_DATABASES__orders__url": "mysql://root@localhost/x"})

        check_refused(outcome, "DATABASES has no pool 'default'", "orders")
        assert list(temporary.iterdir()) == []

    @pytest.mark.parametrize(
        ("variable", "url"),
        [
            ("WS_DATABASES__default__url", "mysql://root:hunter2@127.0.0.1:{port}/shop"),
            ("WS_REDIS_CONFIG__default__url", "redis://:hunter2@127.0.0.1:{port}/0"),
        ],
    )
    def test_a_server_that_is_not_there(self, temporary: Path, deaf: int, variable: str, url: str) -> None:
        """The address is named, and the password is not."""
        outcome = wintersweet(*DEMO, env={variable: url.format(port=deaf)})

        check_refused(outcome, str(deaf), status=1)
        assert "hunter2" not in outcome.err
        assert list(temporary.iterdir()) == []

    def test_an_occupied_port(self, temporary: Path, taken: int) -> None:
        """The port and the option are named, before anything is started."""
        outcome = wintersweet("demo", "--port", str(taken))

        check_refused(outcome, f"127.0.0.1:{taken} is in use by another program", "choose another --port")
        assert list(temporary.iterdir()) == []

    def test_a_host_that_is_not_ours(self, temporary: Path) -> None:
        """The host and the option are named."""
        check_refused(wintersweet("demo", "--host", "192.0.2.7"), "192.0.2.7", "--host")
        assert list(temporary.iterdir()) == []

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path, temporary: Path) -> None:
        """The directory and the option are named."""
        (tmp_path / "file").touch()
        outcome = wintersweet(*DEMO, "--state-dir", str(tmp_path / "file" / "below"))

        check_refused(outcome, str(tmp_path / "file" / "below"), "--state-dir")
        assert list(temporary.iterdir()) == []

    @pytest.mark.skipif(
        os.geteuid() == 0 and shutil.which("setpriv") is None,
        reason="root may write everywhere, and setpriv is not there to give that up",
    )
    def test_no_permission_to_write(self, tmp_path: Path) -> None:
        """A directory of another one is named."""
        tmp_path.chmod(0o500)

        try:
            outcome = wintersweet(*DEMO, "--state-dir", str(tmp_path / "state"), unprivileged=True)
        finally:
            tmp_path.chmod(0o700)

        check_refused(outcome, f"cannot write into {tmp_path / 'state'}", "Permission denied", "--state-dir")

    @pytest.mark.parametrize(
        ("module", "variable", "url", "extra"),
        [
            ("aiomysql", "WS_DATABASES__default__url", "mysql://root@localhost/x", "ws-pool[mysql]"),
            ("asyncmy", "WS_DATABASES__default__url", "mysql+asyncmy://root@localhost/x", "ws-pool[asyncmy]"),
            (
                "psycopg",
                "WS_DATABASES__default__url",
                "postgresql+psycopg://root@localhost/x",
                "ws-pool[psycopg]",
            ),
            ("elasticsearch", "WS_ES_CONFIG__default__url", "http://localhost:9200", "ws-pool[es]"),
        ],
    )
    def test_a_missing_library(
        self, tmp_path: Path, temporary: Path, module: str, variable: str, url: str, extra: str
    ) -> None:
        """The setting and what to install are named."""
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
        outcome = wintersweet(*DEMO, env={variable: url, "PYTHONPATH": str(tmp_path)})

        check_refused(outcome, variable.removeprefix("WS_").partition("__")[0], f"pip install '{extra}'")
        assert list(temporary.iterdir()) == []

    def test_a_section_whose_server_is_not_there(self, temporary: Path, deaf: int) -> None:
        """Other sections of the settings are tried by the workers, and reported once."""
        outcome = wintersweet(*DEMO, env={"WS_MONGO_CONFIG__default__url": f"mongodb://127.0.0.1:{deaf}/x"})

        check_refused(outcome, f"127.0.0.1:{deaf}", status=1)
        assert list(temporary.iterdir()) == []

    def test_an_unknown_option(self) -> None:
        """The option is named."""
        check_refused(wintersweet("demo", "--wrokers", "2"), "No such option", "--wrokers", "--workers")

    @pytest.mark.parametrize(
        ("option", "value", "wanted"),
        [("--workers", "many", "valid integer"), ("--port", "70000", "65535")],
    )
    def test_a_wrong_value(self, option: str, value: str, wanted: str) -> None:
        """The option is named, with what it takes."""
        check_refused(wintersweet("demo", option, value), f"Invalid value for '{option}'", wanted)

    def test_nothing_runs_on(self, temporary: Path, taken: int) -> None:
        """After a refusal no process of the command is left."""
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        wintersweet("demo", "--port", str(taken))

        assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


class TestOtherCommands:
    """The other commands cannot do their work."""

    def test_an_unknown_command(self) -> None:
        """The command is named."""
        check_refused(wintersweet("dmeo"), "No such command 'dmeo'")

    def test_run_without_an_application(self, tmp_path: Path) -> None:
        """Both ways to name one are shown."""
        check_refused(wintersweet("run", cwd=tmp_path), "MODULE:NAME", "[tool.wintersweet]")

    @pytest.mark.parametrize(
        ("target", "parts"),
        [
            ("shop", ["'shop' does not name an application", "MODULE:NAME"]),
            ("nowhere.app:create", ["there is no module nowhere.app"]),
            ("json:nothing", ["module json has no application or function 'nothing'"]),
            ("broken:app", ["cannot import broken", "needs the module not_there"]),
        ],
    )
    def test_an_application_that_is_not_there(
        self, tmp_path: Path, target: str, parts: Sequence[str]
    ) -> None:
        """What was typed is named, with what is wrong with it."""
        (tmp_path / "broken.py").write_text("import not_there")
        check_refused(wintersweet("run", target, cwd=tmp_path), *parts)

    def test_routes_of_something_else(self, tmp_path: Path) -> None:
        """A function that does not return an application is an error that names its type."""
        (tmp_path / "thing.py").write_text("def create():\n    return 42\n")
        check_refused(
            wintersweet("routes", "thing:create", cwd=tmp_path), "thing:create returns a int, not a FastAPI"
        )

    def test_run_on_an_occupied_port(self, tmp_path: Path, taken: int) -> None:
        """The address and the setting are named."""
        (tmp_path / "web.py").write_text(
            "from ws_web import create_app\n\n\ndef create():\n    return create_app()\n"
        )
        outcome = wintersweet("run", "web:create", "--port", str(taken), cwd=tmp_path)

        check_refused(outcome, f"127.0.0.1:{taken} is in use", status=1)

    def test_reload_with_several_workers(self, tmp_path: Path) -> None:
        """Options that exclude each other are an error."""
        check_refused(
            wintersweet("run", "a:b", "--reload", "--workers", "2", cwd=tmp_path), "--reload", "--workers 2"
        )

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("[tool.wintersweet\n", ["cannot read", "pyproject.toml"]),
            ("[tool.wintersweet]\nappp = 'a:b'\n", ["[tool.wintersweet] has app and settings, not 'appp'"]),
            ("[tool.wintersweet]\napp = 5\n", ["app in [tool.wintersweet] must be a string, not 5"]),
        ],
    )
    def test_a_broken_pyproject(self, tmp_path: Path, text: str, parts: Sequence[str]) -> None:
        """The file and the entry are named."""
        (tmp_path / "pyproject.toml").write_text(text)
        check_refused(wintersweet("check", cwd=tmp_path), *parts)

    def test_check_with_a_wrong_settings_module(self, tmp_path: Path) -> None:
        """The module is named."""
        outcome = wintersweet("check", cwd=tmp_path, env={"WINTERSWEET_SETTINGS_MODULE": "no.such.settings"})

        check_refused(outcome, "no.such.settings")

    @pytest.mark.skipif(
        os.geteuid() == 0 and shutil.which("setpriv") is None,
        reason="root may write everywhere, and setpriv is not there to give that up",
    )
    def test_new_without_permission(self, tmp_path: Path) -> None:
        """The directory is named, and nothing is left behind."""
        tmp_path.chmod(0o500)

        try:
            outcome = wintersweet("new", "shop", cwd=tmp_path, unprivileged=True)
        finally:
            tmp_path.chmod(0o700)

        check_refused(outcome, f"cannot create {tmp_path / 'shop'}", "Permission denied")
        assert list(tmp_path.iterdir()) == []
