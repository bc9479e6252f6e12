"""Releases: versions, changelogs, ranges, and what a broken interface asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import release
from tools.checks._model import Failed

LOG = "# Changelog\n\n## [Unreleased]\n\n- a new thing\n\n## [0.1.0] - 2026-01-01\n\n- the first\n"


class TestChangelog:
    def test_entry(self) -> None:
        """What is unreleased gets version and date, and a new empty part is opened above it."""
        text = release.changelog_for(LOG, "0.2.0", "2026-02-03")

        assert "## [Unreleased]\n\n## [0.2.0] - 2026-02-03\n\n- a new thing\n" in text
        assert release.release_notes(text, "0.2.0") == "- a new thing"
        assert release.release_notes(text, "0.1.0") == "- the first"
        assert release.release_notes(text, "Unreleased") == ""

    def test_nothing_to_release(self) -> None:
        """A release without a word for users is refused."""
        with pytest.raises(Failed, match="nothing under"):
            release.changelog_for(release.changelog_for(LOG, "0.2.0", "2026-02-03"), "0.3.0", "2026-02-04")


class TestVersions:
    @pytest.mark.parametrize(
        ("part", "version"),
        [("current", "1.2.3"), ("patch", "1.2.4"), ("minor", "1.3.0"), ("major", "2.0.0")],
    )
    def test_bump(self, part: str, version: str) -> None:
        """One part grows, and those after it start again."""
        assert release.bump("1.2.3", part) == version

    @pytest.mark.parametrize(
        ("before", "version", "after"),
        [
            ("ws-core>=0.1,<0.2", "0.1.9", "ws-core>=0.1,<0.2"),
            ("ws-core>=0.1,<0.2", "0.2.0", "ws-core>=0.2,<0.3"),
            ("ws-core>=0.1,<0.2", "1.0.0", "ws-core>=1.0,<2.0"),
            ("ws-pool[redis,mysql]>=0.1,<0.2", "0.2.0", "ws-pool[redis,mysql]>=0.1,<0.2"),
        ],
    )
    def test_ranges_move_only_when_they_must(self, before: str, version: str, after: str) -> None:
        """A range moves when the new version of this very sibling lies outside of it."""
        assert release.widened(f'  "{before}",', "ws-core", version) == f'  "{after}",'

    def test_extras_stay(self) -> None:
        """The extras of a moved range stay."""
        moved = release.widened('"ws-pool[redis,mysql]>=0.1,<0.2"', "ws-pool", "0.2.0")

        assert moved == '"ws-pool[redis,mysql]>=0.2,<0.3"'


class TestPrepare:
    @pytest.fixture
    def packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return two distributions, one of which needs the other."""
        for name, needs in (("ws-core", ""), ("ws-pool", '"ws-core>=0.1,<0.2"')):
            place = tmp_path / name
            place.mkdir()
            text = f'[project]\nname = "{name}"\nversion = "0.1.0"\ndependencies = [{needs}]\n'
            (place / "pyproject.toml").write_text(text)
            (place / "CHANGELOG.md").write_text(LOG)

        monkeypatch.setattr(release, "PACKAGES", tmp_path)
        monkeypatch.setattr(release, "IMPORT_NAMES", {"ws-core": "ws_core", "ws-pool": "ws_pool"})
        return tmp_path

    def test_minor(self, packages: Path) -> None:
        """A minor release below 1.0 moves the ranges of those who need it, and says so."""
        told = release.prepare("ws-core", "minor")

        assert 'version = "0.2.0"' in (packages / "ws-core" / "pyproject.toml").read_text()
        assert '"ws-core>=0.2,<0.3"' in (packages / "ws-pool" / "pyproject.toml").read_text()
        assert "moved in ws-pool" in told

    def test_refused_before_anything_is_written(self, packages: Path) -> None:
        """Without a word for users nothing is changed."""
        (packages / "ws-core" / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
        before = (packages / "ws-core" / "pyproject.toml").read_text()

        with pytest.raises(Failed):
            release.prepare("ws-core", "minor")

        assert (packages / "ws-core" / "pyproject.toml").read_text() == before

    def test_dry_run(self, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It checks what a release would write, or has written before, and writes nothing."""
        given: list[tuple[list[str], dict[str, str]]] = []

        def verify(names: list[str], changelogs: dict[str, str]) -> int:
            given.append((names, changelogs))
            return 1

        monkeypatch.setattr(release, "verify", verify)
        (packages / "ws-core" / "CHANGELOG.md").write_text(LOG.partition("\n## [0.1.0]")[0])
        before = {path: path.read_text() for path in packages.rglob("*.*")}

        assert release.main(["--dry-run"]) == 1
        assert {path: path.read_text() for path in packages.rglob("*.*")} == before
        ((names, changelogs),) = given
        assert names == ["ws-core", "ws-pool"]
        assert changelogs["ws-pool"] == LOG
        assert release.release_notes(changelogs["ws-core"], "0.1.0") == "- a new thing"

    def test_dry_run_refused(self, packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An unknown name, and a changelog without a word for users, are refused; a command is needed."""
        (packages / "ws-core" / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")

        assert release.main(["--dry-run", "ws-nothing"]) == 1
        assert "no distribution 'ws-nothing'" in capsys.readouterr().err
        assert release.main(["--dry-run", "ws-core"]) == 1
        assert "nothing under" in capsys.readouterr().err

        with pytest.raises(SystemExit):
            release.main([])


class TestInterface:
    @pytest.mark.parametrize(
        ("version", "breaking", "part"),
        [("0.1.0", True, "minor"), ("1.1.0", True, "major"), ("0.1.0", False, None), ("1.1.0", False, None)],
    )
    def test_part_needed(self, version: str, breaking: bool, part: str | None) -> None:
        """A break asks for a minor version below 1.0, and for a major one from there."""
        assert release.part_needed(version, breaking=breaking) == part

    def test_import_cost(self, tmp_path: Path) -> None:
        """The cost of an import is measured in milliseconds."""
        assert 0 < release.import_cost(Path(sys.executable), "json", rounds=1) < 10_000
