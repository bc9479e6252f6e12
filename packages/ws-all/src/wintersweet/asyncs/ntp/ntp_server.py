"""The time of NTP servers as in 1.x, over `ws_tasks.ntp`: until a server has answered, this machine's."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Awaitable, Iterable

from wintersweet._eager import begin
from ws_core.errors import ConfigError
from ws_tasks import ntp as library

__all__ = ("IntervalNTPClient", "IntervalNTPClientManager")


class IntervalNTPClient(library.IntervalNTPClient):
    """Asks one NTP server every ``interval`` seconds; ``port`` is a number or the name of a service."""

    def __init__(
        self,
        interval: float,
        host: str,
        version: int = 2,
        port: int | str = "ntp",
        timeout: float = 5,
    ) -> None:
        super().__init__(interval, f"{host}:{_number(port)}", timeout=timeout)
        self._running = False

    @property
    def running(self) -> bool:
        """Whether the server is asked again and again."""
        return self._running

    @property
    def usability(self) -> bool:
        """Whether the offset is known."""
        return self.ready

    @property
    def offset(self) -> float:
        """Seconds to be added to this machine's clock; 0 while that is not known, see `usability`."""
        return super().offset if self.ready else 0.0

    @property
    def timestamp(self) -> float:
        """Seconds since 1970 by the server's time, or by this machine's while that is not known."""
        return time.time() + self.offset

    def start(self) -> None:
        """Begin to ask; a client that runs is left alone."""
        if not self._running:
            super().start()
            self._running = True

    def stop(self) -> Awaitable[None]:  # type: ignore[override]  # a plain function in 1.x
        """Stop querying. It begins at once."""
        self._running = False
        return begin(super().stop(), f"stopping {self!r}")

    async def run_task(self) -> None:
        """Query now."""
        await self.update()


class IntervalNTPClientManager:
    """Asks several NTP servers, and takes the median of those that answer."""

    def __init__(
        self,
        interval: float,
        hosts: Iterable[str],
        version: int = 2,
        port: int | str = "ntp",
        timeout: float = 5,
    ) -> None:
        self.clients: list[IntervalNTPClient] = [
            IntervalNTPClient(interval, host, version, port, timeout) for host in hosts
        ]

    @property
    def timestamp(self) -> float:
        """Seconds since 1970 by the servers' time, or by this machine's while that is not known."""
        offsets = [client.offset for client in self.clients if client.usability]
        return time.time() + (statistics.median(offsets) if offsets else 0.0)

    async def initialize(self) -> None:
        """Query all servers, and begin to repeat that."""
        await asyncio.gather(*(client.run_task() for client in self.clients))

        for client in self.clients:
            client.start()

    async def stop(self) -> None:
        """Stop querying."""
        await asyncio.gather(*(client.stop() for client in self.clients))


def _number(port: int | str) -> int:
    """Return the number of a port that may be a service's name."""
    try:
        return port if isinstance(port, int) else socket.getservbyname(port, "udp")
    except OSError:
        if port == "ntp":  # a small container has no list of services
            return 123

        message = f"port={port!r} is not the name of a service: give its number"
        raise ConfigError(message, option="port") from None
