"""What a block starts and closes: every pool, event bus and health checker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Is started and closed by its methods, or by an ``async with`` block."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def start(self) -> None:
        """Start; on an error nothing is left behind."""

    @abstractmethod
    async def close(self) -> None:
        """Close; may be called again."""
