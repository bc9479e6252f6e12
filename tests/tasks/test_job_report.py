"""What an engine shows of its jobs, its queue and the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from redis.asyncio import Redis
from taskiq import TaskiqMessage

from tests.tasks._jobs import Gate, tasks_of
from ws_core.inspection import Actor, Inspectable, published
from ws_core.metrics import collect
from ws_tasks import JobFailed, task
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

Row = Mapping[str, object]


def report_of(queue: str, name: str) -> Inspectable:
    """Return the report that shows a task."""
    found = [item for item in published("jobs") if any(row["name"] == name for row in item.inspect())]
    assert len(found) == 1, (queue, found)
    return found[0]


async def rows_when(report: Inspectable, are_there: Callable[[Sequence[Row]], Any]) -> Sequence[Row]:
    """Inspect as the ops page does, until the rows say something."""
    async with asyncio.timeout(60):
        while not are_there(rows := report.inspect()):
            await asyncio.sleep(0.1)

    return rows


@task("fails in the report")
async def fails() -> None:
    """Fail."""
    raise ValueError("no luck")


@pytest.mark.parametrize("decoded", [False, True])
async def test_jobs_queue_and_dead_letters(redis_url: str, *, decoded: bool) -> None:
    """Jobs by task with the last error, what waits, and why letters are dead; whatever the client decodes."""
    blocked, note = tasks_of(gate := Gate())

    async with Redis.from_url(redis_url, decode_responses=decoded) as client:
        broker = RedisStreamsBroker(client, queue="shown", lease=1.0, concurrency=4)

        async with TaskiqEngine([blocked, note, fails], broker=broker) as found, run_worker(found):
            report = report_of("shown", "fails in the report")
            await broker.add("x", b"not json")
            holding = await blocked.enqueue()
            await gate.until(lambda: "blocked" in gate.seen)

            with pytest.raises(JobFailed):
                await (await fails.enqueue()).result(timeout=60)

            later = await note.enqueue_in(3600, 1)
            rows = await rows_when(
                report,
                lambda rows: (
                    any(row.get("dead") == 1 and "1 delayed" in str(row["state"]) for row in rows)
                    and any(row["state"] == "last one failed" for row in rows)
                ),
            )
            by_name = {row["name"]: row for row in rows}
            assert by_name["blocked"]["running"] == 1
            assert "no luck" in str(by_name["fails in the report"]["last_error"])
            assert "1 normal" in str(by_name["queue shown"]["state"])
            letter = by_name["?"]
            assert str(letter["state"]).startswith("dead letter")
            assert letter["last_error"]
            assert not any(row["runnable"] for row in rows)

            names = {one.metric.name for one in collect() if "blocked" in dict(one.attributes).values()}
            assert names >= {"wintersweet.task.runs", "wintersweet.task.lateness"}
            assert isinstance(report, Actor)
            assert not report.act("run", "blocked")  # a job needs its arguments
            gate.open.set()
            assert await holding.result(timeout=60) == "opened"
            await later.cancel()

    assert not report.inspect()  # an engine that is closed shows nothing


async def test_the_letters_themselves(redis_url: str) -> None:
    """The newest first, with what they were."""
    broker = RedisStreamsBroker(redis_url, queue="letters", lease=1.0)

    async with TaskiqEngine([fails], broker=broker):
        data = broker.formatter.dumps(_message("one", fails.name)).message

        async with Redis.from_url(redis_url) as client:
            for one in (data, b"not json"):
                await client.xadd("wst:{letters}:dead", {"data": one, "reason": "test", "deliveries": 3})

        newest, oldest = await broker.dead_letters()
        assert (newest["task"], newest["job"], newest["data"]) == ("", "", b"not json")
        assert (oldest["task"], oldest["job"], oldest["reason"], oldest["deliveries"]) == (
            fails.name,
            "one",
            "test",
            3,
        )
        assert newest["at"] >= oldest["at"] > 1_700_000_000
        assert len(await broker.dead_letters(1)) == 1


async def test_redis_is_away() -> None:
    """The reason is shown in place of numbers."""
    broker = RedisStreamsBroker("redis://127.0.0.1:1/0", queue="away", enqueue_timeout=0.2)

    async with TaskiqEngine([fails], broker=broker):
        rows = await rows_when(report_of("away", "fails in the report"), lambda rows: len(rows) == 2)
        assert rows[1]["state"] == "unknown"
        assert "Redis did not answer" in str(rows[1]["last_error"])


def _message(job: str, name: str) -> TaskiqMessage:
    """Return a message as taskiq has it."""
    return TaskiqMessage(task_id=job, task_name=name, labels={}, args=[], kwargs={})
