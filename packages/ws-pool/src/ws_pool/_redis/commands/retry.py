"""When a command is repeated after its connection was lost. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Literal

from ws_pool.errors import UsageError

RetryPolicy = Literal["safe", "at_least_once"]


def checked_retry(rule: Any) -> RetryPolicy:  # Any: what a caller has written
    """Return a rule unchanged; raise UsageError for anything else."""
    if rule == "safe" or rule == "at_least_once":  # noqa: PLR1714 - mypy narrows this form only
        return rule  # type: ignore[no-any-return]  # it is one of the two

    raise UsageError(f"retry must be 'safe' or 'at_least_once', not {rule!r}")


def retry_of(
    options: MutableMapping[str, Any], default: RetryPolicy
) -> RetryPolicy:  # Any: redis-py's options
    """Remove the rule from a command's options and return it, or the default."""
    return checked_retry(options.pop("retry", default))
