"""What an engine shows of its queue: jobs by task, what waits, and the newest dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ws_core.errors import describe
from ws_tasks._broker import RedisStreamsBroker
from ws_tasks._jobs import JobTask
from ws_tasks._report import Report

_PAUSE = 2.0  # seconds between two looks at Redis
_LETTERS = 10  # dead letters that are shown

Row = Mapping[str, object]


class JobReport(Report):
    """
    The jobs of an engine.

    The counters are those of this process. What Redis knows, of all processes, is read in the background,
    and only while somebody inspects: rows are returned without I/O.
    """

    def __init__(self, tasks: Mapping[str, JobTask], broker: RedisStreamsBroker) -> None:
        self._broker = broker
        self._outcomes: Mapping[str, Mapping[str, Any]] = {}  # Any: as JSON has it
        self._of_queue: list[Row] = []
        self._asked = asyncio.Event()
        super().__init__(tasks, kind="jobs")

    async def follow(self) -> None:
        """Read what Redis knows whenever somebody has inspected."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.read()
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """Show nothing any more."""
        self._tasks, self._outcomes, self._of_queue = {}, {}, []

    async def read(self) -> None:
        """Read what Redis knows; while it does not answer, that is shown."""
        queue = f"queue {self._broker.queue}"

        try:
            depth = await self._broker.depth()
            letters = await self._broker.dead_letters(_LETTERS)
            self._outcomes = await self._broker.outcomes()
        except Exception as error:  # noqa: BLE001 - whatever it is, this is where it is shown
            self._of_queue = [
                {"name": queue, "state": "unknown", "last_error": describe(error), "runnable": False}
            ]
            return

        dead = depth.pop("dead")
        waiting = ", ".join(f"{count} {name}" for name, count in depth.items())
        self._of_queue = [{"name": queue, "state": waiting, "dead": dead, "runnable": False}]
        self._of_queue += [
            {
                "name": letter["task"] or "?",
                "state": f"dead letter, job {letter['job'] or '?'}",
                "last_error": letter["reason"],
                "runnable": False,
            }
            for letter in letters
        ]

    def inspect(self) -> Sequence[Row]:
        """Return the jobs by task, the queue, and its newest dead letters."""
        self._asked.set()
        return [*(self._of_task(row) for row in super().inspect()), *self._of_queue]

    def act(self, action: str, name: str) -> bool:
        """Do nothing: a job needs its arguments."""
        del action, name
        return False

    def _of_task(self, row: Row) -> Row:
        outcome = self._outcomes.get(str(row["name"]), {})
        state = "" if not outcome else "last one succeeded" if outcome["ok"] else "last one failed"
        error = row["last_error"] or outcome.get("detail") or None
        return {**row, "state": state, "last_error": error, "runnable": False}
