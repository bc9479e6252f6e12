"""The queue in front of a link."""

from __future__ import annotations

import asyncio

from ws_pool._redis.connection.queue import CommandQueue, QueuedCommand


def waiting(deadline: float, data: bytes = b"x") -> QueuedCommand:
    """Make a piece that waits."""
    slot = asyncio.get_running_loop().create_future()
    return QueuedCommand(slot, data, 1, raw=False, since=0.0, deadline=deadline)


async def test_bounds() -> None:
    """It is full by number and by bytes."""
    queue = CommandQueue(2, 10)
    seen = []

    for data in (b"x", b"x"):
        seen.append(queue.full)
        queue.append(waiting(1.0, data))

    assert [*seen, queue.full] == [False, False, True]
    assert len(queue.drain()) == 2
    assert (len(queue), queue.bytes, queue.next_deadline, queue.full) == (0, 0, None, False)
    heavy = CommandQueue(2, 10)
    heavy.append(waiting(1.0, b"x" * 10))
    assert heavy.full


async def test_those_who_have_gone_are_passed_over() -> None:
    """A cancelled command is neither sent nor failed, and its bytes are free."""
    queue = CommandQueue(9, 100)
    pieces = [waiting(1.0) for _ in range(4)]

    for piece in pieces:
        queue.append(piece)

    pieces[0].reply.cancel()  # type: ignore[attr-defined]  # it is a future
    pieces[2].reply.cancel()  # type: ignore[attr-defined]
    assert queue.head() is pieces[1]
    assert queue.popleft() is pieces[1]
    queue.remove_cancelled()
    assert (len(queue), queue.bytes) == (1, 1)
    assert queue.drain() == [pieces[3]]
    assert queue.head() is None


async def test_deadlines() -> None:
    """Only those are taken whose time is over; an outage shortens all waits, its end makes them anew."""
    queue = CommandQueue(9, 100)

    for deadline in (1.0, 2.0, 3.0):
        queue.append(waiting(deadline))

    assert [late.deadline for late in queue.expire(1.0)] == [1.0]
    assert queue.next_deadline == 2.0
    queue.shorten_deadlines(2.5)
    assert queue.expire(2.4) != []
    assert queue.next_deadline == 2.5
    queue.extend_deadlines(9.0)
    assert queue.expire(8.9) == []
    assert queue.next_deadline == 9.0
