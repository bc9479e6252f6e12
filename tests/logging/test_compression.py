"""Rotated files are compressed by gzip, or by Zstandard where there is a library for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from ws_logging import LoggingConfigError, register_logger
from ws_logging._compression import compress, zstandard


class TestZstandard:
    """``compression="zst"``."""

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """It is an error at once, with the remedy; nothing is made."""

        def missing(name: str) -> ModuleType:
            raise ModuleNotFoundError(name)

        monkeypatch.setattr(importlib, "import_module", missing)

        with pytest.raises(
            LoggingConfigError, match=r"'zst' needs Python 3.14 or .* pip install 'ws-logging"
        ):
            register_logger("info", file_path=tmp_path / "logs", compression="zst")

        assert not (tmp_path / "logs").exists()

    def test_what_is_read_back(self, tmp_path: Path) -> None:
        """Any reader of the format has the file again."""
        path = tmp_path / "a.log"
        path.write_bytes(b"line\n" * 100_000)
        compress(path, "zst")

        assert [one.name for one in tmp_path.iterdir()] == ["a.log.zst"]
        packed = (tmp_path / "a.log.zst").read_bytes()
        assert len(packed) < 5_000
        assert zstandard().decompress(packed) == b"line\n" * 100_000

    def test_a_failure_leaves_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is left of the attempt."""
        path = tmp_path / "a.log"
        path.write_bytes(b"line\n")
        monkeypatch.setattr("shutil.copyfileobj", lambda *_: (_ for _ in ()).throw(OSError("no room")))

        with pytest.raises(OSError, match="no room"):
            compress(path, "zst")

        assert [one.name for one in tmp_path.iterdir()] == ["a.log"]
