"""What a scheduler shows of its tasks."""

from __future__ import annotations

import pytest

from ws_core.inspection import Actor, published
from ws_core.metrics import collect
from ws_tasks import IntervalTask, Scheduler


def fail() -> None:
    """Raise an error."""
    raise ValueError("no luck")


async def test_metrics_and_rows() -> None:
    """Runs by outcome, the next run, the last error."""
    async with Scheduler() as scheduler:
        good = scheduler.add(IntervalTask(3600, int, name="report good"))
        bad = scheduler.add(IntervalTask(3600, fail, name="report bad"))
        await good.run_now()
        await bad.run_now()
        found = {
            tuple(value for _, value in one.attributes): one.value
            for one in collect()
            if one.metric.name == "wintersweet.task.runs"
        }
        assert found["report good", "succeeded"] == found["report bad", "failed"] == 1
        rows = {row["name"]: row for item in published("tasks") for row in item.inspect()}
        assert rows["report good"]["state"] == "running"
        assert rows["report good"]["last_error"] is None
        assert "no luck" in str(rows["report bad"]["last_error"])
        assert str(rows["report bad"]["next_run"]).startswith("20")
        names = {one.metric.name for one in collect() if "report good" in dict(one.attributes).values()}
        assert names >= {"wintersweet.task.running", "wintersweet.task.queued", "wintersweet.task.misfires"}


@pytest.mark.parametrize(
    ("action", "name", "does"), [("run", "acts", True), ("run", "no", False), ("stop", "acts", False)]
)
async def test_actions(action: str, name: str, *, does: bool) -> None:
    """A task can be run, by its name; nothing else can be done."""
    async with Scheduler() as scheduler:
        task = scheduler.add(IntervalTask(3600, int, name="acts"))
        (actor,) = [
            item for item in published("tasks") if any(row["name"] == "acts" for row in item.inspect())
        ]
        assert isinstance(actor, Actor)
        assert actor.act(action, name) is does
        assert task.statistics().running == int(does)
