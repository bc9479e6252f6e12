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

from rich.table import Table

from wintersweet._cli.deploy import Mistake, find_mistakes, find_scarcity
from wintersweet._cli.embedded import provided
from wintersweet._cli.output import print_json, stdout
from wintersweet._cli.project import use
from ws_core.component import Component, Health
from ws_core.errors import WsError
from ws_web import create_app
from ws_web.conf import Setting, Settings

__all__ = ("Reached", "check_all", "reach")

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

    # Given a factory, the runner leaves the thread's current loop alone, which may be somebody else's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
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
        "reached": [
            {"name": one.name, "ok": one.ok, "milliseconds": one.milliseconds, "detail": one.detail}
            for one in reached
        ],
        **({} if mistakes is None else {"mistakes": [asdict(one) for one in mistakes]}),
    }
    print_json(answer)


def _print_tables(described: dict[str, Setting], reached: list[Reached]) -> None:
    console = stdout()
    table = Table(title="Settings", title_justify="left", box=None, header_style="bold")

    for column in ("Name", "Value", "Source"):
        table.add_column(column, overflow="fold")

    for name, one in described.items():
        style = "dim" if one.source == "default" else ""
        table.add_row(name, _plain(one.value), one.source, style=style)

    console.print(table)
    console.print()

    if not reached:
        console.print("No pools are set: nothing to reach.")
        return

    table = Table(title="Servers", title_justify="left", box=None, header_style="bold")

    for column in ("Name", "State", "Time", "Detail"):
        table.add_column(column, overflow="fold")

    for part in reached:
        state = "[green]ok[/]" if part.ok else "[red]failed[/]"
        table.add_row(
            part.name,
            state,
            "" if part.milliseconds is None else f"{part.milliseconds} ms",
            _plain(part.detail),
        )

    console.print(table)


def _print_mistakes(mistakes: Sequence[Mistake] | None) -> None:
    if mistakes is None:
        return

    console = stdout()
    console.print()

    if not mistakes:
        console.print("Ready for production: no mistake found.")
        return

    table = Table(title="Not for production", title_justify="left", box=None, header_style="bold")

    for column in ("Name", "Problem", "Remedy"):
        table.add_column(column, overflow="fold")

    for one in mistakes:
        table.add_row(one.setting, _plain(one.problem), _plain(one.remedy))

    console.print(table)


def _plain(value: object) -> str:
    """Escape rich's markup: a value may hold brackets."""
    return str(value).replace("[", "\\[")
