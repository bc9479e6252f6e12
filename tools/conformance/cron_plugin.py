"""A pytest plugin: whatever cronsim's and croniter's tests ask for, our trigger is asked as well."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final

import croniter
import cronsim

from ws_tasks.errors import ScheduleError
from ws_tasks.triggers import CronTrigger

# Question → both answers: seconds since the epoch, null for no date, or what was refused.
_answers: Final[dict[str, tuple[object, object]]] = {}
_originals: Final[dict[str, Any]] = {}


def _ours(expression: str, zone: tzinfo | str | None, start: float | None, *, back: bool) -> object:
    try:
        trigger = CronTrigger(expression, tz=zone or UTC)
    except (ScheduleError, ValueError) as error:
        return f"refused: {error}"

    if start is None:
        return "accepted"

    return trigger.last(math.ceil(start) - 1) if back else trigger.after(start)


def _note(
    expression: str, zone: tzinfo | str | None, start: float | None, theirs: object, *, back: bool = False
) -> None:
    ours = _ours(expression, zone, start, back=back)
    refused = [str(answer).startswith("refused") for answer in (theirs, ours)]
    question = json.dumps([expression, str(zone), start, "last" if back else "next"])
    _answers[question] = ("refused", "refused") if all(refused) else (theirs, ours)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _zone(moment: Any) -> Any:
    """Return a zone by its name where it has one: the standard library does not take pytz's objects."""
    return getattr(moment, "zone", None) or getattr(moment, "key", None) or moment


class _CronSim(cronsim.CronSim):
    def __init__(self, expr: str, dt: datetime, reverse: bool = False) -> None:  # noqa: FBT002 - theirs
        self.question = expr, _zone(dt.tzinfo), reverse
        self.start = _seconds(dt)

        try:
            super().__init__(expr, dt, reverse)
        except cronsim.CronSimError as error:
            _note(expr, None, None, f"refused: {error}")
            raise

        _note(expr, None, None, "accepted")

    def __next__(self) -> datetime:
        expression, zone, back = self.question

        try:
            found = super().__next__()
        except StopIteration:
            _note(expression, zone, self.start, None, back=back)
            raise

        _note(expression, zone, self.start, _seconds(found), back=back)
        self.start = _seconds(found)
        return found


def _comparable(expression: object, options: dict[str, Any]) -> str | None:
    """Return a croniter expression in our notation; None when it has what no crontab has."""
    usual = {"start_time", "ret_type", "max_years_between_matches", "day_or"}
    special = {name for name, value in options.items() if value} - usual

    if not isinstance(expression, str) or special or options.get("day_or") is False:
        return None

    fields = expression.split()

    if len(fields) == 6:  # their seconds come last
        fields = [fields[5], *fields[:5]]

    return " ".join(fields) if len(fields) in {5, 6} or expression.startswith("@") else None


def _init(self: Any, expr_format: Any, start_time: Any = None, *args: Any, **options: Any) -> None:
    self.ws_expression = None if args else _comparable(expr_format, options)

    try:
        _originals["__init__"](self, expr_format, start_time, *args, **options)
    except (croniter.CroniterBadCronError, croniter.CroniterBadDateError) as error:
        if self.ws_expression is not None:
            _note(self.ws_expression, None, None, f"refused: {error}")

        raise

    if self.ws_expression is not None:
        _note(self.ws_expression, None, None, "accepted")


def _get_next(self: Any, *args: Any, **options: Any) -> Any:
    expression, start, back = self.ws_expression, self.cur, options.get("is_prev")
    back = bool(self._is_prev if back is None else back)
    zone = _zone(self.tzinfo)

    if options.get("start_time") is not None or args:
        expression = None

    try:
        found = _originals["_get_next"](self, *args, **options)
    except croniter.CroniterBadDateError as error:
        if expression is not None:
            _note(expression, zone, start, f"refused: {error}", back=back)

        raise

    if expression is not None and options.get("update_current") is not False:
        _note(expression, zone, start, self.cur, back=back)

    return found


def pytest_configure() -> None:
    """Put recorders in the places of both classes."""
    cronsim.CronSim = _CronSim  # type: ignore[misc]
    their = croniter.croniter
    _originals.update({"__init__": their.__init__, "_get_next": their._get_next})
    their.__init__ = _init
    their._get_next = _get_next


def pytest_unconfigure() -> None:
    """Write down the answers."""
    Path(os.environ["WS_CRON_ANSWERS"]).write_text(json.dumps(_answers), encoding="utf-8")
