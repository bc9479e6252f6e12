"""The checks: each must fail for what it is there to find."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.checks import _conformance, _pages, _static, _suites, _tree, _wheels
from tools.checks.__main__ import run_all, select
from tools.checks._model import Check, Failed, command


def hold() -> None:
    """Do nothing, which is a check that holds."""


def fail() -> None:
    """Find a problem."""
    raise Failed("it does not hold")


class TestSelect:
    checks = (
        Check("lint", hold),
        Check("wheels:build", hold),
        Check("alone:a", hold, needs=("wheels:build",)),
    )

    def test_nothing_means_all(self) -> None:
        """Without names every check is run."""
        assert select(self.checks, []) == list(self.checks)

    def test_groups_and_needs(self) -> None:
        """The name of a group picks all of it, and what it needs comes along."""
        assert [check.name for check in select(self.checks, ["alone"])] == ["wheels:build", "alone:a"]

    def test_unknown_name(self) -> None:
        """The error of a wrong name lists the right ones."""
        with pytest.raises(Failed, match="no check 'lnt': choose from lint, wheels, alone"):
            select(self.checks, ["lnt"])


class TestRunAll:
    def test_outcomes(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A failed check and a broken one are reported, and the others go on."""

        def broken() -> None:
            raise ZeroDivisionError

        outcomes = run_all([Check("a", fail), Check("b", broken), Check("c", hold)], workers=1)

        problems = {outcome.check.name: outcome.problem for outcome in outcomes}
        assert problems["a"] == "it does not hold"
        assert problems["b"] is not None
        assert "ZeroDivisionError" in problems["b"]
        assert problems["c"] is None
        assert "✗ a" in capsys.readouterr().out

    def test_needs_end_first(self) -> None:
        """A check starts after those that it needs, even when it is the longest."""
        built = threading.Event()
        seen: list[bool] = []
        checks = [
            Check("late", lambda: seen.append(built.is_set()), cost=100, needs=("build",)),
            Check("build", built.set, cost=1),
        ]

        run_all(checks, workers=2)

        assert seen == [True]


class TestCommand:
    def test_failure_shows_everything(self) -> None:
        """A failed program shows both of its outputs and how it was called."""
        with pytest.raises(Failed, match=r"out\nerr\nexit code 3: sh -c"):
            command(["sh", "-c", "echo out; echo err >&2; exit 3"])

    def test_ends_what_hangs(self) -> None:
        """A program that does not end is ended, and its output so far is shown."""
        with pytest.raises(Failed, match=r"begun\n\nnot done after 1 s"):
            command(["sh", "-c", "echo begun; exec sleep 60"], timeout=1)


class TestStatic:
    def test_each_run_of_mypy_has_its_own_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Checks run side by side, and two that begin one cache at the same time break."""
        caches: list[str] = []

        def note(words: Sequence[str]) -> str:
            caches.append(words[words.index("--cache-dir") + 1])
            return "Success"

        monkeypatch.setattr(_static, "command", note)

        for check in _static.static_checks():
            if check.name.startswith("mypy:"):
                check.run()

        assert len(set(caches)) == len(caches) == 2


class TestTree:
    def test_long_files(self) -> None:
        """Files past the limit are refused, files near it are named."""
        lengths = {Path("a"): 601, Path("b"): 600, Path("c"): 501, Path("d"): 500}

        assert _tree.oversized(lengths) == ([(Path("b"), 600), (Path("c"), 501)], [(Path("a"), 601)])

    def test_tests_are_no_longer_than_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limit is one for all: a file of tests past it is refused as well."""
        path = tmp_path / "tests/pool/test_all.py"
        path.parent.mkdir(parents=True)
        monkeypatch.setattr(_tree, "ROOT", tmp_path)
        monkeypatch.setattr(_tree, "tracked_files", lambda: [path])
        path.write_text("\n" * 600)
        assert _tree.check_sizes() == "look again at tests/pool/test_all.py (600)"
        path.write_text("\n" * 601)

        with pytest.raises(Failed, match=r"tests/pool/test_all\.py: 601 lines, 600 at most"):
            _tree.check_sizes()

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            ("__all__ = ('a', 'a')", "__all__ names something twice"),
            ("__all__ = ('_a',)", "__all__ names the private _a"),
            ("__all__ = ['a']", "__all__ is a list: write a tuple"),
            ("import os", "there is no __all__"),
            ("__all__: list[str] = []", "__all__ is a list: write a tuple"),
        ],
    )
    def test_exports(self, source: str, problem: str) -> None:
        """An `__all__` that is missing, a list, or names what it should not is found."""
        assert _tree.misplaced_exports(source) == [problem]

    def test_good_exports(self) -> None:
        """A tuple of public names is right, and so is a package that holds nothing but its text."""
        assert _tree.misplaced_exports("__all__ = ('a', '__version__')") == []
        assert _tree.misplaced_exports("__all__: tuple[str, ...] = ()") == []
        assert _tree.misplaced_exports('"""Only a text."""') == []

    def test_stray_words(self) -> None:
        """The host of a registry is found with its line, and similar words are not."""
        text = "fine\nsee https://" + "pypi." + "org/project\nmypypi." + "orgs\n"

        assert _tree.stray_words(text) == [(2, "pypi." + "org")]

    def test_forgotten_extra(self) -> None:
        """An extra that no environment installs is found."""
        environment = {"workspace": {"members": [{"path": "packages/ws-pool", "features": ["redis"]}]}}

        assert _tree.extras_missing({"redis", "motor"}, environment, "packages/ws-pool") == ["motor"]


class TestPages:
    original = "# One\n```python\n# not a heading\nx = 1  # why\n```\n## Two\n"

    def test_in_step(self) -> None:
        """A translation may translate headings, prose and comments."""
        translated = "# 一\n文\n```python\n# 注\nx = 1  # 因\n```\n## 二\n"

        assert _pages.translation_problems(self.original, translated) == []

    @pytest.mark.parametrize(
        ("translated", "problem"),
        [
            ("# 一\n```python\nx = 2\n```\n## 二\n", "code block 1 differs"),
            ("# 一\n```python\nx = 1\n```\n### 二\n", "levels differ"),
            ("# 一\n## 二\n", "1 code blocks became 0"),
        ],
    )
    def test_out_of_step(self, translated: str, problem: str) -> None:
        """Other code, other headings and missing blocks are found."""
        assert problem in _pages.translation_problems(self.original, translated)


class TestWheels:
    @pytest.mark.parametrize(
        "requirement",
        [
            "ws-core",
            "ws-core>=0.1",
            "ws-core<0.2",
            "ws-core==0.1.0",
            "ws-core>=0.2,<0.3",
            "ws-core>=0.0.1,<0.1",
        ],
    )
    def test_wrong_pins(self, requirement: str) -> None:
        """A sibling without both bounds, or whose present version lies outside, is found."""
        assert len(_wheels.sibling_problems([requirement], {"ws-core": "0.1.0"})) == 1

    def test_right_pins(self) -> None:
        """A range with extras and any other distribution are right."""
        requirements = ["ws-pool[mysql,redis]<0.2,>=0.1", "redis"]

        assert _wheels.sibling_problems(requirements, {"ws-pool": "0.1.9"}) == []


class TestSuites:
    def test_a_machine_with_one_python(self) -> None:
        """Where there is only one Python, both runs use it."""
        assert _suites.choose(["3.12"]) == ("3.12", "3.12")

    def test_found_pythons_are_what_they_say(self) -> None:
        """Every Python that is found has the version it is found for."""
        found = _suites.find_pythons()

        assert found
        for version, path in found.items():
            assert (
                command([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip() == version
            )


class TestConformance:
    def test_the_page(self) -> None:
        """A suite's figures replace those before, and the date changes with them."""
        page = _conformance.written(_conformance.HEAD, "a", "1 passed", "2026-01-01")
        page = _conformance.written(page, "b", "1 passed", "2026-01-02")
        assert _conformance.written(page, "a", "1 passed", "2026-02-02") == page
        changed = _conformance.written(page, "a", "2 passed", "2026-02-02")
        assert changed == page.replace("2026-01-01", "2026-02-02").replace("1 passed", "2 passed", 1)

    def test_a_suite_that_fails(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its differences are shown, and the page stays as it was."""
        monkeypatch.setattr(_conformance, "PAGE", tmp_path / "page.md")

        with pytest.raises(Failed, match="No module named"):
            _conformance.run_suite("nothing")

        assert not (tmp_path / "page.md").exists()
