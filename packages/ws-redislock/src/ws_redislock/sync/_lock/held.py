# Written by tools/generate_sync_locks.py from ws_redislock/_lock/held.py; do not edit.
"""One acquisition of a lock, from the moment it is granted to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from ws_redislock.sync._concurrency import Event
from ws_redislock.sync._coordination.coordinator import Coordinator
from ws_redislock.sync._concurrency import CancelScope
from ws_redislock._lease.lease import Lease, boot_time
from ws_redislock.sync._lock.renewal import RenewalWatchdog
from ws_redislock.errors import LockLost
from ws_redislock.observe import LockObserver, notify, observers_of

_logger = logging.getLogger("ws_redislock")

OnLost: TypeAlias = "Callable[[Held], None]"
"""Called once, with the acquisition, when its lease is lost."""


class Held:
    """
    A lock as it is held: what ``hold()`` yields.

    Every acquisition has its own object; it stays what it is when the lock is acquired again.
    """

    __slots__ = (
        "__weakref__",
        "_coordinator",
        "_event",
        "_lease",
        "_observer",
        "_on_lost",
        "_reason",
        "_scopes",
        "_watchdog",
        "depth",
        "fence",
        "name",
        "reentry",
        "since",
        "token",
        "uncertain",
    )

    def __init__(
        self,
        *,
        name: str,
        token: str,
        fence: int,
        lease: Lease,
        coordinator: Coordinator,
        since: float,
        on_lost: OnLost | None = None,
        observer: LockObserver | None = None,
    ) -> None:
        self.name: str = name
        self.token: str = token
        self.fence: int = fence
        self.depth: int = 1
        self.uncertain: bool = False
        self.reentry: tuple[bytes, object] | None = None
        self.since: float = since
        self._lease = lease
        self._coordinator = coordinator
        self._on_lost = on_lost
        self._observer = observer
        self._reason: str | None = None
        self._event: Event | None = None
        self._scopes: list[CancelScope] = []
        self._watchdog: RenewalWatchdog | None = None

    def __repr__(self) -> str:
        state = "lost" if self._reason is not None else "held" if self.locked else "over"
        return f"<Held {self.name!r} fence={self.fence} {state}>"

    @property
    def locked(self) -> bool:
        """Whether the lease is valid now, by the clock; no I/O."""
        return self._lease.valid(boot_time())

    @property
    def remaining(self) -> float:
        """Seconds for which the lease is still valid; 0 when it is over."""
        return self._lease.remaining(boot_time())

    @property
    def lost(self) -> bool:
        """Whether the lease ended before it was released."""
        return self._reason is not None or (not self._lease.over and not self.locked)

    def check(self) -> None:
        """
        Check that the lock is still held; no I/O.

        Raises:
            LockLost: The lease is over.
        """
        if not self.locked:
            raise self._loss()

    def _loss(self) -> LockLost:
        """Return the error that reports the loss."""
        reason = self._reason or ("its deadline passed" if self.lost else "it was released")
        return LockLost(
            f"lock {self.name!r} is not held any more: {reason}; another may hold it now, "
            f"so check the fence {self.fence} wherever it is written to",
            lock=self.name,
            fence=self.fence,
            reason=reason,
        )

    def wait_lost(self) -> None:
        """Wait until the lease is lost; returns at once if it is."""
        self._coordinator.check_loop(self.name)

        if self.lost:
            return

        if self._event is None:
            self._event = Event()

        if not self.lost:  # it may have been lost while the event was made
            self._event.wait()

    def renew(self) -> bool:
        """
        Begin the lease anew, beside what the watchdog does.

        Returns:
            Whether the lock is still held.

        Raises:
            ConnectionError: The server did not answer; the lease still runs.
            UsageError: This is another event loop than that of the acquisition.
        """
        self._coordinator.check_loop(self.name)
        return self._watchdog is not None and not self._lease.over and self._watchdog.renew()

    def _begin(self, watch: RenewalWatchdog) -> None:
        """Start the watchdog."""
        self._watchdog = watch
        watch.start()

    def _end(self) -> float:
        """End the lease from this side; return the seconds for which it was still valid."""
        left = self._lease.remaining(boot_time())

        if not left and not self._lease.over:
            self._lose("its deadline passed")

        self._lease.end()

        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None  # they refer to each other: so both are freed without the collector

        return left

    def _stop_renewing(self) -> None:
        """Stop renewing: the lease ends at its deadline."""
        self._lease.renewing = False

    def _enter(self, scope: CancelScope) -> None:
        """Let the lease's loss cancel a body."""
        self._scopes.append(scope)

    def _leave(self, scope: CancelScope) -> None:
        """The body is over."""
        self._scopes.remove(scope)

    def _lose(self, reason: str) -> None:
        """Take note, once, that the lease is lost; notify waiters, bodies, the observer and the callback."""
        if self._reason is not None:
            return

        self._reason = reason
        self._lease.end()
        _logger.warning("lock %r was lost: %s (fence %d)", self.name, reason, self.fence)

        if self._event is not None:
            self._event.set()

        for scope in self._scopes:
            scope.cancel(f"lock {self.name!r} was lost: {reason}")

        notify(observers_of(self._observer), "lost", self.name, reason)

        if self._on_lost is not None:
            self._coordinator.call_back(self._on_lost, self)
