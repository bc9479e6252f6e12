"""The limiters' scripts against exact models, on real servers with a clock of the test's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis as BlockingRedis

from ws_redislock._redis.scripts import load
from ws_redislock.limiter import _rate

NOW = 1_700_000_000_000_000

SHIM = """
local real, clock, redis = redis, ARGV[#ARGV], {}
function redis.call(command, ...)
  if command == 'TIME' then return {string.sub(clock, 1, -7), string.sub(clock, -6)} end
  if command == 'PEXPIRE' then return 1 end
  if command == 'SET' then return real.call('SET', (select(1, ...)), (select(2, ...))) end
  return real.call(command, ...)
end
redis.pcall = real.pcall
"""
"""Runs a script with a clock of the test's own, on which keys do not expire by the server's."""


class Simulated:
    """A limiter's script on a real server under a simulated clock."""

    def __init__(self, client: BlockingRedis, script: str, *args: int) -> None:
        self.client = client
        self.text = SHIM + load(script).text
        self.args = args

    def hit(self, now: int, cost: int) -> list[int]:
        """Hit at a time in microseconds."""
        reply = self.client.eval(self.text, 1, "simulated", *self.args, cost, now)
        assert isinstance(reply, list)
        return reply


@pytest.fixture(
    scope="module",
    params=["redis_server", pytest.param("valkey_server", marks=pytest.mark.once)],
    ids=["redis", "valkey"],
)
def blocking(request: pytest.FixtureRequest) -> Iterator[BlockingRedis]:
    """Yield a blocking client of Redis, then of Valkey, for many short scripts."""
    with BlockingRedis.from_url(request.getfixturevalue(request.param).url) as client:
        yield client


STEPS = st.lists(st.tuples(st.floats(0.0, 1.5), st.integers(1, 4)), min_size=1, max_size=25)
WAVERING = st.lists(
    st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 1.0), st.integers(1, 4)), min_size=1, max_size=25
)
EXACT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestModels:
    """Each script decides as an exact model does."""

    @EXACT
    @given(window=st.integers(16, 10**9), limit=st.integers(1, 20), steps=STEPS)
    def test_sliding_window(
        self, blocking: BlockingRedis, window: int, limit: int, steps: list[tuple[float, int]]
    ):
        """The log allows exactly what fits into the window that ends now."""
        blocking.delete("simulated")
        limiter = Simulated(blocking, "limit_sliding", window, limit)
        log: list[tuple[int, int]] = []
        now = NOW

        for gap, cost in steps:
            now += int(gap * window / limit)
            inside = [(at, amount) for at, amount in log if at > now - window]
            used = sum(amount for _, amount in inside)
            allowed, remaining, retry, reset = limiter.hit(now, cost)
            assert allowed == (used + cost <= limit)

            if allowed:
                log.append((now, cost))
                assert (remaining, retry, reset) == (limit - used - cost, 0, window)
            else:
                assert remaining == limit - used

                if cost <= limit:
                    later = now + retry
                    assert sum(a for at, a in log if at > later - window) + cost <= limit
                    assert sum(a for at, a in log if at > later - 1 - window) + cost > limit

    @EXACT
    @given(window=st.integers(16, 10**9), limit=st.integers(1, 20), steps=STEPS)
    def test_frequency(
        self, blocking: BlockingRedis, window: int, limit: int, steps: list[tuple[float, int]]
    ):
        """No window ever holds more than the limit, and buckets free when the model's do."""
        blocking.delete("simulated")
        limiter = Simulated(blocking, "limit_frequency", window, limit)
        width = math.ceil(window / 16)
        log: list[tuple[int, int]] = []
        now = NOW

        def used_at(at: int) -> int:
            return sum(a for t, a in log if t // width >= (at - window) // width)

        for gap, cost in steps:
            now += int(gap * window / limit)
            used = used_at(now)
            allowed, remaining, retry, _ = limiter.hit(now, cost)
            assert allowed == (used + cost <= limit)

            if allowed:
                log.append((now, cost))
                assert remaining == limit - used - cost
                assert sum(amount for at, amount in log if at > now - window) <= limit
            else:
                assert remaining == limit - used

                if cost <= limit:
                    assert 0 < retry <= window + width
                    assert used_at(now + retry) + cost <= limit
                    assert used_at(now + retry - 1) + cost > limit

    @EXACT
    @given(
        rate=st.one_of(st.floats(0.01, 10.0), st.integers(1, 100_000).map(float)),
        share=st.floats(0.0, 0.49),
        steps=STEPS,
    )
    def test_token_bucket(
        self, blocking: BlockingRedis, rate: float, share: float, steps: list[tuple[float, int]]
    ):
        """The bucket's level is exact, for any rate, and for bursts below half of it."""
        blocking.delete("simulated")
        rate = round(rate, 4)
        burst = max(1, int(rate * share))
        tokens, period = _rate(rate, 1.0)
        limiter = Simulated(blocking, "limit_bucket", period, tokens, burst)
        speed = Fraction(tokens, period)
        level, seen, now = Fraction(burst), NOW, NOW

        for gap, cost in steps:
            now += int(gap * cost / speed)
            level, seen = min(Fraction(burst), level + (now - seen) * speed), now
            allowed, remaining, retry, reset = limiter.hit(now, cost)
            assert allowed == (level >= cost)

            if allowed:
                level -= cost
                assert retry == 0
            elif cost <= burst:
                assert retry == math.ceil((cost - level) / speed)

            assert remaining == math.floor(level)
            assert reset == math.ceil((burst - level) / speed)

    def test_the_model_would_see_a_broken_limiter(self, blocking: BlockingRedis):
        """The control: a fixed window, as the original's, lets twice the limit through at its edge."""
        fixed = """
        local count = redis.call('INCRBY', KEYS[1] .. math.floor(ARGV[3] / ARGV[1]), 1)
        return count <= tonumber(ARGV[2])
        """
        window, limit = 1_000_000, 5
        times = [NOW + window - 1] * limit + [NOW + window + 1] * limit
        allowed = [t for t in times if blocking.eval(fixed, 1, "fixed", window, limit, t)]
        assert len([t for t in allowed if t > allowed[-1] - window]) == 2 * limit

    @EXACT
    @given(window=st.integers(16, 10**9), limit=st.integers(1, 20), steps=WAVERING)
    def test_a_clock_that_wavers(
        self, blocking: BlockingRedis, window: int, limit: int, steps: list[tuple[float, float, int]]
    ):
        """When the server's clock steps back within a window, time stands still; what was counted counts."""
        blocking.delete("simulated")
        exact = Simulated(blocking, "limit_sliding", window, limit)
        log: list[tuple[int, int]] = []
        latest = NOW

        for gap, back, cost in steps:
            latest += int(gap * window / limit)
            now = latest - int(back * window)
            still = max([now, *(at for at, _ in log)])
            log = [(at, amount) for at, amount in log if at > still - window]
            used = sum(amount for _, amount in log)
            allowed, remaining, retry, _ = exact.hit(now, cost)
            assert allowed == (used + cost <= limit)

            if allowed:
                log.append((still, cost))
            else:
                assert remaining == limit - used
                assert cost > limit or sum(a for at, a in log if at > now + retry - window) + cost <= limit
                assert retry <= 2 * window

    @EXACT
    @given(window=st.integers(16, 10**9), limit=st.integers(1, 20), steps=WAVERING)
    def test_buckets_under_a_clock_that_wavers(
        self, blocking: BlockingRedis, window: int, limit: int, steps: list[tuple[float, float, int]]
    ):
        """So it does in buckets, at the beginning of the newest one."""
        blocking.delete("simulated")
        limiter = Simulated(blocking, "limit_frequency", window, limit)
        width = math.ceil(window / 16)
        log: list[tuple[int, int]] = []
        latest = NOW

        for gap, back, cost in steps:
            latest += int(gap * window / limit)
            now = latest - int(back * window)
            still = max([now, *(bucket * width for bucket, _ in log)])
            log = [(bucket, amount) for bucket, amount in log if bucket >= (still - window) // width]
            used = sum(amount for _, amount in log)
            allowed, remaining, retry, _ = limiter.hit(now, cost)
            assert allowed == (used + cost <= limit)

            if allowed:
                log.append((still // width, cost))
            else:
                assert remaining == limit - used
                assert retry <= 2 * (window + width)

    @pytest.mark.parametrize("script", ["limit_sliding", "limit_frequency", "limit_bucket"])
    def test_a_microsecond_back_empties_nothing(self, blocking: BlockingRedis, script: str):
        """A full window stays full when the server's clock steps back a little, wherever it stands."""
        for now in (NOW, NOW + 1, NOW + 62_500):
            blocking.delete("simulated")
            args = (1_000_000, 1, 5) if script == "limit_bucket" else (1_000_000, 5)
            limiter = Simulated(blocking, script, *args)
            assert limiter.hit(now, 5)[0] == 1
            assert limiter.hit(now - 1, 1)[0] == 0

    def test_costs_no_more_with_many_entries(self, blocking: BlockingRedis):
        """A log of 20,000 hits is purged, and its denials are dated, in a few commands."""
        blocking.delete("simulated")
        window, limit = 1_000_000, 20_000
        limiter = Simulated(blocking, "limit_sliding", window, limit)
        blocking.rpush("simulated", *(f"{NOW + n} {n} 1" for n in range(limit)))
        blocking.config_resetstat()
        assert limiter.hit(NOW + limit, 5_000) == [0, 0, window - limit + 4_999, window - 1]
        assert limiter.hit(NOW + window + 9_999, 1)[:2] == [1, 9_999]
        assert blocking.llen("simulated") == 10_001
        stats = blocking.info("commandstats")
        assert isinstance(stats, dict)
        assert sum(stats[f"cmdstat_{name}"]["calls"] for name in ("lindex", "ltrim", "rpush")) < 100

    @pytest.mark.parametrize("script", ["limit_sliding", "limit_frequency"])
    def test_a_clock_that_steps_back(self, blocking: BlockingRedis, script: str):
        """When the server's clock steps back an hour, no key is locked for longer than its window."""
        blocking.delete("simulated")
        limiter = Simulated(blocking, script, 1_000_000, 2)
        limiter.hit(NOW, 2)
        earlier = NOW - 3_600_000_000
        replies = [limiter.hit(earlier + n * 500_000, 1)[0] for n in range(5)]
        assert 1 in replies

    def test_a_bucket_whose_clock_steps_back(self, blocking: BlockingRedis):
        """The bucket counts as empty then, and fills at its rate."""
        blocking.delete("simulated")
        limiter = Simulated(blocking, "limit_bucket", 1_000_000, 1, 2)
        limiter.hit(NOW, 2)
        reply = limiter.hit(NOW - 3_600_000_000, 1)
        assert reply == [0, 0, 1_000_000, 2_000_000]
