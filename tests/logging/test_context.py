"""Fields that every message of a piece of work carries."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config

from loguru import logger

from ws_logging import context as log_fields
from ws_logging import log_context, register_logger


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


class TestContext:
    """Fields of a piece of work."""

    async def test_it_follows_tasks_and_does_not_mix(self) -> None:
        """Each task has its own; threads that copy the context too."""
        stream = io.StringIO()
        register_logger("info", stream)

        async def work(name: str) -> None:
            with log_context(name=name):
                await asyncio.sleep(0)
                logger.info("loguru")
                await asyncio.to_thread(logging.getLogger("std").info, "standard")

        await asyncio.gather(*(work(f"w{n}") for n in range(5)))
        logger.info("outside")
        lines = stream.getvalue().splitlines()
        assert "name=" not in lines.pop()
        assert sorted(line.rpartition("name=")[2] for line in lines) == sorted(
            [f"w{n}" for n in range(5)] * 2
        )

    def test_provided_fields(self) -> None:
        """Asked for with every message; the message's own fields win; empty ones are left out."""
        stream = io.StringIO()
        register_logger("info", stream)
        values = iter(["r1", "r2", "", "r4"])
        log_fields.provide("request_id", lambda: next(values))

        try:
            logger.info("a")
            logger.bind(request_id="mine").info("b")
            logger.info("c")
        finally:
            log_fields.withdraw("request_id")

        log_fields.withdraw("request_id")
        logger.info("d")
        tails = [line.split(" - ")[1] for line in stream.getvalue().splitlines()]
        assert tails == ["a | request_id=r1", "b | request_id=mine", "c", "d"]
