"""The queue between callers and the writer of a log file: bounded, with exact accounts.

Callers append, count and evict; the caller's lock keeps them apart. The writer takes and counts
with counters of its own. Each counter has one kind of owner, so the two sides need no common lock;
what waits is the difference. A line's bytes count as waiting until they are on disk.

Urgent lines are dropped last: they wait in a queue of their own, each with the number of other lines
that were appended before it, so that the writer can take all of them in order.
"""

from __future__ import annotations

from collections import deque
from typing import Final

RESERVE: Final = 0.1  # share of the queue that only urgent lines may use


class LineQueue:
    """
    Lines on their way to a file, bounded in number and bytes.

    Example:
        >>> lines = LineQueue(max_bytes=100, max_records=10)
        >>> lines.offer(b"one")
        True
        >>> lines.take(1000), lines.waiting
        ([b'one'], 1)
        >>> lines.written([b"one"])
        >>> lines.waiting, lines.done
        (0, 1)
    """

    __slots__ = (
        "_discarded_bytes", "_done_bytes", "_evicted_bytes", "_lines", "_others_appended", "_others_evicted",
        "_others_taken", "_room", "_room_for_urgent", "_urgent", "appended", "appended_bytes", "discarded",
        "done", "evicted", "refused", "rejected",
    )  # fmt: skip

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._room_for_urgent = (max_records, max_bytes)
        self._room = (max_records * (1.0 - RESERVE), max_bytes * (1.0 - RESERVE))
        self._lines: deque[bytes] = deque()
        self._urgent: deque[tuple[int, bytes]] = deque()
        # of callers
        self.appended = self.refused = self.evicted = 0
        self.appended_bytes = self._evicted_bytes = 0
        self._others_appended = self._others_evicted = 0  # lines that are not urgent
        # of the writer
        self.done = self.rejected = self._done_bytes = self._others_taken = 0
        # of whoever stops it
        self.discarded = self._discarded_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._lines or self._urgent)

    @property
    def gone(self) -> int:
        """How many of the appended lines are no longer waiting."""
        return self.done + self.evicted + self.discarded

    @property
    def waiting(self) -> int:
        """How many lines wait to be written, those in the writer's hands included."""
        return max(0, self.appended - self.gone)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait to be written."""
        gone = self._done_bytes + self._evicted_bytes + self._discarded_bytes
        return max(0, self.appended_bytes - gone)

    @property
    def dropped(self) -> int:
        """How many lines will never be written."""
        return self.refused + self.evicted + self.discarded + self.rejected

    def offer(self, line: bytes, *, urgent: bool = False, force: bool = False) -> bool:
        """
        Append a line if there is room for it, or by force.

        A line that is longer than the whole queue has room when nothing waits.
        """
        size = len(line)

        # `waiting` and `waiting_bytes`, without their calls: this is done for each message.
        records = self.appended - self.done - self.evicted - self.discarded

        if records > 0 and not force:
            most_records, most_bytes = self._room_for_urgent if urgent else self._room
            taken = self.appended_bytes - self._done_bytes - self._evicted_bytes - self._discarded_bytes

            if records >= most_records or taken + size > most_bytes:
                return False

        # The counters first, so that the writer can never be ahead of them.
        self.appended += 1
        self.appended_bytes += size

        if urgent:
            self._urgent.append((self._others_appended, line))
        else:
            self._others_appended += 1
            self._lines.append(line)

        return True

    def evict(self, *, urgent: bool = False) -> bool:
        """Drop the oldest line that waits, an urgent one only for another; return whether there was one."""
        try:
            line = self._lines.popleft()
            self._others_evicted += 1
        except IndexError:
            if not urgent:
                return False

            try:
                line = self._urgent.popleft()[1]
            except IndexError:
                return False

        self.evicted += 1
        self._evicted_bytes += len(line)
        return True

    def take(self, size: int) -> list[bytes]:
        """Take the oldest lines, for the writer: about so many bytes of them."""
        batch: list[bytes] = []
        lines = self._lines

        while size > 0:
            try:
                if self._urgent and self._urgent_is_next():
                    line = self._urgent.popleft()[1]
                else:
                    line = lines.popleft()
                    self._others_taken += 1
            except IndexError:  # empty, or evicted at this very moment
                if not self:
                    break

                continue

            batch.append(line)
            size -= len(line)

        return batch

    def _urgent_is_next(self) -> bool:
        return self._urgent[0][0] <= self._others_taken + self._others_evicted

    def written(self, lines: list[bytes], rejected: int = 0) -> None:
        """Count lines that the writer is done with; some of them may have been rejected for good."""
        self._done_bytes += sum(map(len, lines))
        self.rejected += rejected
        self.done += len(lines)

    def discard(self) -> int:
        """Give up everything that waits, those in the writer's hands included; return how many."""
        count = self.waiting
        self._discarded_bytes += self.waiting_bytes
        self.discarded += count
        self._lines.clear()
        self._urgent.clear()
        return count
