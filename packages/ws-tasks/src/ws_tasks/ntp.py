"""The time of NTP servers, asked for now and then. Needs ``ws-tasks[ntp]``.

For programs whose machine's clock cannot be trusted. The clock itself is not set.
"""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections.abc import Iterable
from typing import Any, Self

from ws_core.errors import MissingExtraError, NotReadyError, describe

try:
    import ntplib  # type: ignore[import-untyped]  # it has no annotations
except ModuleNotFoundError as _error:
    _message = "ws_tasks.ntp needs ntplib: pip install 'ws-tasks[ntp]'"
    raise MissingExtraError(_message, requirement="ws-tasks[ntp]") from _error

from ws_tasks._threads import ThreadPool
from ws_tasks._validation import check_seconds
from ws_tasks.errors import ScheduleError
from ws_tasks.tasks import IntervalTask

__all__ = ("IntervalNTPClient", "IntervalNTPClientManager")

logger: logging.Logger = logging.getLogger("ws_tasks")

_PORT = 123
_UNSYNCHRONISED = 3  # the leap indicator of a server that does not know the time (RFC 5905, figure 9)
_STRATA = range(1, 16)  # RFC 5905, figure 11: 0 is a refusal, 16 not synchronised
_MISSED = 10  # intervals without an answer after which an offset is too old to be used


class IntervalNTPClient:
    """
    Asks one NTP server every ``interval`` seconds by how much this machine's clock is wrong.

    Args:
        interval: Seconds between two questions; more than 0.
        host: The server, with ``:port`` when it is not 123.
        timeout: Seconds to wait for an answer.

    Raises:
        ScheduleError: An argument is wrong.

    Example:
        ```python
        from ws_tasks.ntp import IntervalNTPClient

        client = IntervalNTPClient(3600, "pool.ntp.org")
        assert not client.ready  # nothing is asked before `async with client:` or `client.start()`
        ```
    """

    def __init__(self, interval: float, host: str, *, timeout: float = 5.0) -> None:
        self.interval: float = check_seconds("interval", interval)
        self.host: str = host
        self._timeout = check_seconds("timeout", timeout)
        self._address, self._port = _split(host)
        self._pool = ThreadPool(1)
        self._task = IntervalTask(interval, self.update, immediate=True, name=f"ntp {host}")
        self._offset = 0.0
        self._asked_at: float | None = None
        self._last_error = "the server has not been asked yet"

    def __repr__(self) -> str:
        return f"<IntervalNTPClient {self.host!r} every {self.interval:g} s>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def ready(self) -> bool:
        """Whether the offset is known, and not older than ten intervals."""
        return self._asked_at is not None and time.monotonic() - self._asked_at < _MISSED * self.interval

    @property
    def offset(self) -> float:
        """
        Seconds to be added to this machine's clock.

        Raises:
            NotReadyError: The server has not answered, or not for ten intervals.
        """
        if not self.ready:
            raise NotReadyError(
                f"NTP server {self.host!r} has not answered: {self._last_error}", host=self.host
            )

        return self._offset

    @property
    def timestamp(self) -> float:
        """
        Seconds since the epoch by the server's time.

        Raises:
            NotReadyError: The server has not answered, or not for ten intervals.
        """
        return time.time() + self.offset

    def start(self) -> None:
        """Begin to ask, at once and then at each interval. Call it from a coroutine."""
        self._task.start()

    async def stop(self) -> None:
        """Stop querying."""
        await self._task.stop(cancel=True)
        self._pool.close()

    async def update(self) -> None:
        """Query now; a failure is logged, and the offset before it goes on until it is too old."""
        ask = functools.partial(
            ntplib.NTPClient().request, self._address, port=self._port, version=4, timeout=self._timeout
        )

        try:
            answer: Any = await self._pool.run(ask)  # ntplib has no annotations
        except (OSError, ntplib.NTPException) as error:
            self._fail(describe(error, with_type=True))
            return

        if answer.leap == _UNSYNCHRONISED or answer.stratum not in _STRATA:
            what = f"leap indicator {answer.leap}, stratum {answer.stratum}"
            self._fail(f"it does not know the time itself: {what}")
            return

        self._offset = float(answer.offset)
        self._asked_at = time.monotonic()

    def _fail(self, detail: str) -> None:
        self._last_error = detail
        logger.warning("NTP server %r: %s", self.host, detail)


class IntervalNTPClientManager:
    """
    Asks several NTP servers, and takes the median of what they answer, so that one may be wrong.

    Args:
        interval: Seconds between two questions to each server; more than 0.
        hosts: The servers, as for `IntervalNTPClient`; at least one.
        timeout: Seconds to wait for an answer.

    Raises:
        ScheduleError: An argument is wrong.

    Example:
        ```python
        from ws_tasks.ntp import IntervalNTPClientManager

        clock = IntervalNTPClientManager(3600, ["0.pool.ntp.org", "1.pool.ntp.org", "2.pool.ntp.org"])
        assert len(clock.clients) == 3  # `async with clock:` begins to ask; then `clock.timestamp`
        ```
    """

    def __init__(self, interval: float, hosts: Iterable[str], *, timeout: float = 5.0) -> None:
        self.clients: tuple[IntervalNTPClient, ...] = tuple(
            IntervalNTPClient(interval, host, timeout=timeout) for host in hosts
        )

        if not self.clients:
            raise ScheduleError("hosts=[] is wrong: name one NTP server at least", option="hosts")

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def ready(self) -> bool:
        """Whether a server has answered of late."""
        return any(client.ready for client in self.clients)

    @property
    def offset(self) -> float:
        """
        Seconds to be added to this machine's clock: the median of what the servers answer.

        Raises:
            NotReadyError: No server has answered of late.
        """
        offsets = [client.offset for client in self.clients if client.ready]
        return statistics.median(offsets) if offsets else self.clients[0].offset

    @property
    def timestamp(self) -> float:
        """
        Seconds since the epoch by the servers' time.

        Raises:
            NotReadyError: No server has answered of late.
        """
        return time.time() + self.offset

    def start(self) -> None:
        """Begin to ask. Call it from a coroutine."""
        for client in self.clients:
            client.start()

    async def stop(self) -> None:
        """Stop querying."""
        for client in self.clients:
            await client.stop()


def _split(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")

    if not colon or name.endswith(":"):  # the second is an IPv6 address
        name, port = host, str(_PORT)

    if not name or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ScheduleError(f"host={host!r} is wrong: use a name, or name:port", option="host")

    return name, int(port)
