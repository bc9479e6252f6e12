"""Probes: alive, ready, started."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from tests.clock import Clock
from ws_core import Health
from ws_web import Settings, create_app
from ws_web.health import HealthMonitor
from ws_web.testing import AppClient


class Part:
    """A component whose health a test decides."""

    settings_key = "PART"
    after: Collection[str] = ()

    def __init__(self, name: str, answer: Any) -> None:
        self.name, self.answer, self.asked = name, answer, 0

    def configure(self, section: object) -> None:
        """Take anything."""

    async def start(self) -> None:
        """Start."""

    async def close(self) -> None:
        """Close."""

    def status(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    async def health(self) -> Any:
        """Answer as the test decides."""
        self.asked += 1
        answer = self.answer() if callable(self.answer) else self.answer

        if asyncio.iscoroutine(answer):
            answer = await answer

        if isinstance(answer, BaseException):
            raise answer

        return answer


class TestMonitor:
    """One round of checks at a time, remembered for a while."""

    async def test_before_and_after(self) -> None:
        """Not ready before the start and while draining."""
        monitor = HealthMonitor()
        assert not (await monitor.readiness()).ok
        monitor.mark_started([Part("a", Health(ok=True))])
        assert (await monitor.readiness()).ok
        monitor.mark_stopped()
        assert not (await monitor.readiness()).ok
        assert monitor.started

    async def test_one_ill_part_is_enough(self) -> None:
        """The others are named as well."""
        monitor = HealthMonitor()
        monitor.mark_started([Part("a", Health(ok=True)), Part("b", Health(ok=False, detail="full"))])
        readiness = await monitor.readiness()
        assert (readiness.ok, readiness.parts["a"].ok, readiness.parts["b"].detail) == (False, True, "full")

    async def test_a_raising_part_is_ill(self) -> None:
        """Only the kind of the error is shown."""
        monitor = HealthMonitor()
        monitor.mark_started([Part("a", ValueError("secret")), Part("b", TimeoutError("of its own"))])
        parts = (await monitor.readiness()).parts
        assert (parts["a"].detail, parts["b"].detail) == ("ValueError", "TimeoutError")

    async def test_a_silent_part_is_ill_in_time(self) -> None:
        """The probe answers within the time limit, however many hang."""
        never = asyncio.Event()
        monitor = HealthMonitor(timeout=0.01)
        monitor.mark_started([Part(str(n), never.wait) for n in range(5)])
        readiness = await monitor.readiness()
        assert not readiness.ok
        assert readiness.parts["0"].detail == "no answer within 0.01 s"

    async def test_answers_are_remembered(self) -> None:
        """Twenty probes are one round; after the time another one."""
        clock, part = Clock(0.0), Part("a", Health(ok=True))
        monitor = HealthMonitor(cache=1.0, clock=clock)
        monitor.mark_started([part])
        await asyncio.gather(*(monitor.readiness() for _ in range(20)))
        assert part.asked == 1
        clock.now = 0.99
        await monitor.readiness()
        assert part.asked == 1
        clock.now = 1.0
        await monitor.readiness()
        assert part.asked == 2

    async def test_a_cancelled_probe_leaves_the_next_one_working(self) -> None:
        """A client that gives up takes nothing with it."""
        gate = asyncio.Event()

        async def wait() -> Any:
            await gate.wait()
            return Health(ok=True)

        monitor = HealthMonitor()
        monitor.mark_started([Part("a", wait)])
        probe = asyncio.create_task(monitor.readiness())
        await asyncio.sleep(0)
        probe.cancel()

        with pytest.raises(asyncio.CancelledError):
            await probe

        gate.set()
        assert (await monitor.readiness()).ok


class TestRoutes:
    """What an orchestrator sees."""

    async def test_before_the_start(self) -> None:
        """Alive, but neither started nor ready."""
        client = AppClient(create_app())
        assert (await client.get("/livez")).data() == {"status": "alive"}
        assert (await client.get("/startupz")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503

    async def test_while_running_and_draining(self) -> None:
        """Ready while the components are; not any more when the end has begun."""
        app = create_app()

        async with AppClient(app) as client:
            assert (await client.get("/startupz")).data() == {"status": "started"}
            assert (await client.get("/readyz")).data() == {"status": "ready"}

        reply = await AppClient(app).get("/readyz")
        assert reply.error()["data"] == {"status": "draining"}

    @pytest.mark.parametrize("debug", [False, True])
    async def test_details_are_told_with_debug_only(self, debug: bool) -> None:
        """Anyone may probe; nobody learns what is inside."""
        app = create_app(Settings(DEBUG=debug))

        async with AppClient(app) as client:
            parts = {"pool": Health(ok=False, detail="down")}
            app.state.health.mark_started([Part("sql", Health(ok=False, detail="db1 down", parts=parts))])
            reply = await client.get("/readyz")

        assert reply.status_code == 503
        assert ("db1 down" in reply.text) is debug
