"""Every example of the documentation runs: in READMEs, in docs and in docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs._examples import (
    MYSQL,
    POSTGRES,
    REDIS,
    Example,
    docstring_examples,
    markdown_examples,
    run_example,
)

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src"))
FIXTURES = {REDIS: "redis_url", MYSQL: "mysql_url", POSTGRES: "postgres_url"}


def documents() -> list[Path]:
    """List the pages that people read; translations have the very code of their originals."""
    patterns = ("*.md", "docs/**/*.md", "packages/*/*.md", "tools/**/*.md")
    found = (path for pattern in patterns for path in ROOT.glob(pattern))
    return sorted(path for path in found if not path.name.endswith(".zh-CN.md"))


def modules() -> Iterator[tuple[str, Path]]:
    """List all modules of the libraries and of the tools, with their files."""
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            if "scaffold" not in path.parts and path.name != "__main__.py":
                yield _dotted(path.relative_to(source)), path

    for path in sorted((ROOT / "tools").rglob("*.py")):
        if path.name != "__main__.py" and not path.name.startswith("bench_"):
            yield _dotted(path.relative_to(ROOT)), path


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _label(example: Example) -> str:
    return f"{example.path.relative_to(ROOT)}:{example.line}"


IN_DOCUMENTS = [example for path in documents() for example in markdown_examples(path)]
IN_DOCSTRINGS = [example for _, path in modules() for example in docstring_examples(path)]
WITH_DIALOGUES = [name for name, path in modules() if ">>> " in path.read_text(encoding="utf-8")]


@pytest.fixture
def a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where files may be left, and with none of the developer's settings."""
    monkeypatch.chdir(tmp_path)

    for name in os.environ:
        if name.startswith(("WS_", "WINTERSWEET_")):
            monkeypatch.delenv(name)


def _run(example: Example, request: pytest.FixtureRequest) -> None:
    run_example(example, {url: request.getfixturevalue(FIXTURES[url]) for url in example.urls})


@pytest.mark.usefixtures("a_place_of_its_own")
class TestExamples:
    @pytest.mark.parametrize("example", IN_DOCUMENTS, ids=_label)
    def test_in_documents(self, example: Example, request: pytest.FixtureRequest) -> None:
        """A Python block of a page runs by itself."""
        _run(example, request)

    @pytest.mark.parametrize("example", IN_DOCSTRINGS, ids=_label)
    def test_in_docstrings(self, example: Example, request: pytest.FixtureRequest) -> None:
        """A Python block of a docstring runs by itself."""
        _run(example, request)

    @pytest.mark.parametrize("name", WITH_DIALOGUES)
    def test_dialogues(self, name: str) -> None:
        """The dialogues in a module's docstrings give the answers that are shown."""
        module = importlib.import_module(name)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=flags)

        for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
            runner.run(test, out=said.append)

        assert not runner.failures, "".join(said)


class TestRunner:
    """The runner of the examples must itself be able to fail."""

    page = Path(__file__)

    def test_await_outside_of_functions(self) -> None:
        """A block may await, and its failure is the example's failure."""
        good = Example(self.page, 1, "import asyncio\nawait asyncio.sleep(0)\nassert True\n")
        bad = Example(self.page, 1, "import asyncio\nawait asyncio.sleep(0)\nassert False\n")

        run_example(good)

        with pytest.raises(AssertionError):
            run_example(bad)

    def test_a_wrong_answer_is_found(self) -> None:
        """A dialogue that shows another answer than the real one fails."""
        with pytest.raises(AssertionError, match=r"Expected:\n    3"):
            run_example(Example(self.page, 1, ">>> 1 + 1\n3\n"))

    def test_urls_are_replaced(self) -> None:
        """The URL of the documentation becomes the URL of a real server."""
        example = Example(self.page, 1, f'assert "{REDIS}" == "redis://[::1]:1/0"\n')

        assert example.urls == {REDIS}
        run_example(example, {REDIS: "redis://[::1]:1/0"})

    def test_blocks_are_found(self) -> None:
        """Indented blocks and dialogues are found; other languages, no-run and files are not."""
        text = (
            "# Title\n\n```python\na = 1\n```\n\n- item\n\n    ```python\n    b = 2\n    ```\n\n"
            '```python no-run\nc\n```\n\n```python title="a.py"\nd\n```\n\n'
            "```sh\nls\n```\n\n```pycon\n>>> 1\n1\n```\n"
        )

        found = [(example.line, example.code) for example in markdown_examples(self.page, text)]

        assert found == [(4, "a = 1\n"), (10, "b = 2\n"), (26, ">>> 1\n1\n")]

    def test_line_numbers_are_those_of_the_page(self) -> None:
        """A traceback points at the line of the page."""
        with pytest.raises(ZeroDivisionError) as caught:
            run_example(Example(self.page, 40, "x = 1\nx / 0\n"))

        assert caught.tb is not None
        assert caught.traceback[-1].lineno == 40  # counted from 0
