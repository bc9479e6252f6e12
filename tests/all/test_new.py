"""``wintersweet new``: a project that runs and passes its own tests at once."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.all._support import TIMEOUT, environment, running, until, wintersweet
from wintersweet._cli import new
from wintersweet._cli import template as template_module
from wintersweet._cli.new import check_name, check_parts
from ws_core.errors import ConfigError

pytestmark = pytest.mark.deployment


# What each is made with; `check scaffold` looks at the files of more.
PROJECTS = {"meadow": "", "flower-shop": "ws,tasks,auth,postgres"}


@pytest.fixture(scope="module", params=PROJECTS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new project."""
    parent = tmp_path_factory.mktemp("new")
    outcome = wintersweet("new", request.param, "--with", PROJECTS[request.param], cwd=parent)
    assert (outcome.status, outcome.out) == (0, "")
    assert f"cd {request.param}" in outcome.said

    return parent / str(request.param)


@pytest.fixture
def servers(project: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the environment that names the servers of a project that needs some, with its tables."""
    if not PROJECTS[project.name]:
        return {}

    return {
        "WS_DATABASES__default__url": request.getfixturevalue("postgres_url"),
        "WS_REDIS_CONFIG__default__url": request.getfixturevalue("redis_url"),
    }


class TestProject:
    """What the command has written."""

    def test_no_placeholder_is_left(self, project: Path) -> None:
        """Every name was filled in, in the files and in their names, and nothing is of parts left out."""
        files = [path for path in project.rglob("*") if path.is_file()]
        package = project.name.replace("-", "_")
        parts = {path.stem for path in (project / package).iterdir()} & {"auth", "live", "jobs"}

        assert project / package / "app.py" in files
        assert parts == ({"auth", "live", "jobs"} if PROJECTS[project.name] else set())
        assert not [
            path
            for path in files
            if re.search(r"(?<!\$)\{\{|\{%|NAME|PACKAGE", path.read_text() + path.name)
            or path.suffix == ".tmpl"
        ]

    def test_its_tests_pass(self, project: Path) -> None:
        """The tests of the project pass, with nothing but pytest and no servers, warnings being errors."""
        options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert ("11 passed" if PROJECTS[project.name] else "4 passed") in done.stdout

    def test_its_readme_names_what_is_there(self, project: Path) -> None:
        """Each file that it names exists."""
        named = re.findall(r"^\| (`.*?`) \|", (project / "README.md").read_text(), re.MULTILINE)
        paths = [path for cell in named for path in re.findall(r"`([^`]+)`", cell)]

        assert len(paths) >= 8
        assert not [path for path in paths if not (project / path).exists()]

    def test_it_runs(self, project: Path, servers: dict[str, str]) -> None:
        """Its revision makes its tables, all of them; the server serves them, and ends cleanly."""
        assert wintersweet("db", "upgrade", cwd=project, env=servers).status == 0
        # What Alembic would change now, it writes into the next revision: nothing.
        made = wintersweet("db", "revision", "-m", "nothing", "--rev-id", "0002", cwd=project, env=servers)
        assert made.status == 0, made.err
        path = project / "migrations" / "versions" / "0002_nothing.py"
        assert path.read_text().count("    pass\n") == 2
        path.unlink()

        with running("run", "--port", "0", cwd=project, env=servers) as process:
            assert process.stderr is not None
            stderr = process.stderr
            urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))

            with urllib.request.urlopen(f"{urls[0]}/notes") as reply:
                assert json.load(reply)["data"] == []

            process.terminate()
            assert process.wait(TIMEOUT) == 0

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

    def test_its_example_of_an_environment(self, project: Path) -> None:
        """As .env it turns DEBUG on, under which the servers come from wheels; the settings say so."""
        shutil.copy(project / ".env.example", project / ".env")
        checked = wintersweet("check", "--json", cwd=project)
        (project / ".env").unlink()
        answer = checked.json()
        reached = {one["name"]: one["detail"] for one in answer["reached"]}
        reached.pop("LOGGING_CONFIG")

        assert (checked.status, answer["ok"]) == (0, True)
        assert answer["settings"]["DEBUG"] == {"value": True, "source": ".env"}
        assert reached == (
            {
                "DATABASES.default": "embedded PostgreSQL, in .wintersweet/postgres-default",
                "REDIS_CONFIG.default": "embedded Valkey, in .wintersweet/valkey-default",
            }
            if PROJECTS[project.name]
            else {"DATABASES.default": ""}
        )


class TestParts:
    """What a project can be made with."""

    @pytest.mark.parametrize("parts", ["kafka", "redis,kafka", "redis postgres"])
    def test_an_unknown_part(self, tmp_path: Path, parts: str) -> None:
        """The parts that there are are listed, and nothing is written."""
        outcome = wintersweet("new", "shop", "--with", parts, cwd=tmp_path)

        assert (outcome.status, outcome.out) == (2, "")
        assert "choose from redis, mysql, postgres, ws, tasks, auth" in outcome.said
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ("", []),
            ("auth", ["auth", "redis"]),
            ("redis, ws ,redis", ["redis", "ws"]),
            ("postgres,mysql", ["postgres", "mysql"]),
        ],
    )
    def test_what_is_read(self, given: str, found: list[str]) -> None:
        """Each part once, with the Redis that it needs."""
        assert check_parts(given) == found

    def test_of_two_databases_the_first_is_the_default(self, tmp_path: Path) -> None:
        """The other one is a pool of its own name, in the settings and in the compose file."""
        made = new.create("shop", tmp_path, ["mysql", "postgres"])
        settings = runpy.run_path(str(made / "shop" / "settings.py"))
        compose = yaml.safe_load((made / "compose.yaml").read_text())

        assert settings["DATABASES"] == {
            "default": {"url": "mysql://app:app@localhost:3306/shop"},
            "postgres": {"url": "postgresql://app:app@localhost:5432/shop"},
        }
        assert compose["services"]["web"]["environment"] == {
            "WS_PROCESS_NUM": "2",
            "WS_DATABASES__default__url": "mysql://app:${MYSQL_PASSWORD:-app}@mysql/shop",
            "WS_DATABASES__postgres__url": "postgresql://app:${POSTGRES_PASSWORD:-app}@postgres/shop",
        }


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
        monkeypatch.setattr(template_module, "files", lambda _: tmp_path)
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
        monkeypatch.setattr(template_module, "files", lambda _: tmp_path)

        with pytest.raises(ConfigError, match=r"dead\.tmpl: No such file .*; nothing was left behind"):
            new.create("shop", tmp_path)

        assert not (tmp_path / "shop").exists()
