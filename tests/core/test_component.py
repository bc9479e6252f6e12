"""Components are found by settings key, put in order, and what is broken is named."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from ws_core.component import ENTRY_POINT_GROUP, KNOWN_SECTIONS, Component, Health, discover, start_order
from ws_core.errors import ConfigError, MissingExtraError, UsageError


class Part:
    """A component that does nothing."""

    def __init__(self, name: str, *after: str) -> None:
        self.name = name
        self.settings_key = name.upper()
        self.after: Collection[str] = after

    def configure(self, section: object) -> None:
        """Take anything."""

    async def start(self) -> None:
        """Start nothing."""

    async def close(self) -> None:
        """Close nothing."""

    async def health(self) -> Health:
        """Be well."""
        return Health(ok=True)

    def status(self) -> Mapping[str, object]:
        """Return nothing."""
        return {}


Install = Callable[..., None]
_numbers = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with entry points; nothing else is installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    everything = importlib.metadata.entry_points

    def only_here(*, group: str) -> importlib.metadata.EntryPoints:
        found = [e for e in everything(group=group) if e.dist is not None and e.dist.name.startswith("here-")]
        return importlib.metadata.EntryPoints(found)

    monkeypatch.setattr(importlib.metadata, "entry_points", only_here)

    def install(code: str, **entries: str) -> None:
        number = next(_numbers)
        module = f"here_module_{number}"
        (tmp_path / f"{module}.py").write_text(f"from tests.core.test_component import Part\n{code}")
        folder = tmp_path / f"here_{number}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: here-{number}\nVersion: 1.0\n")
        lines = [f"{key} = {module}:{value}\n" for key, value in entries.items()]
        (folder / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{''.join(lines)}")

    return install


def names(components: list[Component]) -> list[str]:
    """Return the names of components."""
    return [component.name for component in components]


class TestDiscover:
    """`discover`."""

    def test_loads_what_is_asked_for_and_nothing_else(self, install: Install) -> None:
        """A component is loaded by its settings key; the modules of others are not even imported."""
        install("def make(): return Part('one')", ONE="make")
        install("raise AssertionError('imported for nothing')", TWO="make")

        assert names(discover(["ONE", "NOBODY_SERVES_THIS"])) == ["one"]
        assert discover({"ONE": {}})[0] is not discover({"ONE": {}})[0]
        assert discover([]) == []

    def test_without_sections_all_are_loaded(self, install: Install) -> None:
        """None stands for all that is installed, in an order that depends on nothing but the names."""
        install("def make(): return Part('zoo')", ZOO="make")
        install("def make(): return Part('redis')", REDIS_CONFIG="make")
        install("def make(): return Part('ark')", ARK="make")
        install("def make(): return Part('log')", LOGGING_CONFIG="make")

        assert names(discover()) == ["log", "redis", "ark", "zoo"]

    def test_order_by_after(self, install: Install) -> None:
        """A component stands behind those that it names."""
        install("def make(): return Part('a', 'z', 'unknown')", A="make")
        install("def make(): return Part('z')", Z="make")

        assert names(discover()) == ["z", "a"]

    @pytest.mark.usefixtures("install")
    @pytest.mark.parametrize(("key", "requirement"), list(KNOWN_SECTIONS.items()))
    def test_a_known_section_without_its_library(self, key: str, requirement: str) -> None:
        """What is missing for a known section is named, with the line that installs it."""
        with pytest.raises(MissingExtraError, match=f"^{key} is set, but .*pip install") as caught:
            discover([key])

        assert caught.value.context["requirement"] == requirement

    def test_two_distributions_for_one_section(self, install: Install) -> None:
        """Two distributions for the same key are named, and neither is loaded."""
        install("raise AssertionError", SAME="make")
        install("raise AssertionError", SAME="make")

        with pytest.raises(
            ConfigError, match=r"^SAME is served by two .*: remove one of here-\d+ and here-\d+$"
        ):
            discover(["SAME"])

        assert discover(["OTHER"]) == []

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module'"),
            ("def other(): ...", "AttributeError"),
            ("def make(): raise OSError('disk')", "OSError: disk"),
            ("def make(wanted): ...", "TypeError"),
        ],
    )
    def test_broken_entry_points(self, install: Install, code: str, message: str) -> None:
        """A module, a name or a factory that fails is a `ConfigError` that says who and why."""
        install(code, BROKEN="make")

        with pytest.raises(
            ConfigError, match=rf"^BROKEN cannot be served: here_\S+:make of here-\d+ .*{message}"
        ) as caught:
            discover(["BROKEN"])

        assert caught.value.__cause__ is not None

    def test_own_errors_pass(self, install: Install) -> None:
        """A factory's own clear error is not wrapped."""
        install("from ws_core import UsageError\ndef make(): raise UsageError('clear')", OWN="make")

        with pytest.raises(UsageError, match=r"^clear$"):
            discover(["OWN"])

    def test_not_a_component(self, install: Install) -> None:
        """A factory that makes something else is named."""
        install("def make(): return {}", ODD="make")

        with pytest.raises(ConfigError, match="returns a dict, which is not a Component"):
            discover(["ODD"])

    def test_a_distribution_without_metadata(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even an entry point of nobody is reported."""
        entry = importlib.metadata.EntryPoint("LOST", "no_such_module:make", ENTRY_POINT_GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])

        with pytest.raises(ConfigError, match="of an unnamed distribution is broken"):
            discover()


class TestStartOrder:
    """`start_order`."""

    def test_given_order_is_kept(self) -> None:
        """Components that name nobody stay where they are; others only move behind what they need."""
        parts = [Part("a", "c"), Part("b"), Part("c"), Part("d", "a", "b")]

        assert names(start_order(parts)) == ["c", "a", "b", "d"]
        assert names(start_order([Part("x"), Part("a"), Part("m")])) == ["x", "a", "m"]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
    def test_every_permutation_is_put_right(self, order: tuple[int, ...]) -> None:
        """Whatever the given order, each component stands behind those it names."""
        parts = [Part("log"), Part("sql", "log"), Part("lock", "redis"), Part("redis", "log", "absent")]
        result = names(start_order(parts[index] for index in order))

        assert sorted(result) == ["lock", "log", "redis", "sql"]
        assert result.index("log") < result.index("sql")
        assert result.index("log") < result.index("redis") < result.index("lock")

    def test_circles_are_spelled_out(self) -> None:
        """A circle is named link by link, without the components that are not part of it."""
        parts = [Part("x", "a"), Part("a", "b"), Part("b", "c"), Part("c", "a")]

        with pytest.raises(ConfigError, match=r"in a circle: a after b after c after a$") as caught:
            start_order(parts)

        assert caught.value.context["components"] == ("a", "b", "c", "a")

    def test_after_itself(self) -> None:
        """A component that names itself is a circle too."""
        with pytest.raises(ConfigError, match="a after a"):
            start_order([Part("a", "a")])

    def test_same_name_twice(self) -> None:
        """Two components of one name are an error, not silently made one."""
        other = Part("sql")
        other.settings_key = "OTHER"

        with pytest.raises(ConfigError, match="two components are named 'sql', of SQL and OTHER: rename one"):
            start_order([Part("sql"), other])


class TestHealth:
    """`Health`."""

    def test_combine(self) -> None:
        """The whole is well when all parts are, and says which are not."""
        well = Health(ok=True, latency=0.001)
        ill = Health(ok=False, detail="refused", latency=0.5)

        assert Health.combine({"a": well}) == Health(ok=True, latency=0.001, parts={"a": well})
        whole = Health.combine({"a": well, "b": ill, "c": Health(ok=False)})
        assert (whole.ok, whole.detail, whole.latency) == (False, "b: refused; c: not well", 0.5)
        assert Health.combine({}) == Health(ok=True)

    def test_as_dict(self) -> None:
        """Plain values without what is empty, ready for JSON."""
        health = Health.combine({"a": Health(ok=False, detail="refused", latency=0.5)})

        assert json.loads(json.dumps(health.as_dict())) == {
            "ok": False,
            "detail": "a: refused",
            "latency": 0.5,
            "parts": {"a": {"ok": False, "detail": "refused", "latency": 0.5}},
        }
        assert Health(ok=True).as_dict() == {"ok": True}

    async def test_protocol(self) -> None:
        """A class with these members is a component, without inheriting; others are not."""
        part = Part("a")

        assert isinstance(part, Component)
        assert not isinstance(object(), Component)
        assert (await part.health()).ok
