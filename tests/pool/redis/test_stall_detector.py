"""When a silent server is given up."""

from __future__ import annotations

from ws_pool._redis.connection.stall import StallDetector


def test_an_upload_that_has_just_ended() -> None:
    """What was taken since the last look counts, also when nothing waits any more."""
    progress = StallDetector(5.0)
    assert progress.due(10.0, sent=1.0, received=0.0, written=100, unsent=80) == 15.0
    assert progress.due(15.0, sent=1.0, received=0.0, written=100, unsent=0) == 20.0
    assert progress.due(20.0, sent=1.0, received=0.0, written=100, unsent=0) == 20.0


def test_an_upload_that_stands_still() -> None:
    """Bytes that wait and do not move are not a sign of life."""
    progress = StallDetector(5.0)
    assert progress.due(10.0, sent=1.0, received=0.0, written=100, unsent=80) == 15.0
    assert progress.due(15.0, sent=1.0, received=0.0, written=200, unsent=180) == 15.0


def test_small_commands() -> None:
    """Bytes that the system of a paused server takes at once are not a sign of life either; a reply is."""
    progress = StallDetector(5.0)
    assert progress.due(6.0, sent=1.0, received=0.0, written=100, unsent=0) == 6.0
    assert progress.due(6.5, sent=1.0, received=0.0, written=900, unsent=0) == 6.0
    assert progress.due(6.5, sent=1.0, received=6.4, written=900, unsent=0) == 11.4
