"""What a client remembers about commands, so that it need not be found out each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.client import CaseInsensitiveDict

__all__ = ("CommandInfo", "ObservedCallbacks")


class CommandInfo:
    """What is known about a command by its first word, so that it need not be found out each time."""

    __slots__ = ("callback", "elsewhere", "may_await", "pack", "read_only")

    def __init__(
        self,
        pack: Callable[[Sequence[Any]], bytes],
        callback: Callable[..., Any] | None,
        *,
        elsewhere: bool,
        read_only: bool,
    ) -> None:
        self.pack = pack
        self.callback = callback
        self.elsewhere = elsewhere
        self.read_only = read_only
        self.may_await = not (getattr(callback, "__module__", "") or "").startswith(("redis.", "builtins"))


class ObservedCallbacks(CaseInsensitiveDict):
    """Response callbacks that tell when they change, because plans remember them."""

    changed: Callable[[], None] = staticmethod(lambda: None)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()

    def update(self, data: Any) -> None:  # type: ignore[override]  # as redis-py narrows it
        super().update(data)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()
