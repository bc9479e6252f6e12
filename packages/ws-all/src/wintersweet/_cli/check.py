"""``wintersweet check``: the settings with their sources, and whether every server can be reached.

With ``--deploy`` also what should not reach production: `wintersweet._cli.deploy`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wintersweet._cli.deploy import Mistake, find_mistakes, find_scarcity
from wintersweet._cli.embedded import provided
from wintersweet._cli.event_loop import new_runner
from wintersweet._cli.output import add_row, new_table, print_json, stdout, success
from wintersweet._cli.project import use
from ws_core.component import Component, Health
from ws_core.errors import WsError
from ws_web import create_app
from ws_web.conf import Setting, Settings

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether one pool can be reached."""

    name: str
    ok: bool
    milliseconds: float | None
    detail: str


def check_all(*, deploy: bool = False, as_json: bool = False) -> int:
    """Print the settings, the state of every pool, and mistakes; return 1 for any failure or mistake."""
    use()
    # What a pool warns of is in the table, as the detail of its failure.
    logging.getLogger("ws_pool").addHandler(logging.NullHandler())
    settings = Settings()
    components = dict(create_app(settings).state.components)

    with new_runner() as runner:
        reached = runner.run(reach(components))
        scarce = runner.run(find_scarcity(settings, components)) if deploy else []

    described = settings.describe()
    mistakes = [*find_mistakes(settings, Path.cwd()), *scarce] if deploy else None

    if as_json:
        _print_json(described, reached, mistakes)
    else:
        _print_tables(described, reached)
        _print_mistakes(mistakes)

    return int(bool(mistakes) or not all(one.ok for one in reached))


async def reach(components: dict[str, Component]) -> list[Reached]:
    """Start each component, ask for its health, and close it."""
    found: list[Reached] = []

    for key, component in components.items():
        began = time.perf_counter()

        try:
            async with asyncio.timeout(_TIMEOUT):
                await component.start()
                health = await component.health()
        except TimeoutError as error:
            found.append(
                Reached(key, ok=False, milliseconds=None, detail=str(error) or f"no answer in {_TIMEOUT:g} s")
            )
        except WsError as error:
            found.append(Reached(key, ok=False, milliseconds=None, detail=str(error)))
        else:
            found.extend(_parts(key, health, time.perf_counter() - began))
        finally:
            await component.close()

    return found


def _parts(key: str, health: Health, seconds: float) -> list[Reached]:
    if not health.parts:
        return [Reached(key, health.ok, _ms(health.latency or seconds), health.detail)]

    return [
        Reached(f"{key}.{name}", part.ok, _ms(part.latency), part.detail or provided.get(f"{key}.{name}", ""))
        for name, part in health.parts.items()
    ]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _print_json(
    described: dict[str, Setting], reached: list[Reached], mistakes: Sequence[Mistake] | None
) -> None:
    answer = {
        "ok": not mistakes and all(one.ok for one in reached),
        "settings": {name: {"value": one.value, "source": one.source} for name, one in described.items()},
        "reached": [asdict(one) for one in reached],
        **({} if mistakes is None else {"mistakes": [asdict(one) for one in mistakes]}),
    }
    print_json(answer)


def _print_tables(described: dict[str, Setting], reached: list[Reached]) -> None:
    console = stdout()
    shown = new_table("Settings", "Name", "Value", "Source")

    for name, one in described.items():
        add_row(shown, name, str(one.value), one.source, style="dim" if one.source == "default" else "")

    console.print(shown)
    console.print()

    if not reached:
        console.print("No pools are set: nothing to reach.")
        return

    shown = new_table("Servers", "Name", "State", "Time", "Detail")

    for part in reached:
        time_taken = None if part.milliseconds is None else f"{part.milliseconds} ms"
        add_row(shown, part.name, success(part.ok), time_taken, part.detail)

    console.print(shown)


def _print_mistakes(mistakes: Sequence[Mistake] | None) -> None:
    if mistakes is None:
        return

    console = stdout()
    console.print()

    if not mistakes:
        console.print("Ready for production: no mistake found.")
        return

    shown = new_table("Not for production", "Name", "Problem", "Remedy")

    for one in mistakes:
        add_row(shown, one.setting, one.problem, one.remedy)

    console.print(shown)
