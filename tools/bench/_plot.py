"""The plot of a benchmark: horizontal bars as an SVG that follows the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tools.bench import _units
from tools.bench._model import RATE, CaseResult

__all__ = ("draw",)

WIDTH = 760
BAR = 22
GAP = 8
LABEL = 190
VALUE = 170
TITLE = 30

_STYLE = """
  .title { font: 600 15px system-ui, sans-serif; fill: var(--ink) }
  .case { font: 600 13px system-ui, sans-serif; fill: var(--ink) }
  .note { font: 11px system-ui, sans-serif; fill: var(--soft) }
  .label { font: 12.5px system-ui, sans-serif; fill: var(--ink) }
  .ours { font-weight: 600 }
  .value { font: 12px ui-monospace, monospace; fill: var(--soft) }
  .bar { fill: var(--peer) }
  .bar.ours { fill: var(--ours) }
  .whisker { stroke: var(--ink); stroke-width: 1.2; opacity: .65 }
  .axis { stroke: var(--line); stroke-width: 1 }
  svg { --ink: #1f2430; --soft: #5b6474; --line: #c9cfd8; --ours: #0f9d8f; --peer: #aab4c3 }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6e9ef; --soft: #a3adbd; --line: #4a5261; --ours: #2cc7b6; --peer: #5f6b7d }
  }
"""


def draw(title: str, results: Sequence[CaseResult]) -> str:
    """
    Draw all cases below each other; ours is the first candidate of each and set off by colour.

    Args:
        title: Heading of the plot.
        results: The cases.

    Returns:
        An SVG document.
    """
    parts: list[str] = []
    y = 44.0

    for result in results:
        block, height = _block(result, y)
        parts.extend(block)
        y += height

    height = round(y + 6)
    size = f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {size}>',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="0" y="20">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _block(result: CaseResult, top: float) -> tuple[list[str], float]:
    metric = result.case.show
    shown = [c.name for c in result.case.candidates if metric in result.rounds[c.name]]
    summaries = {name: result.summary(name, metric) for name in shown}
    longest = max((summary.high for summary in summaries.values()), default=0.0) or 1.0
    room = WIDTH - LABEL - VALUE
    better = "more is better" if metric == RATE else "less is better"
    unit = {"wall": "time per operation", "cpu": "CPU time per operation", "rate": "operations per second"}
    note = f'<tspan class="note" dx="8">{escape(unit.get(metric, metric))}, {better}</tspan>'
    parts = [f'<text class="case" x="0" y="{top + 14:.0f}">{escape(result.case.name)}{note}</text>']
    y = top + TITLE
    bottom = y + len(shown) * (BAR + GAP)
    parts.append(f'<line class="axis" x1="{LABEL}" y1="{y - 4:.0f}" x2="{LABEL}" y2="{bottom - 2:.0f}"/>')

    for place, name in enumerate(shown):
        summary = summaries[name]
        length = max(1.5, room * summary.median / longest)
        ours = " ours" if place == 0 else ""
        middle = y + BAR / 2
        parts.append(
            f'<text class="label{ours}" x="{LABEL - 10}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(_short(name))}</text>"
        )
        parts.append(
            f'<rect class="bar{ours}" x="{LABEL}" y="{y:.0f}" width="{length:.1f}" height="{BAR}" rx="3">'
            f"<title>{escape(name)}: {escape(_units.metric(metric, summary.median))}</title></rect>"
        )
        low, high = (LABEL + room * value / longest for value in (summary.low, summary.high))
        parts.append(f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}"/>')
        text = f"{_units.metric(metric, summary.median)}{_against(result, name, shown[0])}"
        end = max(LABEL + length, high) + 8
        parts.append(f'<text class="value" x="{end:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>')
        y += BAR + GAP

    return parts, bottom - top + 18


def _against(result: CaseResult, name: str, ours: str) -> str:
    """How many times as fast ours is as this one, or nothing beside ours itself."""
    if name == ours:
        return ""

    speed = result.speed(ours, name, result.case.show).value
    return f"  {_units.times(speed)} slower" if speed >= 1 else f"  {_units.times(1 / speed)} faster"


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
