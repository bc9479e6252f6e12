"""Threads: claims of runs that are renewed, given back and marked done."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from tests.redislock._threads import until
from ws_redislock.errors import ConfigError, UnavailableError, UsageError
from ws_redislock.sync import RunClaim, RunClaims

NOWHERE = "redis://127.0.0.1:1/0"


def expire(client: Redis, run_id: str) -> None:
    """End a claim as its time would."""
    assert client.delete(f"wsl:c:{{sync}}:run:{run_id}") == 1


class TestClaim:
    """A claim for a time, whatever becomes of the run."""

    def test_one_of_many(self, client: Redis, pool: ThreadPoolExecutor):
        """Of many threads one may make the run, also when each has claims of its own."""
        one = RunClaims(client)
        several = [RunClaims(client) for _ in range(10)]
        assert sum(pool.map(lambda _: one.claim("r1", 60), range(50))) == 1
        assert sum(pool.map(lambda claims: claims.claim("r2", 60), several)) == 1

    def test_given_back_by_its_claimer_only(self, client: Redis):
        """Another's claim is not given back; the own one is free at once."""
        first, second = RunClaims(client), RunClaims(client, namespace="")
        assert first.claim("r1", 60)
        assert not second.claim("r1", 60)
        second.give_back("r1")
        assert not second.claim("r1", 60)
        first.give_back("r1")
        assert second.claim("r1", 60)

    def test_namespaces(self, client: Redis):
        """Run ids of different namespaces have nothing to do with each other."""
        assert RunClaims(client, namespace="a").claim("r1", 60)
        assert RunClaims(client, namespace="b").claim("r1", 60)
        assert not RunClaims(client, namespace="a").claim("r1", 60)


class TestClaimRun:
    """A claim that lasts as long as the run."""

    def test_one_of_many_threads(self, client: Redis, pool: ThreadPoolExecutor):
        """Of many that claim a run at the same time one gets it; every key has an end."""
        claims = RunClaims(client)
        answers = list(pool.map(lambda _: claims.claim_run("r1", 60, task="sync"), range(50)))
        assert sum(answer.claimed for answer in answers) == 1
        assert {client.pttl(key) > 0 for key in client.keys("*")} == {True}
        other = next(answer for answer in answers if not answer.claimed)
        assert (other.done, other.fence) == (False, 0)
        assert 59 < other.retry_after <= 60
        assert repr(other) == "<RunClaim 'r1' claimed by another>"

    def test_renewed(self, client: Redis):
        """A renewal keeps the claim for so many seconds from now."""
        claims = RunClaims(client)
        claim = claims.claim_run("r1", 1, task="sync")
        assert claim.renew(60)
        assert claims.claim_run("r1", 60, task="sync").retry_after > 59

    def test_an_expired_claim_is_another_claimers(self, client: Redis):
        """After its time another claims the run, with a larger fence, and the first is refused all."""
        first = RunClaims(client).claim_run("r1", 60, task="sync")
        expire(client, "r1")
        second = RunClaims(client).claim_run("r1", 60, task="sync")
        assert second.claimed
        assert second.fence > first.fence
        assert [first.renew(60), first.give_back(), first.finish(60)] == [False] * 3
        assert second.finish(60)
        assert not first.finish(60)

    def test_an_expired_claim_nobody_took_is_taken_up_again(self, client: Redis):
        """The run goes on anyway: its claimer comes before a second one."""
        claims = RunClaims(client)
        claim = claims.claim_run("r1", 60, task="sync")
        expire(client, "r1")
        assert claim.renew(60)
        assert not claims.claim_run("r1", 60, task="sync").claimed

    def test_done(self, client: Redis):
        """A run that is marked done is done for everybody, and for the one that repeats the mark."""
        claim = RunClaims(client).claim_run("r1", 60, task="sync")
        assert repr(claim) == "<RunClaim 'r1' claimed>"
        assert claim.finish(60)
        assert claim.finish(60)
        again = RunClaims(client).claim_run("r1", 60, task="sync")
        assert (again.claimed, again.done) == (False, True)
        assert repr(again) == "<RunClaim 'r1' done>"

    def test_given_back(self, client: Redis):
        """A claim given back is another's at once, and the run stays open until it is done."""
        claims = RunClaims(client)
        first = claims.claim_run("r1", 60, task="sync")
        claims.claim_run("r2", 60, task="sync")
        assert first.give_back()
        assert claims.open_runs("sync") == ["r1", "r2"]
        second = claims.claim_run("r1", 60, task="sync")
        assert second.claimed
        assert second.finish(60)
        assert claims.open_runs("sync") == ["r2"]
        assert claims.open_runs("other") == []

    def test_open_runs_are_forgotten(self, client: Redis):
        """A run that nobody ends is remembered for so many seconds only."""
        claims = RunClaims(client)
        claims.claim_run("r1", 60, task="sync", keep=0.01)
        until(lambda: not claims.open_runs("sync"))

    def test_fences_of_a_task_increase(self, client: Redis, pool: ThreadPoolExecutor):
        """Each claim of a task has a fence of its own, in the order of the claims."""
        claims = RunClaims(client)
        fences = [claims.claim_run(f"r{number}", 60, task="sync").fence for number in range(20)]
        assert fences == sorted(set(fences))
        more = pool.map(lambda number: claims.claim_run(f"s{number}", 60, task="sync").fence, range(20))
        assert len({*fences, *more}) == 40

    def test_idle_counts_the_claims_of_others(self, client: Redis):
        """The last claim of another claimer has an age; its own and none have not."""
        claims = RunClaims(client)
        assert claims.claim_run("r1", 60, task="sync", claimer="a").finish(60)
        assert claims.claim_run("r1", 60, task="sync", claimer="a").idle == math.inf
        assert claims.claim_run("r1", 60, task="sync", claimer="b").idle < 30

    def test_decoded_replies(self, redis_url: str):
        """A client that decodes replies works the same."""
        with Redis.from_url(redis_url, decode_responses=True) as client:
            claims = RunClaims(client)
            assert isinstance(claims.claim_run("r1", 60, task="sync"), RunClaim)
            assert claims.open_runs("sync") == ["r1"]


class TestLostReplies:
    """Calls that have arrived, but were not answered."""

    def test_the_next_call_is_answered(self, client: Redis):
        """It has the claim, and one caller only."""
        claims = RunClaims(client)
        call = claims._bind().call
        lost: list[object] = []

        class Lossy:
            @staticmethod
            def call(*args: Any, **options: Any) -> object:  # as `call` takes them
                reply = call(*args, **options)

                if not lost:
                    lost.append(reply)
                    raise UnavailableError("no answer")

                return reply

        claims._scripts = Lossy()  # type: ignore[assignment]

        with pytest.raises(UnavailableError):
            claims.claim_run("r1", 60, task="sync")

        answers = [claims.claim_run("r1", 60, task="sync") for _ in range(2)]
        assert [answer.claimed for answer in answers] == [True, False]
        lost.clear()

        with pytest.raises(UnavailableError):
            claims.claim("r2", 60)

        assert [claims.claim("r2", 60), claims.claim("r2", 60)] == [True, False]

    def test_their_number_is_bounded(self, monkeypatch: pytest.MonkeyPatch):
        """Of claims that never got an answer, so many are remembered, the latest."""
        monkeypatch.setattr("ws_redislock.sync.claims._MOST_UNANSWERED", 3)

        with RunClaims(NOWHERE, timeout=0.001) as claims:
            for number in range(5):
                with pytest.raises(UnavailableError):
                    claims.claim(f"r{number}", 60)

            assert list(claims._unanswered) == [f"wsl:c:{{r{number}}}:" for number in (2, 3, 4)]


class TestClient:
    """Which client is used, and who closes it."""

    def test_one_of_its_own(self, client: Redis, redis_url: str):
        """Made from a URL, the claims close their client, and make another when used again."""
        claims = RunClaims(redis_url)
        assert claims.claim("r1", 60)
        own = claims._owned
        connection = str(own.client_id())
        claims.close()
        claims.close()
        until(lambda: connection not in {entry["id"] for entry in client.client_list()})

        with claims:
            assert not claims.claim("r1", 60)
            assert claims._owned is not own

    def test_the_users(self, client: Redis):
        """A client of the user stays open."""
        with RunClaims(client) as claims:
            assert claims.claim("r1", 60)

        assert client.ping()

    def test_unreachable(self):
        """Without a server every call says so, within its time."""
        with RunClaims(NOWHERE, timeout=0.05) as claims:
            for call in (
                lambda: claims.claim("r1", 60),
                lambda: claims.claim_run("r1", 60, task="sync"),
                lambda: claims.give_back("r1"),
                lambda: claims.open_runs("sync"),
            ):
                with pytest.raises(UnavailableError, match="did not answer"):
                    call()

    def test_a_forked_process(self, client: Redis, monkeypatch: pytest.MonkeyPatch):
        """Claims that were used before a fork are refused in the child: both would be one claimer."""
        claims = RunClaims(client)
        assert claims.claim("r1", 60)
        monkeypatch.setattr("os.getpid", lambda: -1)

        with pytest.raises(UsageError, match="RunClaims was used before the process was forked"):
            claims.claim("r1", 60)


class TestBadInput:
    """What cannot work is refused before anything is sent."""

    @pytest.mark.parametrize(
        ("run", "options", "part"),
        [
            ("", {}, "a run's name"),
            ("r", {"task": ""}, "a task's name"),
            ("r", {"ttl": 0}, "ttl"),
            ("r", {"ttl": True}, "ttl"),
            ("r", {"keep": math.nan}, "keep"),
            ("r", {"keep": "1"}, "keep"),
        ],
    )
    def test_of_a_run(self, run: str, options: dict[str, Any], part: str):
        """The error names the part."""
        with RunClaims(NOWHERE) as claims, pytest.raises(ConfigError, match=part):
            claims.claim_run(run, **{"ttl": 1, "task": "sync", **options})

    def test_of_claims(self):
        """So does that of the claims themselves."""
        with pytest.raises(ConfigError, match="timeout"):
            RunClaims(NOWHERE, timeout=0)

        with pytest.raises(ConfigError, match="namespace"):
            RunClaims(NOWHERE, namespace="x" * 513)
