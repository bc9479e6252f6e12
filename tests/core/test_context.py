"""Values of a request that travel with its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from ws_core.context import capture, carry, restored

tenant: ContextVar[str] = ContextVar("tenant", default="")


@contextmanager
def as_tenant(value: str) -> Iterator[None]:
    """Be a tenant."""
    token = tenant.set(value)

    try:
        yield
    finally:
        tenant.reset(token)


class TestContext:
    def test_travels(self) -> None:
        """What was captured is there again within the block; unknown names are passed over."""
        carry("x-tenant", tenant.get, as_tenant)
        carry("x-tenant", tenant.get, as_tenant)
        assert "x-tenant" not in capture()

        with as_tenant("a"):
            sent = {**capture(), "unknown": "x"}

        assert sent["x-tenant"] == "a"

        with restored(sent):
            assert tenant.get() == "a"

        assert tenant.get() == ""

    def test_a_name_belongs_to_one(self) -> None:
        """Another value under a name that is taken is refused."""
        carry("x-tenant", tenant.get, as_tenant)

        with pytest.raises(ValueError, match="'x-tenant'"):
            carry("x-tenant", str, as_tenant)
