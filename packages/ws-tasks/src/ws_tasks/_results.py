"""The results of jobs in Redis, as JSON; and the client that a broker is given."""

from __future__ import annotations

import json
import logging
import math
import secrets
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from taskiq import AsyncResultBackend, TaskiqResult

from ws_core.errors import ConfigError, UsageError
from ws_core.redaction import mask_url
from ws_core.sources import unread_in_redis_url
from ws_tasks._job_handles import JobStatus
from ws_tasks._requests import Requests
from ws_tasks._scripts import SAVE
from ws_tasks._streams import persist
from ws_tasks._validation import check_seconds, to_json
from ws_tasks.errors import JobCancelled, JobFailed

logger = logging.getLogger("ws_tasks")

_CONNECTIONS = 32  # of a client that is made from a URL


def requests_of(source: object) -> tuple[Requests, bool]:
    """Return what sends to a URL, or through a client, that of a pool, or of a manager's default pool."""
    if isinstance(source, str):
        return Requests(redis.asyncio.Redis.from_pool(_pool_of(source))), True

    return Requests.of(source), False


def _pool_of(url: str) -> redis.asyncio.BlockingConnectionPool:
    """Return the connections to a URL, or refuse it: redis-py takes a database that is not a number for 0."""
    try:
        parts = urlsplit(url)
        database = "" if parts.scheme == "unix" else parts.path.strip("/")
        # Callers wait for one of so many connections; the driver's plain pool raises instead.
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS)
        pool.make_connection()  # which checks the options, and does not connect
    except (ValueError, TypeError) as error:
        reason = str(error).rpartition("__init__() ")[2]  # of a TypeError, without the name of the class
        raise ConfigError(f"the Redis URL {mask_url(url)!r} is wrong: {reason}") from None

    if "://" not in url or (database and not database.isdigit()):
        form = "redis://host:port/database, where the database is a number"
        raise ConfigError(f"the Redis URL {mask_url(url)!r} is wrong: it is written as {form}")

    if (unread := unread_in_redis_url(url)) is not None:
        raise ConfigError(f"the Redis URL {mask_url(url)!r} is wrong: {unread}")

    return pool


class RedisResults(AsyncResultBackend[Any]):
    """
    The results of jobs in Redis, as JSON, and a message to the one that waits for them.

    The first result of a job stands. Another one is of a job that was run twice, which is counted and
    logged, or of one that was cancelled while it ran.

    Args:
        redis: A ``redis.asyncio`` client, a pool with such a client as ``.redis``, a manager of
            pools, or a URL.
        ttl: Seconds for which a result is kept, unless the job's task says otherwise.
    """

    def __init__(self, redis: object, *, ttl: float = 3600.0) -> None:
        self._requests, self._owned = requests_of(redis)
        self._ttl = check_seconds("result_ttl", ttl)
        self._closed = False
        self.doubled: int = 0

    @property
    def _client(self) -> Any:  # Any: redis-py's clients are untyped
        return self._requests.client

    async def startup(self) -> None:
        """Take results, again after a shutdown."""
        self._closed = False

    async def shutdown(self) -> None:
        """Take no more results, and close an own client."""
        self._closed = True

        if self._owned:
            await self._client.aclose()

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Save a result, however long Redis is away: the message is acknowledged afterwards only."""
        if self._closed:
            # Of a job that went on when its worker had ended: it was handed back, and is another's.
            logger.warning("job %s has ended after its worker: its result is not saved", task_id)
            return

        standing = await self._save(task_id, _content(result), result.labels)

        if standing is not None and not standing.get("cancelled") and "cancelled" not in _content(result):
            self.doubled += 1
            logger.warning("job %s was run twice", task_id)

    async def save_cancelled(self, task_id: str, labels: dict[str, Any]) -> bool:
        """Save that a job was cancelled; return False when it had ended otherwise."""
        standing = await self._save(task_id, {"cancelled": True}, labels)
        return standing is None or bool(standing.get("cancelled"))

    async def is_result_ready(self, task_id: str) -> bool:
        """Return whether a job has ended."""
        return bool(await self._client.exists(_key(task_id)))

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:  # noqa: FBT001, FBT002 - taskiq's
        """Return the result of a job that has ended."""
        found = await self.find(task_id)

        if found is None:
            raise UsageError(f"job {task_id} has no result, or it has expired", job=task_id)

        return found[1]

    async def find(self, task_id: str) -> tuple[JobStatus, TaskiqResult[Any]] | None:
        """Return how a job has ended, and its result, if it has."""
        text = await self._requests.get(_key(task_id))
        return None if text is None else _decode(task_id, json.loads(text))

    def subscribe(self, name: str) -> Any:  # Any: redis-py's PubSub is untyped
        """Return a subscription to the ends of jobs that were enqueued under a name, or None."""
        return (self._client.pubsub() if hasattr(self._client, "pubsub") else None), f"wst:done:{name}"

    async def _save(
        self, task_id: str, content: dict[str, Any], labels: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Save a result; return the one that another has saved before."""
        mark = secrets.token_hex(8)
        text = json.dumps({**content, "mark": mark})
        reply_to = labels.get("reply_to")
        kept = max(1, round(float(labels.get("result_ttl") or self._ttl) * 1000))
        channel = f"wst:done:{reply_to}" if reply_to else ""
        found = await persist(
            lambda: self._requests.run(SAVE, (_key(task_id),), text, kept, channel, task_id),
            f"the result of job {task_id} is not saved",
            level=logging.WARNING,
            most=5.0,
        )
        # This very result may stand already: the reply of an earlier attempt was lost.
        standing: dict[str, Any] | None = None if found is None else json.loads(found)
        return None if standing is None or standing.get("mark") == mark else standing


def _key(job_id: str) -> str:
    return f"wst:result:{job_id}"


def _content(result: TaskiqResult[Any]) -> dict[str, Any]:
    """Return what is saved of a result; one that is not JSON is a failure that says so."""
    error = result.error

    if isinstance(error, JobCancelled):
        return {"cancelled": True}

    if error is None:
        try:
            to_json(result.return_value)
        except (TypeError, ValueError) as problem:
            error = UsageError(f"the result is not JSON: {problem}")
        else:
            return {"value": result.return_value}

    failed = JobFailed.of(error)
    return {"error": failed.error_type, "message": str(failed)}


def _decode(job_id: str, found: dict[str, Any]) -> tuple[JobStatus, TaskiqResult[Any]]:
    error: Exception | None = None
    status: JobStatus = "succeeded"

    if found.get("cancelled"):
        status = "cancelled"
        error = JobCancelled(f"job {job_id} was cancelled before it ended", job=job_id)
    elif "error" in found:
        status = "failed"
        error = JobFailed(found["message"], error_type=found["error"], job=job_id)

    value = found.get("value")
    return status, TaskiqResult(
        is_err=error is not None, return_value=value, execution_time=math.nan, error=error
    )
