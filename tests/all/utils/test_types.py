"""What type checkers see of the helpers; mypy reads the assertions, and running them checks the values."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from wintersweet.utils.base import XmlValue, package_task, xml_decode


async def test_packaged_tasks() -> None:
    """Both kinds of functions become coroutine functions of their result's type."""

    async def later(value: int) -> str:
        return str(value)

    one, other = package_task(later, 1), package_task(str, 1)
    assert_type(one, Callable[[], Coroutine[Any, Any, str]])
    assert_type(await one(), str)
    assert_type(await other(), str)


def test_xml() -> None:
    """What is read has a type that says all it can be."""
    assert_type(xml_decode("<a/>"), dict[str, XmlValue])
