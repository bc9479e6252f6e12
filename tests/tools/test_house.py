"""The checks of words and walls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.checks import _house
from tools.checks._model import Failed

FUNCTION = '''
def f(x):
    """
    Do.

    Args:
        x: It.
    """
'''
CLASS = '''
class A:
    """
    It.

    Args:
        x: It.
    """

    def g(self):
        """
        Do.

        Returns:
            It.
        """

    def _h(self):
        """
        Do.

        Raises:
            E: It.
        """
'''


class TestForms:
    """Args, Returns and Raises are for users."""

    def test_private(self) -> None:
        """Functions, classes and methods of a private module are found, with their lines."""
        assert _house.private_forms(FUNCTION, frozenset()) == [(2, "f")]
        assert _house.private_forms(CLASS, frozenset()) == [(2, "A"), (10, "A.g"), (18, "A._h")]

    def test_exported(self) -> None:
        """A class that a public module hands on keeps its forms, but for its private members."""
        assert _house.private_forms(CLASS, frozenset({"A"})) == [(18, "A._h")]


class TestEnglish:
    """Words of the glossary."""

    @pytest.mark.parametrize("name", ["lane", "_lane_count", "KeptLanes", "who_is_lent"])
    def test_names(self, name: str) -> None:
        """A stray word inside of a name is found, however the name is written."""
        assert len(_house.stray_names(f"{name} = 1")) == 1

    def test_other_names(self) -> None:
        """A word that only contains a stray one is left alone."""
        assert _house.stray_names("planes = silent = calendar = 1") == []

    @pytest.mark.parametrize(
        "phrase",
        [
            "A list is no tuple.",
            "It tells users.",
            "Who waits longest is first.",
            "one's own",
            "lent",
            '"""Give a name."""',
            '"""Tell whether it is."""',
            '"""Who waits longest is first."""',
        ],
    )
    def test_phrases(self, phrase: str) -> None:
        """A phrase that has a plainer form is found, with its line."""
        assert [found[:2] for found in _house.stray_english([(7, phrase)])] == ["7:"]

    def test_plain(self) -> None:
        """Plain English passes, a comment is not looked at, and a greeting may greet."""
        assert _house.stray_english([(1, "It is no longer valid, and nobody is lenient.")]) == []
        assert _house._texts('x = "text"  # is no string') == [(1, '"text"')]
        assert _house.stray_english([(1, "greet the user")], greets=True) == []


class TestCommits:
    """Subjects of commits."""

    def test_length(self) -> None:
        """72 characters pass, one more does not."""
        assert _house.long_subjects([f"abc {'x' * 72}"]) == []
        assert _house.long_subjects([f"abc {'x' * 73}"]) == ["abc: 73 characters"]


class TestExceptions:
    """Exceptions of the linter."""

    def test_counted(self) -> None:
        """Each line counts for its folder, but for those that are generated and the word in a text."""
        texts = {
            "packages/a/b.py": "x = 1  # noqa: E501\n# ruff: noqa: T201\ny = 'noqa'",
            "packages/a/sync/_lock/c.py": "x = 1  # noqa: E501",
            "tests/d.py": "x = 1  # fine",
        }
        assert _house.exceptions(texts) == {"packages": 2}

    def test_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More than a folder may have are refused."""
        assert _house.check_exceptions() is None
        monkeypatch.setattr(_house, "EXCEPTIONS", {"tools": 0})

        with pytest.raises(Failed, match="more than 0: mend the cause"):
            _house.check_exceptions()


class TestSmallFiles:
    """Files that are a part of the one that imports them."""

    def test_found(self) -> None:
        """A small private file with one importer is found; a public, a longer or a shared one is not."""
        graph = {
            "p.a": {"p._b", "p._c", "p.d", "p._e"},
            "p._b": {"p._c"},
            "p._c": set(),
            "p.d": set(),
            "p._e": set(),
        }
        lengths = {"p.a": 9, "p._b": 59, "p._c": 9, "p.d": 9, "p._e": 60}

        assert _house.foldable(graph, lengths) == ["p._b"]

    def test_reasons(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file without a reason is refused."""
        assert _house.check_small_files() is None
        monkeypatch.setattr(_house, "SMALL_FILES", {})

        with pytest.raises(Failed, match=r"ws_web\._worker: fold it"):
            _house.check_small_files()


class TestCircles:
    """Imports in a circle."""

    def test_found(self, tmp_path: Path) -> None:
        """A circle through TYPE_CHECKING and a late import is found; a straight line is not."""
        for name, text in {
            "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.b import B\n",
            "b": "def f():\n    from pkg import a\n",
            "c": "import pkg.a\n",
        }.items():
            (tmp_path / f"{name}.py").write_text(text)

        graph = _house.import_graph("pkg", tmp_path)

        assert graph == {"pkg.a": {"pkg.b"}, "pkg.b": {"pkg.a"}, "pkg.c": {"pkg.a"}}
        assert _house.circles(graph) == [["pkg.a", "pkg.b"]]

    def test_this_tree(self) -> None:
        """The names of the checks are those that the command line knows."""
        known = {"forms", "english", "commits", "circles", "exceptions", "small"}
        assert {check.name for check in _house.house_checks()} == known

    def test_a_failure_names_the_circle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error shows the way round."""
        monkeypatch.setattr(_house, "import_graph", lambda *_: {"a": {"b"}, "b": {"a"}})

        with pytest.raises(Failed, match="a -> b -> a"):
            _house.check_circles()
