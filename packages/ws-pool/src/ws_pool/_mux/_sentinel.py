"""Asking Sentinels where the master is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from ws_pool._mux._endpoint import Endpoint, connect
from ws_pool._mux._errors import LinkLost
from ws_pool._mux._limits import Limits
from ws_pool._mux._link import Link
from ws_pool._mux._wire import Packer
from ws_pool.errors import UnavailableError

__all__ = ("MasterFinder",)


class MasterFinder:
    """
    Finds the master of a service.

    Args:
        sentinels: Host and port of each Sentinel; the one that answered is asked first next time.
        service: The master's name.
        greeting: How to greet a Sentinel.
        master: How to greet the master.
        packer: Packs commands.
        timeout: Seconds for each Sentinel.
    """

    def __init__(  # noqa: PLR0913 - made in one place only, by name
        self,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        *,
        greeting: Endpoint,
        master: Endpoint,
        packer: Packer,
        timeout: float = 1.0,
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._greeting = greeting
        self._master = master
        self._packer = packer
        self._timeout = timeout

    async def __call__(self) -> Endpoint:
        """
        Ask the Sentinels one after the other.

        Returns:
            The master's endpoint.

        Raises:
            UnavailableError: No Sentinel knows the master.
        """
        failures: list[str] = []

        for index, (host, port) in enumerate(self._sentinels):
            try:
                address = await self._ask(host, port)
            except (OSError, TimeoutError, RedisError, LinkLost) as error:
                failures.append(f"{host}:{port}: {str(error) or type(error).__name__}")
                continue

            if address is None:
                failures.append(f"{host}:{port} does not know it")
                continue

            self._sentinels.insert(0, self._sentinels.pop(index))
            return self._master.at(*address)

        message = f"no Sentinel can tell the master of {self._service!r} ({'; '.join(failures)})"
        raise UnavailableError(message, service=self._service)

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        loop = asyncio.get_running_loop()
        link = Link(_Alone(), Limits(command_timeout=self._timeout))

        try:
            async with asyncio.timeout(self._timeout):
                await connect(self._greeting.at(host, port), link, self._packer, timeout=self._timeout)
                slot = loop.create_future()
                link.send(slot, self._packer.pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)))
                reply: Any = await slot
        finally:
            link.kill("asked")

        return None if reply is None else (reply[0].decode(), int(reply[1]))


class _Alone:
    """The owner of a link that is used for one question."""

    def link_has_room(self, link: Link) -> None:
        """Do nothing."""

    def link_lost(self, link: Link, reason: str) -> None:
        """Do nothing: the slot was told."""

    def link_pushed(self, link: Link, message: list[Any]) -> None:
        """Do nothing."""
