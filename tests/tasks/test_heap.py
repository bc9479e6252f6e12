"""A heap in which removal only marks."""

from __future__ import annotations

from ws_tasks import IntervalTask
from ws_tasks._heap import TaskHeap


def test_forgets_stale_entries() -> None:
    """Starting and stopping for ever does not grow the heap."""
    heap: TaskHeap[IntervalTask] = TaskHeap()
    task = IntervalTask(1, print)
    other = IntervalTask(1, print)
    heap.push(0, other)

    for round_ in range(10_000):
        heap.push(round_, task)
        heap.discard(task)
        heap.discard(task)

    assert len(heap) == 1
    assert len(heap._heap) < 200
    assert list(heap) == [other]
    assert heap.first() == 0
    assert heap.pop() is other
    assert heap.first() is None
