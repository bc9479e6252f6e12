"""The blocking twin of ws-redislock is generated, and up to date."""

from __future__ import annotations

from tools.generate_sync_locks import generate, main, translate


class TestSyncLocks:
    """``tools/generate_sync_locks.py``."""

    def test_is_up_to_date(self):
        """What is in the package is what the generator writes."""
        assert main(["--check"]) == 0

    def test_leaves_no_await(self):
        """No generated file has a word of asyncio's left."""
        for path, text in generate().items():
            assert "await " not in text, path.name
            assert "async " not in text, path.name

    def test_translates(self):
        """A coroutine becomes a function, an async block a block."""
        source = "async def f(self) -> None:\n    async with a:\n        await b.aclose()\n"
        assert translate(source) == "def f(self) -> None:\n    with a:\n        b.close()\n"
