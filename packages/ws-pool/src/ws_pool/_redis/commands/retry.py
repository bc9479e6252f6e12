"""What to do with commands of a lost connection: the rule, checked. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Literal

from ws_pool.errors import UsageError

__all__ = ("RetryPolicy", "checked_retry", "retry_of")

RetryPolicy = Literal["safe", "at_least_once"]


def checked_retry(rule: Any) -> RetryPolicy:  # Any: what a caller has written
    """
    Make sure that a rule is one.

    Args:
        rule: What was given.

    Returns:
        The rule.

    Raises:
        UsageError: It is none; the message names those that are.
    """
    if rule == "safe" or rule == "at_least_once":  # noqa: PLR1714 - mypy narrows this form only
        return rule  # type: ignore[no-any-return]  # it is one of the two

    raise UsageError(f"retry must be 'safe' or 'at_least_once', not {rule!r}")


def retry_of(
    options: MutableMapping[str, Any], otherwise: RetryPolicy
) -> RetryPolicy:  # Any: redis-py's options
    """
    Take the rule out of a command's options.

    Args:
        options: The options; the rule is removed.
        otherwise: The rule when there is none.

    Returns:
        The rule.

    Raises:
        UsageError: It is no rule.
    """
    return checked_retry(options.pop("retry", otherwise))
