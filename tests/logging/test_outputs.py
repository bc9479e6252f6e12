"""Several outputs, each with a format and a level of its own."""

from __future__ import annotations

import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ws_logging import LoggingConfigError, event, register_logger
from ws_logging._components import LoggingComponent
from ws_logging._output_options import parse_outputs


class TestOutputs:
    """``outputs=``."""

    def test_console_beside_json_and_errors_apart(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Text for people on stderr, JSON in the file, errors in a file of their own."""
        handle = register_logger(
            "info",
            file_path=tmp_path,
            file_name="app.log",
            json=True,
            outputs=[{"to": "stderr"}, {"to": "errors.log", "level": "error", "format": "{level} {message}"}],
        )
        logger.info("one")
        logger.error("two")
        assert handle.flush(30)
        files = handle.statistics().files
        handle.close()

        lines = (tmp_path / "app.log").read_text().splitlines()
        assert [json.loads(line)["Body"] for line in lines] == ["one", "two"]
        assert (tmp_path / "errors.log").read_text() == "ERROR two\n"
        shown = capsys.readouterr().err.splitlines()
        assert [line.partition(" - ")[2] for line in shown] == ["one", "two"]
        assert {Path(path).name: one.written for path, one in files.items()} == {
            "app.log": 2,
            "errors.log": 1,
        }

    def test_only_outputs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a file and a handler they are all there is; a file stands where it is named."""
        stream = io.StringIO()
        handle = register_logger("info", outputs=[{"to": stream}, {"to": str(tmp_path / "x.log")}])
        logger.info("one")
        handle.close()

        assert stream.getvalue() == (tmp_path / "x.log").read_text() != ""
        assert capsys.readouterr().err == ""
        assert handle.statistics().file is None

    def test_options_of_files(self, tmp_path: Path) -> None:
        """A file rotates by its own rule."""
        entry = {
            "to": "x.log",
            "rotation": {"size_mb": 0.001, "at": None},
            "compression": "gz",
            "format": "{message}",
        }
        handle = register_logger("info", file_path=tmp_path, outputs=[{**entry, "format": "{message}"}])

        for _ in range(30):
            logger.info("x" * 100)

        handle.close()
        assert len(list(tmp_path.glob("x.*.log.gz"))) == 2

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        """None is left open when one cannot be made, and what was set up before goes on."""
        stream = io.StringIO()
        register_logger("info", stream)
        (tmp_path / "x.log").mkdir()

        with pytest.raises(LoggingConfigError, match=r"x\.log cannot be opened"):
            register_logger("info", file_path=tmp_path, outputs=[{"to": "x.log"}])

        logger.info("still here")
        assert "still here" in stream.getvalue()

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            ("stderr", "outputs: a list of mappings"),
            ({"to": "stderr"}, "outputs: a list of mappings"),
            (["stderr"], r"outputs\[0\]: a mapping like"),
            ([{}], r"outputs\[0\].to: \"stderr\", \"stdout\", a file"),
            ([{"to": "stderr", "colour": 1}], r"outputs\[0\]: there is no colour; there are to, level"),
            ([{"to": "stderr", "rotation": None}], r"outputs\[0\]: rotation is for files only"),
            ([{"to": "x", "level": "loud"}], r"outputs\[0\].level: there is no log level"),
            ([{"to": "x", "json": "yes"}], r"outputs\[0\].json: True, False or "),
            ([{"to": "x", "json": True, "format": "{message}"}], r"outputs\[0\].format: JSON has no other"),
            ([{"to": "x", "format": "{nothing}"}], r"outputs\[0\].format: '{nothing}' cannot be filled in"),
            ([{"to": "x", "format": "a\nb"}], r"outputs\[0\].format: one line of text"),
            ([{"to": "x", "overflow": "explode"}], r"outputs\[0\].overflow: 'block'"),
            ([{"to": "/etc/hostname/x"}], r"outputs\[0\].to: /etc/hostname is not a directory"),
            ([{"to": "ftp://x"}], r"outputs\[0\].to: a URL such as"),
            ([{"to": "http://"}], r"outputs\[0\].to: a URL such as"),
            ([{"to": "http://x:99999"}], r"outputs\[0\].to: a URL such as"),
            ([{"to": "http://[x"}], r"outputs\[0\].to: a URL such as"),
            ([{"to": "http://x/?a=1"}], r"outputs\[0\].to: a URL such as"),
            ([{"to": "http://me:hunter2@x"}], r"outputs\[0\].to: credentials do not belong in a URL"),
            ([{"to": "http://x", "headers": {"a": "b\nc"}}], r"outputs\[0\].headers: a mapping of names"),
            ([{"to": "http://x", "headers": "a: b"}], r"outputs\[0\].headers: a mapping of names"),
            ([{"to": "http://x", "timeout": 0}], r"outputs\[0\].timeout: seconds up to 3600"),
            ([{"to": "http://x", "overflow": "explode"}], r"outputs\[0\].overflow: 'block'"),
            ([{"to": "http://x", "compression": "gz"}], r"outputs\[0\]: compression is for files only"),
            ([{"to": "http://x", "json": True}], r"outputs\[0\]: json and format are not for URLs"),
            ([{"to": "http://x", "format": "{message}"}], r"outputs\[0\]: json and format are not for URLs"),
            ([{"to": "x", "headers": {}}], r"outputs\[0\]: headers is for URLs only"),
            ([{"to": "stderr", "overflow": "block"}], r"outputs\[0\]: overflow is for files and URLs only"),
            ([{"to": 7}], r"outputs\[0\].to: a function or an object with write"),
        ],
    )
    def test_mistakes(self, outputs: Any, message: str) -> None:
        """A wrong entry is named, before anything is opened."""
        with pytest.raises(LoggingConfigError, match=message):
            register_logger("info", outputs=outputs)

    def test_in_settings(self, tmp_path: Path) -> None:
        """They can be written in settings that have no Python objects."""
        component = LoggingComponent()
        component.configure({"file_path": str(tmp_path), "outputs": [{"to": "stderr", "level": "error"}]})

        with pytest.raises(LoggingConfigError, match="there is no nonsense"):
            component.configure({"outputs": [{"to": "stderr", "nonsense": 1}]})


class TestDefaults:
    """What a file of ``outputs=`` is without further options."""

    def test_a_file_fits_on_the_disk(self) -> None:
        """It rotates and is deleted as the main one is."""
        (options,) = parse_outputs([{"to": "x.log"}], None)
        main = inspect.signature(register_logger).parameters

        assert repr(options.rotation) == repr(main["file_rotation"].default)
        assert options.retention == main["file_retention"].default
        assert options.total_size == main["file_total_size"].default


class TestFormat:
    """``format=``."""

    def test_parts(self) -> None:
        """Every part can be named, and every part is escaped."""
        stream = io.StringIO()
        register_logger(
            "info",
            stream,
            format="{time:%Y} {level: >8} {name} {function} {line} {process} {thread} {message} [{fields}]",
        )
        logger.bind(a=1, b="x y").info("evil\nline")

        assert re.fullmatch(
            r"\d{4}     INFO tests\.logging\.test_outputs test_parts \d+ \d+ MainThread"
            r" evil\\nline \[a=1 b=\"x y\"\]\n",
            stream.getvalue(),
        )

    def test_beside_json(self) -> None:
        """JSON has a format already."""
        with pytest.raises(LoggingConfigError, match=r"^format: JSON has no other format"):
            register_logger("info", json=True, format="{message}")


class TestEvent:
    """`event`."""

    def test_fields_and_braces(self) -> None:
        """Fields of any name are bound; braces are not formatted; the place is the caller's."""
        stream = io.StringIO()
        register_logger("debug", stream, levels={"tests.logging": "debug"})
        event("order {paid}", order=7, level="gold", message="x")
        event("low", "DEBUG")

        first, second = stream.getvalue().splitlines()
        assert ":test_fields_and_braces:" in first
        assert first.endswith(" - order {paid} | order=7 level=gold message=x")
        assert " | DEBUG    | " in second
