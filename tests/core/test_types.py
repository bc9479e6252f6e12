"""What type checkers see; mypy reads the assertions, and running them checks the values."""

from __future__ import annotations

from typing import assert_type

from ws_core import Singleton, catch_error
from ws_core.testing import run_virtual, virtual_time


async def test_decorated_functions_may_give_none() -> None:
    """A function whose errors are caught returns its own type or None; its parameters stay."""

    @catch_error()
    def plain(value: int) -> str:
        return str(value)

    @catch_error()
    async def later(value: int) -> str:
        return str(value)

    assert_type(plain(1), str | None)
    assert_type(await later(1), str | None)


def test_singletons_are_of_their_class() -> None:
    """The metaclass hides neither the type nor the parameters of the constructor."""

    class Named(Singleton):
        def __init__(self, name: str) -> None:
            self.name = name

    assert_type(Named("a"), Named)
    assert_type(Named("a").name, str)


def test_virtual_time() -> None:
    """Results pass through; the decorator makes a plain function."""

    @virtual_time
    async def answer(value: int) -> int:
        return value

    async def main() -> int:
        return 5

    assert_type(answer(4), int)
    assert_type(run_virtual(main()), int)
