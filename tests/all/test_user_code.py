"""The project's own code: its application looked at without serving it, and its errors by its own lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.all._support import wintersweet
from wintersweet import cli
from wintersweet._cli import application, user_code
from ws_core.errors import ConfigError

APP = """
from ws_web import create_app


def create():
    app = create_app(title="Bücher")

    @app.get("/word")
    async def word() -> str:
        return "word"

    return app
"""
SYNTAX = "def create(:\n    pass\n"
DEEP = "import json\n\ndef create():\n    return parse()\n\ndef parse():\n    return json.loads('{')\n"


class TestOpenapi:
    """The document, for people and programs that make clients."""

    def test_to_a_file_and_to_stdout(self, tmp_path: Path) -> None:
        """Both are the same JSON, and it is what the application serves."""
        (tmp_path / "books.py").write_text(APP)
        printed = wintersweet("openapi", "books:create", cwd=tmp_path)
        written = wintersweet("openapi", "books:create", "-o", "api.json", cwd=tmp_path)
        document = json.loads(printed.out)

        assert (printed.status, written.status, written.out) == (0, 0, "")
        assert (tmp_path / "api.json").read_text("utf-8") == printed.out
        assert document["info"]["title"] == "Bücher"
        assert "/word" in document["paths"]

    def test_to_where_nothing_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the file."""
        (tmp_path / "books_elsewhere.py").write_text(APP)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])

        with pytest.raises(ConfigError, match=r"cannot write .*api\.json: No such file"):
            application.export("books_elsewhere:create", tmp_path / "nowhere" / "api.json")


class TestFailures:
    """An error of the project's code is shown by its own lines: no line of ours, none of a library."""

    @pytest.mark.parametrize(
        ("command", "code", "shown"),
        [
            ("run", SYNTAX, 'File "app.py", line 1 def create(:'),
            ("routes", DEEP, 'File "app.py", line 4, in create return parse()'),
        ],
    )
    def test_lines(self, tmp_path: Path, command: str, code: str, shown: str) -> None:
        """Whether it cannot be read, or fails when it is called; the status is 1."""
        (tmp_path / "app.py").write_text(code)
        outcome = wintersweet(command, "app:create", cwd=tmp_path)

        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.said.startswith("wintersweet: this project's code failed: ")
        assert shown in outcome.said
        assert "Traceback" not in outcome.said
        assert str(Path(sys.prefix)) not in outcome.said
        assert "json/decoder" not in outcome.said

    def test_a_fault_of_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What no line of the project led to keeps all its lines."""

        def fault() -> None:
            raise ZeroDivisionError

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(cli, "app", fault)

        with pytest.raises(ZeroDivisionError):
            cli.main()

    def test_an_environment_in_the_project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library in .venv is not the project's code."""
        library = tmp_path / ".venv" / "lib.py"
        library.parent.mkdir()
        library.write_text("1 / 0\n")
        monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))

        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile(library.read_text(), library, "exec"), {})

        caught.value.__traceback__ = caught.tb.tb_next
        assert user_code.describe_failure(caught.value, tmp_path) is None
        monkeypatch.setattr(sys, "prefix", "/usr")
        assert "1 / 0" in str(user_code.describe_failure(caught.value, tmp_path))
