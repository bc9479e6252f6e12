"""What a run leaves behind: a table for the terminal, JSON for programs, Markdown for the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tools.bench import _units
from tools.bench._model import CPU, RATE, WALL, CaseResult, Suite, Target, Verdict

__all__ = ("index_page", "markdown", "table", "to_json", "verdict_line")

_STANDARD = (RATE, WALL, CPU)


def table(result: CaseResult) -> str:
    """Draw one case for the terminal."""
    rows = _rows(result)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    case = result.case
    title = f"{case.name}  ({case.rounds} rounds, {case.loop})"
    lines = [title, "─" * len(title)]

    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())

    lines.extend(verdict_line(verdict) for verdict in result.verdicts())
    return "\n".join(lines)


def verdict_line(verdict: Verdict) -> str:
    """Say in one line what was wanted, what was measured, and whether it is met."""
    word = "met  " if verdict.met else "SHORT"
    return f"{word} {wanted(verdict.target)}: {_measured(verdict)}"


def wanted(target: Target) -> str:
    """
    Write a target as a sentence.

    Example:
        >>> wanted(Target("ours", peer="redis-py", at_least=8))
        'ours at least 8× as fast as redis-py'
    """
    of = "" if target.metric == WALL else f" ({target.metric})"

    if target.peer is None:
        bound = "at least" if target.at_least is not None else "at most"
        value = target.at_least if target.at_least is not None else target.at_most
        return f"{target.candidate}: {target.metric} {bound} {_units.metric(target.metric, value or 0.0)}"

    if target.at_least is not None:
        return f"{target.candidate} at least {target.at_least:g}× as fast as {target.peer}{of}"

    return f"{target.candidate} at most {target.at_most:g}× the cost of {target.peer}{of}"


def _measured(verdict: Verdict) -> str:
    if verdict.ratio is None:
        return _units.metric(verdict.target.metric, verdict.value)

    low, high = _units.times(verdict.ratio.low), _units.times(verdict.ratio.high)
    return f"{_units.times(verdict.value)} [{low} – {high}]"


def _rows(result: CaseResult) -> list[list[str]]:
    case = result.case
    peer = _peer(result)
    own = [m for m in _metrics(result) if m not in _STANDARD]
    head = ["candidate", "rate", "per operation", "± spread", "CPU per operation", *own]
    rows = [[*head, f"speed against {peer}"]]

    for candidate in case.candidates:
        name = candidate.name
        wall = result.summary(name, WALL)
        row = [
            name,
            _units.metric(RATE, result.summary(name, RATE).median),
            _units.seconds(wall.median),
            f"{wall.spread * 100:.1f} %",
            _units.seconds(result.summary(name, CPU).median),
        ]

        for metric in own:
            known = metric in result.rounds[name]
            row.append(_units.metric(metric, result.summary(name, metric).median) if known else "–")

        speed = result.speed(name, peer, case.show if case.show in result.rounds[peer] else WALL)
        row.append("–" if name == peer else f"{_units.times(speed.value)} [{speed.low:.2f}–{speed.high:.2f}]")
        rows.append(row)

    return rows


def _peer(result: CaseResult) -> str:
    """Whom the ratios of the table are against: the first target's peer, else the last candidate."""
    peers = [target.peer for target in result.case.targets if target.peer is not None]
    return peers[0] if peers else result.case.candidates[-1].name


def _metrics(result: CaseResult) -> list[str]:
    return list(dict.fromkeys(metric for rounds in result.rounds.values() for metric in rounds))


def to_json(suite: Suite, results: Sequence[CaseResult], facts: Mapping[str, object]) -> str:
    """Write everything that was measured, every round included."""
    document = {
        "name": suite.name,
        "title": suite.title,
        "environment": facts,
        "cases": [_case_document(result) for result in results],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _case_document(result: CaseResult) -> dict[str, object]:
    return {
        "name": result.case.name,
        "loop": result.case.loop,
        "operations": result.case.operations,
        "candidates": {
            name: {
                metric: {
                    "median": result.summary(name, metric).median,
                    "mad": result.summary(name, metric).mad,
                    "rounds": [float(f"{value:.5g}") for value in values],
                }
                for metric, values in rounds.items()
            }
            for name, rounds in result.rounds.items()
        },
        "targets": [
            {
                "wanted": wanted(verdict.target),
                "measured": _measured(verdict),
                "value": verdict.value,
                "met": verdict.met,
            }
            for verdict in result.verdicts()
        ],
    }


def markdown(suite: Suite, results: Sequence[CaseResult], facts: Mapping[str, object]) -> str:
    """Write the page of the benchmark; the facts are those of `tools.bench._machine.environment`."""
    parts = [f"# {suite.title}\n"]

    if suite.about:
        parts.append(f"{suite.about.strip()}\n")

    parts.append(f"![{suite.title}: bars per candidate]({suite.name}.svg)\n")

    for result in results:
        head, *rows = _rows(result)
        parts.append(f"## {result.case.name}\n")
        parts.append(_pipe(head, rows))

        if result.case.targets:
            verdicts = [
                [wanted(v.target), _measured(v), "met" if v.met else "short"] for v in result.verdicts()
            ]
            parts.append(_pipe(["target", "measured", ""], verdicts))

    versions = {**_strings(facts["packages"]), **_strings(facts["servers"])}
    machine = f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['python']}"
    delay = _units.seconds(float(str(facts["wake_delay_s"])))
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts.append(
        f"Measured on {machine}{'; ' if listed else ''}{listed}. A sleeping process woke\n"
        f"{delay} late (99th percentile). Medians of interleaved rounds; ratios round by round, with their\n"
        "95 % interval. Measure it yourself:\n"
    )
    parts.append(f"```sh\npython3 tools/dev.py bench {suite.name}\n```\n")
    return "\n".join(parts)


def _strings(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _pipe(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, rule, *rows)]
    return "\n".join(lines) + "\n"


def index_page(documents: Sequence[Mapping[str, object]]) -> str:
    """
    Write the overview of all benchmarks from their JSON documents.

    Args:
        documents: What `to_json` wrote, parsed.

    Returns:
        The page, in Markdown.
    """
    lines = [
        "# Benchmarks",
        "",
        "Every comparison runs all candidates in one process, in interleaved rounds, so that the ratios mean",
        "something even where the absolute figures depend on the machine. Targets that are not met stay on",
        "the page. Each page names the versions, the machine and the command that repeats it.",
        "",
    ]

    for document in sorted(documents, key=lambda item: str(item["name"])):
        lines += [
            f"## [{document['title']}]({document['name']}.md)",
            "",
            "| case | target | measured | |",
            "| --- | --- | ---: | --- |",
        ]
        cases = document["cases"]

        for case in cases if isinstance(cases, list) else []:
            for target in case["targets"]:
                met = "met" if target["met"] else "short"
                lines.append(f"| {case['name']} | {target['wanted']} | {target['measured']} | {met} |")

        lines.append("")

    return "\n".join(lines)
