"""URLs that are wrong are refused when a lock is made, without their passwords."""

from __future__ import annotations

import pytest

from ws_redislock import MutexLock, sync
from ws_redislock.errors import UsageError


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis:/u:hunter2@h", "begins with redis://, rediss://, unix://, not 'redis:***@h'"),
        ("u:hunter2@h", "not 'u:***@h'"),
        (
            "redis://u:hunter2@h/shop",
            "'redis://u:***@h/shop' is wrong: its path must be the number of a database",
        ),
        ("redis://u:hunter2@h:port/0", "is wrong: Port could not be cast"),
        ("redis://u:hunter2@h/0?db=x", "is wrong: Invalid value for 'db'"),
        ("redis://u:hunter2@h?token=hunter2", "is wrong: got an unexpected keyword argument 'token'"),
        ("redis://u:hunter2@[h", "is wrong: "),
        ("redis://:12#hunter2@h", "it must not have #"),
        ("redis://u:hunter2@h,g", "it names one host"),
        ("redis://u:hunter2@h/1?db=2", "it has db twice"),
        ("redis://u:hunter2@h?password=x", "it has password twice"),
        ("unix://run/redis.sock", "three slashes"),
    ],
)
def test_wrong_ones(url: str, part: str) -> None:
    """Instead of another database, an error at the first use, or the name of a pool."""
    for make in (lambda: MutexLock(url, "k", 60), lambda: sync.MutexLock(url, "k", 60)):
        with pytest.raises(UsageError) as refused:
            make()

        assert part in str(refused.value)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/1/",
        "redis://h?db=1&max_connections=3",
        "rediss://u@h?ssl_cert_reqs=none",
        "unix:///s?db=1",
    ],
)
def test_right_ones(url: str) -> None:
    """What redis-py reads as it is written is taken."""
    MutexLock(url, "k", 60)
    sync.MutexLock(url, "k", 60)
