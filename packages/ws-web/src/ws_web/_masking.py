"""Hide secrets in values that are shown to people. Pure; never changes what it is given."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretBytes, SecretStr

__all__ = ("MASK", "is_secret_name", "mask", "mask_text")

MASK = "***"

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|credential|authorization|api_?key|private_?key|^pwd$", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.\-]*://[^/\s:@]*:)[^/\s]*(?=@)", re.IGNORECASE)
_QUERY_SECRET = re.compile(r"(?P<head>[?&](?:password|passwd|token|secret|api_?key)=)[^&\s]*", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """
    Tell whether a setting of this name holds a secret.

    Example:
        >>> is_secret_name("SECRET"), is_secret_name("db_password"), is_secret_name("LISTEN_PORT")
        (True, True, False)
    """
    return _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """
    Hide passwords and tokens inside URLs.

    Example:
        >>> mask_text("mysql://shop:hunter2@db/shop?token=abc")
        'mysql://shop:***@db/shop?token=***'
    """
    text = _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)
    return _QUERY_SECRET.sub(rf"\g<head>{MASK}", text)


def mask(name: str, value: object) -> object:
    """
    Return a copy of a value that may be shown.

    Args:
        name: The last part of the setting's name; names like ``password`` hide the whole value.
        value: Any value; mappings, lists and tuples are gone through.

    Returns:
        The value with its secrets replaced by ``***``. An empty secret is shown as empty.
    """
    if isinstance(value, SecretStr | SecretBytes):
        return MASK if value.get_secret_value() else ""

    if isinstance(value, Mapping):
        return {key: mask(str(key), item) for key, item in value.items()}

    if is_secret_name(name) and value not in ("", None):
        return MASK

    if isinstance(value, str):
        return mask_text(value)

    if isinstance(value, list | tuple):
        return type(value)(mask(name, item) for item in value) if type(value) in (list, tuple) else value

    return value
