"""Claims of runs that are renewed, given back and marked done."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from redis.asyncio import Redis

from tools.servers import RedisServer
from ws_core.errors import UnavailableError
from ws_redislock import RunClaim, RunClaims
from ws_redislock.errors import ConfigError


async def expire(redis: Redis, run_id: str) -> None:
    """End a claim as its time would."""
    assert await redis.delete(f"wsl:c:{{sync}}:run:{run_id}") == 1


class TestClaimRun:
    async def test_one_of_many(self, redis: Redis):
        """Of many that claim a run at the same time one gets it; every key has an end."""
        async with RunClaims(redis) as claims:
            answers = await asyncio.gather(*(claims.claim_run("r1", 60, task="sync") for _ in range(50)))
            assert sum(answer.claimed for answer in answers) == 1
            assert {await redis.pttl(key) > 0 for key in await redis.keys("*")} == {True}
            [other, *_] = [answer for answer in answers if not answer.claimed]
            assert (other.done, other.fence) == (False, 0)
            assert 59 < other.retry_after <= 60
            assert repr(other) == "<RunClaim 'r1' claimed by another>"

    async def test_renewed_while_in_hand(self, redis: Redis):
        """A renewal keeps the claim for so many seconds from now."""
        claims = RunClaims(redis)
        claim = await claims.claim_run("r1", 0.5, task="sync")
        assert await claim.renew(60)
        assert (await claims.claim_run("r1", 60, task="sync")).retry_after > 59

    async def test_an_expired_claim_is_another_claimers(self, redis: Redis):
        """After its time another claims the run, with a larger fence, and the first is refused all."""
        first = await RunClaims(redis).claim_run("r1", 60, task="sync")
        await expire(redis, "r1")
        second = await RunClaims(redis).claim_run("r1", 60, task="sync")
        assert second.claimed
        assert second.fence > first.fence
        assert [await first.renew(60), await first.give_back(), await first.finish(60)] == [False] * 3
        assert await second.finish(60)
        assert not await first.finish(60)

    async def test_an_expired_claim_nobody_took_is_taken_up_again(self, redis: Redis):
        """The run goes on anyway: its claimer comes before a second one."""
        claims = RunClaims(redis)
        claim = await claims.claim_run("r1", 60, task="sync")
        await expire(redis, "r1")
        assert await claim.renew(60)
        assert not (await claims.claim_run("r1", 60, task="sync")).claimed
        assert await claim.finish(60)

    async def test_done_runs_are_not_made_again(self, redis: Redis):
        """A run that is marked done is done for everybody, and for the one that repeats the mark."""
        claims = RunClaims(redis)
        claim = await claims.claim_run("r1", 60, task="sync")
        assert await claim.finish(60)
        assert await claim.finish(60)
        again = await RunClaims(redis).claim_run("r1", 60, task="sync")
        assert (again.claimed, again.done) == (False, True)
        assert repr(again) == "<RunClaim 'r1' done>"

    async def test_given_back(self, redis: Redis):
        """A claim given back is another's at once, and the run stays open until it is done."""
        claims = RunClaims(redis)
        first = await claims.claim_run("r1", 60, task="sync")
        await claims.claim_run("r2", 60, task="sync")
        assert await claims.open_runs("sync") == ["r1", "r2"]
        assert await first.give_back()
        assert await claims.open_runs("sync") == ["r1", "r2"]
        second = await claims.claim_run("r1", 60, task="sync")
        assert repr(second) == "<RunClaim 'r1' claimed>"
        assert await second.finish(60)
        assert await claims.open_runs("sync") == ["r2"]
        assert await claims.open_runs("other") == []

    async def test_open_runs_are_forgotten(self, redis: Redis):
        """A run that nobody ends is remembered for so many seconds only."""
        claims = RunClaims(redis)
        await claims.claim_run("r1", 60, task="sync", keep=0.01)

        while await claims.open_runs("sync"):
            await asyncio.sleep(0.001)

        await claims.claim_run("r2", 60, task="sync", keep=60)
        assert await claims.open_runs("sync") == ["r2"]

    async def test_fences_of_a_task_increase(self, redis: Redis):
        """Each claim of a task has a larger fence, also when the server's clock stands behind."""
        claims = RunClaims(redis)
        fences = [(await claims.claim_run(f"r{n}", 60, task="sync")).fence for n in range(20)]
        assert fences == sorted(set(fences))
        await redis.set("wsl:c:{sync}:last", f"{fences[-1] + 10**15} 0 x", px=60_000)
        assert (await claims.claim_run("r99", 60, task="sync")).fence == fences[-1] + 10**15 + 1

    async def test_idle_counts_the_claims_of_others(self, redis: Redis):
        """The last claim of another claimer has an age; its own, one by hand and none have not."""
        claims = RunClaims(redis)
        await (await claims.claim_run("r1", 60, task="sync", claimer="a")).finish(60)
        assert (await claims.claim_run("r1", 60, task="sync", claimer="a")).idle == math.inf
        assert (await claims.claim_run("r1", 60, task="sync", claimer="b")).idle < 30
        await claims.claim_run("by hand", 60, task="sync")
        assert (await claims.claim_run("r1", 60, task="sync", claimer="a")).idle == math.inf
        assert (await claims.claim_run("r1", 60, task="sync", claimer="b")).idle < 30
        await (await claims.claim_run("s1", 60, task="other")).finish(60)
        assert (await claims.claim_run("s1", 60, task="other", claimer="b")).idle == math.inf

    async def test_a_lost_reply_does_not_lose_the_claim(self, redis: Redis):
        """A call that was not answered but has arrived is answered by the next call, to one caller."""
        claims = RunClaims(redis)
        call = claims._bind().call
        lost: list[object] = []

        class Lossy:
            @staticmethod
            async def call(*args: Any, **options: Any) -> object:  # as `call` takes them
                reply = await call(*args, **options)

                if not lost:
                    lost.append(reply)
                    raise UnavailableError("no answer")

                return reply

        claims._scripts = Lossy()  # type: ignore[assignment]

        with pytest.raises(UnavailableError):
            await claims.claim_run("r1", 60, task="sync")

        answers = [await claims.claim_run("r1", 60, task="sync") for _ in range(2)]
        assert [answer.claimed for answer in answers] == [True, False]
        lost.clear()

        with pytest.raises(UnavailableError):
            await claims.claim("r2", 60)

        assert [await claims.claim("r2", 60), await claims.claim("r2", 60)] == [True, False]

    async def test_unanswered_claims_do_not_grow(self):
        """Of claims that never got an answer, so many are remembered."""
        claims = RunClaims("redis://127.0.0.1:1/0", timeout=0.001)

        for number in range(1005):
            with pytest.raises(UnavailableError):
                await claims.claim(f"r{number}", 60)

        assert len(claims._unanswered) == 1000
        await claims.aclose()

    async def test_decoded_replies(self, any_redis: RedisServer):
        """A client that decodes replies works the same."""
        async with Redis.from_url(any_redis.url, decode_responses=True) as client:
            claims = RunClaims(client)
            claim = await claims.claim_run("r1", 60, task="sync")
            assert isinstance(claim, RunClaim)
            assert await claims.open_runs("sync") == ["r1"]
            assert await claim.finish(60)

    @pytest.mark.parametrize(
        ("run", "options", "part"),
        [
            ("", {}, "a run's name"),
            ("r", {"task": ""}, "a task's name"),
            ("r", {"ttl": 0}, "ttl"),
            ("r", {"keep": math.nan}, "keep"),
        ],
    )
    async def test_bad_input(self, run: str, options: dict[str, Any], part: str):
        """What cannot work is refused before anything is sent."""
        claims = RunClaims("redis://127.0.0.1:1/0")

        with pytest.raises(ConfigError, match=part):
            await claims.claim_run(run, **{"ttl": 1, "task": "sync", **options})

        await claims.aclose()
