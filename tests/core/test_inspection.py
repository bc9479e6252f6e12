"""Objects that are shown while they live, and notes that are taken only for somebody who watches."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ws_core import inspection
from ws_core.inspection import inspect, publish, published, watch, when_watched


class Kettle:
    """Something to show."""

    def inspect(self) -> list[dict[str, object]]:
        """Show it."""
        return [{"name": "kettle"}]


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without anybody who watches."""
    monkeypatch.setitem(inspection._state, "watched", False)
    before = list(inspection._starters)
    yield
    inspection._starters[:] = before


def test_objects_are_shown_while_they_live() -> None:
    """By kind; an object is not kept alive."""
    assert inspect("test kettles") == []
    kettle = Kettle()
    publish("test kettles", kettle)
    publish("test kettles", kettle)
    assert (published("test kettles"), inspect("test kettles")) == ([kettle], [{"name": "kettle"}])
    del kettle
    gc.collect()
    assert inspect("test kettles") == []


def test_watching() -> None:
    """A function is called once, whichever comes first."""
    calls: list[str] = []
    inspection._starters.clear()
    when_watched(lambda: calls.append("before"))
    assert calls == []
    watch()
    watch()
    when_watched(lambda: calls.append("after"))
    assert calls == ["before", "after"]
