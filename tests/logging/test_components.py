"""The component that an application starts when LOGGING_CONFIG is set."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.logging._records import text
from ws_core.component import Component
from ws_core.errors import NotReadyError
from ws_logging import LoggingConfigError
from ws_logging import context as log_fields
from ws_logging._components import LoggingComponent
from ws_logging._components import logging as logging_component


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


class TestComponent:
    """Logging as an application starts it."""

    async def test_life(self, tmp_path: Path) -> None:
        """Configured, started, healthy, closed; the request id is on the lines in between."""
        component = logging_component()
        assert isinstance(component, Component)
        assert (component.settings_key, component.status()) == ("LOGGING_CONFIG", {})
        rotation = {"size_mb": 1, "at": "03:00"}
        component.configure({"level": "debug", "file_path": str(tmp_path), "file_rotation": rotation})
        component.add_context("request_id", lambda: "r-1")
        assert not (tmp_path / "app.log").exists()

        with pytest.raises(NotReadyError, match="not started"):
            _ = component.handle

        await component.start()
        logging.getLogger("std").debug("hello")
        component.handle.flush()
        assert (await component.health()).ok
        assert component.status()["file_written"] == 1
        await component.close()
        await component.close()
        assert text(tmp_path / "app.log").endswith("hello | request_id=r-1\n")
        logger.info("after")
        assert log_fields.current_fields() == {}

    async def test_health_when_the_disk_fails(self, tmp_path: Path) -> None:
        """Ill while messages do not reach the file."""
        (tmp_path / "app.log").symlink_to("/dev/full")
        component = logging_component()
        component.configure({"file_path": str(tmp_path)})
        await component.start()
        logger.info("x")
        component.handle.flush(0.2)
        health = await component.health()
        assert (health.ok, "No space left" in health.detail) == (False, True)
        (tmp_path / "app.log").unlink()
        component.handle.flush(30)
        assert (await component.health()).ok
        await component.close()

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            (["info"], "a mapping is expected, not list"),
            ({"levle": "info"}, "LOGGING_CONFIG: there is no levle; there are .*level"),
            ({"level": "loud"}, "no log level 'loud'"),
            ({"file_rotation": {"mb": 1}}, "file_rotation takes size_mb and at"),
            ({"file_rotation": {"size_mb": 0}}, "positive number of MiB"),
        ],
    )
    def test_wrong_sections(self, section: Any, message: Any) -> None:
        """Refused before anything is started."""
        with pytest.raises(LoggingConfigError, match=message):
            LoggingComponent().configure(section)
