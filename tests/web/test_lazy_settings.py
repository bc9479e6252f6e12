"""The proxy `settings`: whose settings it shows, when they are loaded, and how a test changes them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ws_web import Settings, SettingsError, create_app
from ws_web import settings as proxy
from ws_web.conf import LazySettings
from ws_web.testing import AppClient


class TestWhoseSettings:
    """Settings belong to their application."""

    async def test_two_applications(self) -> None:
        """In a request each sees its own; elsewhere those of the first count."""
        apps = [create_app(Settings(LISTEN_PORT=port)) for port in (1001, 1002)]

        for app in apps:

            @app.get("/")
            async def endpoint() -> int:
                return int(proxy.LISTEN_PORT)

        for app, port in zip(apps, (1001, 1002), strict=True):
            async with AppClient(app) as client:
                assert (await client.get("/")).data() == port

                with proxy.override(LISTEN_PORT=7):
                    assert (await client.get("/")).data() == 7

        assert proxy.LISTEN_PORT == 1001


class TestProxy:
    """The lazy proxy."""

    def test_it_loads_on_first_use_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is read before the first attribute."""
        lazy = LazySettings()
        assert "not loaded" in repr(lazy)
        monkeypatch.setenv("WS_LISTEN_PORT", "77")
        assert lazy.LISTEN_PORT == 77
        monkeypatch.setenv("WS_LISTEN_PORT", "78")
        assert lazy.LISTEN_PORT == 77
        assert lazy.initialize().LISTEN_PORT == 78
        assert "78" in repr(lazy)

    def test_threads_load_it_once(self) -> None:
        """Two first users get the same settings."""
        made = []

        class Counting(Settings):
            def __init__(self, **values: Any) -> None:
                made.append(1)
                super().__init__(**values)

        lazy = LazySettings(Counting)
        threads = [threading.Thread(target=lambda: lazy.DEBUG) for _ in range(8)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert made == [1]

    def test_extra_is_reached_by_attribute(self) -> None:
        """An undeclared setting reads like a declared one."""
        with proxy.override(CURRENCY="EUR"):
            assert proxy.CURRENCY == "EUR"

    def test_an_unknown_name_is_an_attribute_error_with_a_proposal(self) -> None:
        """The original returned None for it."""
        with pytest.raises(AttributeError, match=r"no setting LISTEN_PROT: did you mean LISTEN_PORT\?"):
            _ = proxy.LISTEN_PROT

        with pytest.raises(AttributeError, match=r"no setting XYZ$"):
            _ = proxy.XYZ

        assert not hasattr(proxy, "__wrapped__")

    def test_override_is_undone_even_after_an_error(self) -> None:
        """The block's end restores what was before."""
        with pytest.raises(ZeroDivisionError), proxy.override(DEBUG=True):
            _ = 1 / (not proxy.DEBUG)

        assert not proxy.DEBUG

    def test_override_merges_and_nests(self) -> None:
        """Sections are merged; inner overrides win."""
        with (
            proxy.override(DATABASES={"default": {"url": "mysql://a", "maxsize": 1}}),
            proxy.override(DATABASES={"default": {"maxsize": 2}}, X=1) as inner,
        ):
            assert proxy.DATABASES == {"default": {"url": "mysql://a", "maxsize": 2}}
            assert inner.extra == {"X": 1}
            assert inner.describe()["DATABASES.default.maxsize"].source == "arguments"

        assert proxy.DATABASES == {}

    def test_override_keeps_where_the_others_came_from(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An override does not make everything look like an argument."""
        monkeypatch.setenv("WS_LISTEN_PORT", "77")

        with proxy.override(DEBUG=True) as changed:
            assert changed.describe()["LISTEN_PORT"].source == "environment"
            assert changed.describe()["DEBUG"].source == "arguments"

    def test_a_wrong_override_changes_nothing(self) -> None:
        """The error comes before the block."""
        with pytest.raises(SettingsError, match="DEBUGG"), proxy.override(DEBUGG=True):
            pytest.fail("not reached")

        assert not proxy.DEBUG

    def test_it_cannot_be_assigned(self) -> None:
        """The message says what to do in a test."""
        with pytest.raises(AttributeError, match=r"settings\.override"):
            proxy.DEBUG = True
