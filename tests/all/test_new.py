"""``wintersweet new``: a project that runs and passes its own tests at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.all._support import environment, running, until, wintersweet
from wintersweet._cli import new
from wintersweet._cli.new import check_name
from ws_core.errors import ConfigError

pytestmark = pytest.mark.deployment


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a new project."""
    parent = tmp_path_factory.mktemp("new")
    outcome = wintersweet("new", "flower-shop", cwd=parent)
    assert (outcome.status, outcome.out) == (0, "")
    assert "cd flower-shop && wintersweet run" in outcome.said

    return parent / "flower-shop"


class TestProject:
    """What the command has written."""

    def test_no_placeholder_is_left(self, project: Path) -> None:
        """Every name was filled in, in the files and in their names."""
        files = [path for path in project.rglob("*") if path.is_file()]

        assert project / "flower_shop" / "app.py" in files
        assert not [path for path in files if "{{" in path.read_text() or path.suffix == ".tmpl"]

    def test_its_tests_pass(self, project: Path) -> None:
        """The tests of the project pass, with nothing but pytest, warnings being errors."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-W",
                "error",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:asyncio",
            ],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "4 passed" in done.stdout

    def test_it_runs(self, project: Path) -> None:
        """The server serves what the application routes, and ends cleanly on SIGTERM."""
        with running("run", "--port", "0", cwd=project) as process:
            assert process.stderr is not None
            stderr = process.stderr
            urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))

            with urllib.request.urlopen(f"{urls[0]}/notes") as reply:
                assert json.load(reply)["data"] == []

            process.terminate()
            assert process.wait(20) == 0

    def test_its_routes_are_listed(self, project: Path) -> None:
        """The routes of the project's application are found without naming it."""
        listed = wintersweet("routes", "--json", cwd=project)
        paths = {(line["methods"], line["path"]) for line in listed.json()["routes"]}

        assert {
            ("GET", "/notes"),
            ("POST", "/notes"),
            ("GET", "/notes/{number}"),
            ("GET", "/readyz"),
        } <= paths

    def test_its_settings_are_checked(self, project: Path) -> None:
        """The settings module is the source, and the database can be reached."""
        checked = wintersweet("check", "--json", cwd=project)
        answer = checked.json()

        assert (checked.status, answer["ok"]) == (0, True)
        assert answer["settings"]["DATABASES.default.url"] == {
            "value": "sqlite:///flower_shop.db",
            "source": "module",
        }
        assert [one["name"] for one in answer["reached"]] == ["LOGGING_CONFIG", "DATABASES.default"]


class TestNames:
    """What may name a project."""

    @pytest.mark.parametrize("name", ["", "Shop", "1shop", "my shop", "a--b", "-a", "../x", "a/b"])
    def test_a_name_that_is_no_package_is_refused(self, name: str) -> None:
        """The message says what a name looks like."""
        with pytest.raises(ConfigError, match="cannot name a project: use lower-case letters"):
            check_name(name)

    def test_a_word_of_python_is_refused(self) -> None:
        """No module can have such a name."""
        with pytest.raises(ConfigError, match="'class' cannot name a project: it is a word of Python"):
            check_name("class")

    @pytest.mark.parametrize("name", ["json", "wintersweet", "tests", "ws-pool"])
    def test_a_name_that_hides_a_module_is_refused(self, name: str) -> None:
        """A project must not stand in front of a module in use."""
        with pytest.raises(ConfigError, match=f"'{name}' would hide the module"):
            check_name(name)

    def test_an_existing_directory_is_left_alone(self, tmp_path: Path) -> None:
        """Nothing is written over."""
        (tmp_path / "shop").mkdir()
        outcome = wintersweet("new", "shop", cwd=tmp_path)

        assert (outcome.status, outcome.out) == (2, "")
        assert "shop exists already: choose another name, or remove it" in outcome.said
        assert list((tmp_path / "shop").iterdir()) == []


class TestTemplate:
    """From the template to the project."""

    def test_caches_are_not_copied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What tools have left in the template stays there; the rest is there, under its own names."""
        package = tmp_path / "template" / "PACKAGE"
        (package / "__pycache__").mkdir(parents=True)
        (package / "__pycache__" / "app.pyc").write_bytes(b"\xff")
        (package / "app.py.tmpl").write_text("NAME = '{{ name }}'\n")
        monkeypatch.setattr(new, "files", lambda _: tmp_path)
        made = new.create("my-shop", tmp_path)

        assert [path.relative_to(made) for path in made.rglob("*") if path.is_file()] == [
            Path("my_shop/app.py")
        ]
        assert (made / "my_shop" / "app.py").read_text() == "NAME = 'my-shop'\n"

    def test_what_cannot_be_finished_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No half a project is left when something cannot be read or written."""
        template = tmp_path / "template"
        template.mkdir()
        (template / "dead.tmpl").symlink_to(tmp_path / "nowhere")
        monkeypatch.setattr(new, "files", lambda _: tmp_path)

        with pytest.raises(ConfigError, match=r"dead\.tmpl: No such file .*; nothing was left behind"):
            new.create("shop", tmp_path)

        assert not (tmp_path / "shop").exists()
