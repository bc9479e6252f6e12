# Written by tools/generate_sync_locks.py from ws_redislock/claims.py; do not edit.
"""Claims: of many processes that want to make the same run, one may."""

from __future__ import annotations

import itertools
import math
import secrets
from types import TracebackType
from typing import Any, Self

from ws_redislock._keys import check_name, plain, tagged
from ws_redislock._script import load
from ws_redislock.errors import ConfigError
from ws_redislock.sync._calls import Caller, RedisSource, caller_for, check_flow

__all__ = ("RunClaims",)


class RunClaims:
    """
    Gives each run to exactly one caller; the guard of ws-tasks' schedulers.

    A claim is not a lock: nobody waits for it, nobody renews it, and the one who has it keeps it
    for the time asked for, even after the run, so that a process whose clock is late does not
    make the run again.

    Args:
        redis: A ``redis.Redis`` (or cluster client), a pool with such a client as
            ``.redis``, or a URL.
        namespace: Keeps the run ids of several applications apart.
        timeout: Seconds to wait for Redis.

    Raises:
        ConfigError: A value that cannot work.

    Example:
        ```python
        from ws_redislock.sync import RunClaims

        with RunClaims("redis://localhost:6379/0") as claims:
            assert claims.claim("report@2031-05-01T06:00", ttl=3600)
            assert not claims.claim("report@2031-05-01T06:00", ttl=3600)
        ```
    """

    def __init__(self, redis: RedisSource, *, namespace: str = "", timeout: float = 5.0) -> None:
        self._source = redis
        self._kind = "c" if namespace == "" else f"c:{plain(check_name(namespace, 'namespace'))}"
        self._timeout = _seconds("timeout", timeout)
        self._claimer = f"{secrets.token_hex(8)}."
        self._serial = itertools.count(1)
        self._caller: Caller | None = None
        self._flow: object = None
        self._owned: Any = None  # Any: the client made from a URL, of the driver's untyped make

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def claim(self, run_id: str, ttl: float) -> bool:
        """
        Claim a run.

        Args:
            run_id: Names the run, such as a task and its nominal time; 1 to 512 bytes of UTF-8.
            ttl: Seconds for which the claim is kept.

        Returns:
            True to exactly one caller within that time.

        Raises:
            UnavailableError: Redis gave no answer.
        """
        _, reply = self._bind().call(
            load("claim"),
            (self._key(run_id),),
            (f"{self._claimer}{next(self._serial):x}", max(1, round(_seconds("ttl", ttl) * 1000))),
            what=("claim", run_id),
            budget=self._timeout,
        )
        return int(reply[0]) == 1

    def give_back(self, run_id: str) -> None:
        """
        Let another claim the run at once, such as after it failed.

        Only what was claimed by this object is given back: when the claim's time is over and
        another has claimed the run since, the other keeps it.

        Args:
            run_id: The run.

        Raises:
            UnavailableError: Redis gave no answer.
        """
        self._bind().call(
            load("unclaim"),
            (self._key(run_id),),
            (self._claimer,),
            what=("claim", run_id),
            budget=self._timeout,
        )

    def close(self) -> None:
        """Close an own client."""
        client, self._owned, self._caller = self._owned, None, None

        if client is not None:
            client.close()

    def _bind(self) -> Caller:
        if self._caller is None:
            self._caller, self._flow, self._owned = caller_for(self._source)
        else:
            check_flow(self._flow, "RunClaims")

        return self._caller

    def _key(self, run_id: str) -> bytes:
        return tagged(self._kind, plain(check_name(run_id, "run"))).encode()


def _seconds(name: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ConfigError(
            f"{name} must be a number of seconds above 0, not {value!r}", option=name, value=value
        )

    return float(value)
