"""``wintersweet db``: what is wrong is said, and nothing is half done. What works: the page on migrations."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from tests.all._support import wintersweet
from wintersweet._cli import migrations, new
from ws_core.errors import ConfigError, MissingExtraError, UsageError
from ws_web.conf import settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project, and be in it."""
    made = new.create(f"p{tmp_path.name.replace('_', '-')[:40].rstrip('-')}", tmp_path)
    monkeypatch.chdir(made)
    # What `use` sets is this test's alone.
    monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", f"{made.name.replace('-', '_')}.settings")
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings.use(None)
    return made


class TestInit:
    """The directory is made once, for tables that are there."""

    def test_of_a_project_that_has_migrations(self, project: Path) -> None:
        """Nothing is written over."""
        before = (project / "migrations" / "env.py").read_text()

        with pytest.raises(ConfigError, match="migrations exists already"):
            migrations.init(None)

        assert (project / "migrations" / "env.py").read_text() == before

    @pytest.mark.parametrize("named", ["json:metadata", "nowhere.tables:metadata", "json:dumps"])
    def test_of_tables_that_are_not_there(self, tmp_path: Path, named: str) -> None:
        """The message says how to name them, and nothing is made."""
        outcome = wintersweet("db", "init", "--metadata", named, cwd=tmp_path)

        assert outcome.status == 2
        assert f"{named} is not a MetaData of SQLAlchemy: name yours with --metadata" in outcome.said
        assert not list(tmp_path.iterdir())

    def test_without_a_project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody knows whose tables are meant."""
        monkeypatch.chdir(tmp_path)

        with pytest.raises(UsageError, match="which tables"):
            migrations.init(None)

    def test_where_nothing_can_be_written(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the directory."""
        monkeypatch.setattr(Path, "mkdir", refuse)

        with pytest.raises(ConfigError, match=r"cannot create .*migrations: Permission denied"):
            migrations.init(None)

    def test_a_broken_module_is_the_users(self, project: Path) -> None:
        """What the tables need and is not there is not taken for tables that are not there."""
        (project / "broken.py").write_text("import not_there_at_all\n")

        with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
            migrations.init("broken:metadata")


def refuse(*_: object, **__: object) -> None:
    """Be a directory of somebody else."""
    raise PermissionError(13, "Permission denied")


class TestMoves:
    """What ran, and where the database is now."""

    def test_up_and_down(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each revision is a line, and the last line is the state; nothing to do is said."""
        (document,) = (project / "migrations" / "versions").glob("0001*.py")
        title = document.read_text().splitlines()[0].strip('"')

        def said() -> list[str]:
            return capsys.readouterr().out.splitlines()

        migrations.upgrade("head", pool="default")
        assert said() == [f"upgrade base -> 0001: {title}", "the database is at 0001 (head)"]

        migrations.revision("more", empty=True, identifier="0002", pool="default")
        said()
        migrations.upgrade("+1", pool="default")
        assert said() == ["upgrade 0001 -> 0002: more", "the database is at 0002 (head)"]

        migrations.upgrade("head", pool="default")
        assert said() == ["nothing to do: the database is at 0002 (head)"]

        migrations.downgrade("base", pool="default")
        assert said() == [
            "downgrade 0002 -> 0001: more",
            f"downgrade 0001 -> base: {title}",
            "the database is at base, before the first revision",
        ]

    def test_a_revision_that_fails(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The last line names it, and nothing is said of a state that was not reached."""
        migrations.upgrade("head", pool="default")
        migrations.revision("breaks", empty=True, identifier="0002", pool="default")
        (path,) = (project / "migrations" / "versions").glob("0002*.py")
        path.write_text(path.read_text().replace("pass", "raise RuntimeError('no')", 1))
        capsys.readouterr()
        handlers = [*logging.getLogger("alembic.runtime.migration").handlers]

        with pytest.raises(RuntimeError, match="no"):
            migrations.upgrade("head", pool="default")

        assert capsys.readouterr().out == "upgrade 0001 -> 0002: breaks\n"
        assert logging.getLogger("alembic.runtime.migration").handlers == handlers


class TestErrors:
    """Each has its remedy."""

    def test_an_unknown_pool(self, project: Path) -> None:
        """The pools that there are are named."""
        with pytest.raises(ConfigError, match=r"no pool 'orders' \(it has: default\)"):
            migrations.upgrade("head", pool="orders")

    def test_an_unknown_revision(self, project: Path) -> None:
        """Alembic's message goes on with where to look."""
        with pytest.raises(UsageError, match=r"Can't locate revision .*: the files in versions"):
            migrations.upgrade("0815", pool="default")

    def test_a_database_that_is_behind(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A revision is made from the newest state only; after the upgrade it can be."""
        with pytest.raises(UsageError, match=r"not up to date.*: wintersweet db upgrade"):
            migrations.revision("more", empty=False, identifier="0002", pool="default")

        migrations.upgrade("head", pool="default")
        migrations.revision("more", empty=True, identifier="0002", pool="default")
        capsys.readouterr()
        migrations.current(pool="default")

        assert capsys.readouterr().out == "0001\n"
        assert (project / "migrations" / "versions" / "0002_more.py").exists()

    def test_no_migrations(self, project: Path) -> None:
        """The message names the command that makes them."""
        (project / "migrations").rename(project / "elsewhere")

        with pytest.raises(UsageError, match="wintersweet db init"):
            migrations.downgrade("-1", pool="default")

    def test_no_alembic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message says what to install."""
        monkeypatch.setitem(sys.modules, "alembic", None)
        monkeypatch.delitem(sys.modules, "wintersweet._cli.migrations")

        with pytest.raises(MissingExtraError, match="pip install alembic"):
            import wintersweet._cli.migrations  # noqa: F401
