# Written by tools/generate_sync_locks.py from ws_redislock/claims.py; do not edit.
"""Claims: of many processes that want to make the same run, one may."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ws_redislock.sync._lock.options import seconds
from ws_redislock.sync._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX, check_name, check_prefix, plain, tagged
from ws_redislock.sync._redis.script_client import Reply, ScriptUser
from ws_redislock._redis.scripts import load

__all__ = ("RunClaim", "RunClaims")

_MOST_UNANSWERED = 1000
"""Claims without an answer whose tokens are kept for the next call; the oldest are forgotten beyond that."""


class RunClaims(ScriptUser):
    """
    Lets exactly one caller make each run; the guard of ws-tasks' schedulers.

    A claim is not a lock, because nobody waits for it. There are two kinds. `claim` keeps a run for
    the time asked for, even after the run, so that a process whose clock is late does not make it
    again. `claim_run` returns a `RunClaim` that is renewed while the run goes on and marked done at
    its end, so that another process takes over soon when the claimer dies.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        namespace: Keeps the run ids of several applications apart.
        timeout: Seconds to wait for Redis.
        key_prefix: With what the keys in Redis begin; users of one run agree on it.

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

    def __init__(
        self, redis: RedisSource, *, namespace: str = "", timeout: float = 5.0, key_prefix: str = PREFIX
    ) -> None:
        super().__init__(redis, "RunClaims")
        self._prefix = check_prefix(key_prefix)
        self._kind = "c" if namespace == "" else f"c:{plain(check_name(namespace, 'namespace'))}"
        self._timeout = seconds("timeout", timeout, above=0.0)
        self._claimer = ""
        self._serial = itertools.count(1)
        self._unanswered: dict[str, str] = {}

    def claim(self, run_id: str, ttl: float) -> bool:
        """
        Claim a run for some time, whatever becomes of it.

        Args:
            run_id: Names the run, such as a task and its nominal time; 1 to 512 bytes of UTF-8.
            ttl: Seconds for which the claim is kept.

        Returns:
            True to exactly one caller within that time.

        Raises:
            UnavailableError: Redis did not answer. Call again: when the claim has arrived all the
                same, the next call of this object answers True.
        """
        _, reply = self._claim("claim", run_id, (self._key(run_id),), (_milliseconds("ttl", ttl),))
        return int(reply[0]) == 1

    def give_back(self, run_id: str) -> None:
        """
        Let another claim the run at once, such as after it failed.

        Only what was claimed by this object is given back: when the claim's time is over and
        another has claimed the run since, the other keeps it.

        Args:
            run_id: The run.

        Raises:
            UnavailableError: Redis did not answer.
        """
        self._bind()  # which names the claimer at the first use
        self._send("unclaim", (self._key(run_id),), (self._claimer,), run_id)

    def claim_run(
        self, run_id: str, ttl: float, *, task: str, keep: float = 3600.0, claimer: str = ""
    ) -> RunClaim:
        """
        Claim a run until it is done, and keep the claim alive by `RunClaim.renew`.

        Args:
            run_id: Names the run; 1 to 512 bytes of UTF-8.
            ttl: Seconds without a renewal after which another may claim the run.
            task: Names the task whose run it is; 1 to 512 bytes of UTF-8.
            keep: Seconds for which the task's unfinished runs and its last claim are remembered.
            claimer: Names the one that claims; "" when the claim says nothing about who makes the
                task's runs, such as a run made by hand.

        Returns:
            The claim: ``claimed`` is true for exactly one caller at a time.

        Raises:
            UnavailableError: Redis did not answer. Call again, as for `claim`.
        """
        keys = self._keys(run_id, task)
        args = (claimer, _milliseconds("ttl", ttl), _milliseconds("keep", keep), run_id)
        token, reply = self._claim("claim_run", run_id, keys, args)
        claimed, fence, done, wait, idle = (int(value) for value in reply)
        return RunClaim(
            self,
            run_id,
            keys,
            token,
            claimed=claimed == 1,
            fence=fence,
            done=done == 1,
            retry_after=wait / 1000,
            idle=math.inf if idle < 0 else idle / 1000,
        )

    def open_runs(self, task: str) -> list[str]:
        """
        List the runs of a task that were claimed by `claim_run` and are not done.

        Args:
            task: The task.

        Returns:
            Their ids, the oldest first, 1,000 at most.

        Raises:
            UnavailableError: Redis did not answer.
        """
        reply = self._send("open_runs", self._keys("-", task)[2:], (), task)
        return [value.decode() if isinstance(value, bytes) else str(value) for value in reply]

    def _claim(
        self,
        script: str,
        run_id: str,
        keys: Sequence[bytes],
        args: tuple[str | int, ...],
    ) -> tuple[str, Reply]:
        """Call a claiming script with a token of its own; return the token and the reply."""
        scripts = self._bind()

        # A claim without an answer may have arrived all the same. The next call for that run uses its
        # token again, or the run would seem to be claimed by another until the claim expires. Taken
        # out, the token serves one call only: two callers never share one.
        token = self._unanswered.pop(keys[0].decode(), None) or f"{self._claimer}{next(self._serial):x}"

        try:
            _, reply = scripts.call(
                load(script), keys, (token, *args), what=("claim", run_id), budget=self._timeout
            )
        except BaseException:
            if len(self._unanswered) >= _MOST_UNANSWERED:
                del self._unanswered[next(iter(self._unanswered))]

            self._unanswered[keys[0].decode()] = token
            raise

        return token, reply

    def _send(self, script: str, keys: Sequence[bytes], args: Sequence[str | int], name: str) -> Reply:
        """Call a script that may be repeated; return its reply."""
        _, reply = self._bind().call(
            load(script), keys, args, what=("claim", name), budget=self._timeout
        )
        return reply

    def _forget(self) -> None:
        # Not earlier: workers forked from one parent would otherwise be one and the same claimer.
        self._claimer = f"{secrets.token_hex(8)}."
        self._unanswered.clear()

    def _key(self, run_id: str) -> bytes:
        return tagged(self._prefix, self._kind, plain(check_name(run_id, "run"))).encode()

    def _keys(self, run_id: str, task: str) -> tuple[bytes, bytes, bytes]:
        """Return the keys of a run, in one hash slot: the claim, the task's last claim, its open runs."""
        prefix = tagged(self._prefix, self._kind, plain(check_name(task, "task")))
        run = plain(check_name(run_id, "run"))
        return f"{prefix}run:{run}".encode(), f"{prefix}last".encode(), f"{prefix}open".encode()


@dataclass(slots=True, eq=False, repr=False)
class RunClaim:
    """
    The answer to `RunClaims.claim_run`.

    Attributes:
        run_id: The run.
        claimed: Whether the run is the caller's to make.
        done: Whether it has been made already.
        fence: Larger than that of every earlier claim of the task; 0 when not claimed.
        retry_after: Seconds after which another's claim ends unless it is renewed.
        idle: Seconds since another claimer last claimed a run of the task; infinite when none is
            remembered, or when the last one was the caller's own.

    Example:
        ```python
        from ws_redislock.sync import RunClaims

        with RunClaims("redis://localhost:6379/0") as claims:
            claim = claims.claim_run("sync@2031-05-01", 30, task="sync")
            assert claim.claimed
            assert claim.renew(30)
            assert claim.finish(3600)
            assert (claims.claim_run("sync@2031-05-01", 30, task="sync")).done
        ```
    """

    _claims: RunClaims
    run_id: str
    _keys: tuple[bytes, bytes, bytes]
    _token: str
    claimed: bool
    fence: int
    done: bool
    retry_after: float
    idle: float

    def __repr__(self) -> str:
        state = "claimed" if self.claimed else "done" if self.done else "claimed by another"
        return f"<RunClaim {self.run_id!r} {state}>"

    def renew(self, ttl: float) -> bool:
        """
        Keep the claim for some more seconds.

        A claim whose time is over is taken up again when no other has claimed the run since.

        Args:
            ttl: Seconds from now.

        Returns:
            False when another has claimed the run, or made it.

        Raises:
            UnavailableError: Redis did not answer.
        """
        return self._call("renew_run", self._keys[:1], _milliseconds("ttl", ttl))

    def finish(self, keep: float) -> bool:
        """
        Mark the run as done, so that nobody makes it again.

        Args:
            keep: Seconds for which it stays marked.

        Returns:
            False when another has claimed the run meanwhile: then it is made twice.

        Raises:
            UnavailableError: Redis did not answer.
        """
        return self._call("finish_run", self._keys[::2], _milliseconds("keep", keep), self.run_id)

    def give_back(self) -> bool:
        """
        Let another claim the run at once.

        Returns:
            False when the claim was over, or another's.

        Raises:
            UnavailableError: Redis did not answer.
        """
        return self._call("return_run", self._keys[:1])

    def _call(self, script: str, keys: Sequence[bytes], *args: str | int) -> bool:
        mine = f"{self._token} {self.fence}"
        reply = self._claims._send(script, keys, (mine, *args), self.run_id)
        return int(reply[0]) == 1


def _milliseconds(name: str, value: object) -> int:
    return max(1, round(seconds(name, value, above=0.0) * 1000))
