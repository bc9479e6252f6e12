"""Values of a request that travel with its work."""

from __future__ import annotations

from contextvars import ContextVar

import pytest

from ws_core.context import capture, carry, restored

tenant: ContextVar[str] = ContextVar("tenant", default="")


class TestContext:
    def test_travels(self) -> None:
        """What was captured is there again within the block; unknown names are passed over."""
        carry("x-tenant", tenant)
        carry("x-tenant", tenant)
        assert "x-tenant" not in capture()
        token = tenant.set("a")
        sent = {**capture(), "unknown": "x"}
        tenant.reset(token)
        assert sent["x-tenant"] == "a"

        with restored(sent):
            assert tenant.get() == "a"

        assert tenant.get() == ""

    def test_a_name_belongs_to_one(self) -> None:
        """Another variable under a name that is taken is refused."""
        carry("x-tenant", tenant)

        with pytest.raises(ValueError, match="'x-tenant'"):
            carry("x-tenant", ContextVar("other", default=""))
