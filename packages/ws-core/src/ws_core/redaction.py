"""Mask secrets in settings, logs and errors: one list of names, and one masker.

A value is masked when its name ends with a secret name (``DB_PASSWORD``, ``accessToken``,
``X-Auth-Token``), in mappings, dataclasses, lists of headers and in text (``password=x``,
``"token": "x"``, ``Authorization: Bearer x``, ``--password x``, ``<password>x</password>``,
``IDENTIFIED BY 'x'``). Passwords in URLs, bearer tokens, JSON Web Tokens and private keys are masked
wherever they stand.

What has no name and no such form is not found: ``the password is hunter2``, a key as a positional
argument, card numbers, names of people. Time is linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from ws_core._secret_names import AMBIGUOUS, SECRET_NAMES, SecretNames
from ws_core._secret_text import MASK, TextMasker, mask_userinfo
from ws_core._secret_values import ValueMasker
from ws_core.errors import ConfigError

__all__ = ("MASK", "SECRET_NAMES", "Redactor", "is_secret_name", "mask", "mask_text", "mask_url")


class Redactor:
    """
    Mask secret values by their names, and secrets inside texts.

    Args:
        names: Further secret names, beside `SECRET_NAMES`. Case, camelCase, dashes and underscores
            make no difference.

    Raises:
        ConfigError: ``names`` is a single text, or one of them is not a name.

    Example:
        >>> redactor = Redactor({"iban"})
        >>> redactor.fields({"user": "ann", "Password": "hunter2", "payer": {"customerIban": "DE1"}})
        {'user': 'ann', 'Password': '***', 'payer': {'customerIban': '***'}}
        >>> redactor.text("connecting to mysql://root:hunter2@db/shop?token=abc")
        'connecting to mysql://root:***@db/shop?token=***'
    """

    __slots__ = ("_names", "_text", "_values")

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = _checked(names)
        self._names = SecretNames(SECRET_NAMES | given)
        self._text = TextMasker(self._names, AMBIGUOUS - given)
        self._values = ValueMasker(self._names, self._text)

    def is_secret_name(self, name: str) -> bool:
        """
        Return whether a value of this name is masked.

        Args:
            name: A key, field, header or setting, in any notation.
        """
        return self._names.matches(name)

    def text(self, text: str) -> str:
        """
        Return a text with its secrets masked.

        Args:
            text: Any text, such as a message, a traceback or a JSON document.
        """
        return self._text.mask(text)

    def value(self, value: object, name: str = "") -> object:
        """
        Return a copy of a value with its secrets masked, however deep they are.

        Mappings, lists, tuples, sets, dataclasses, named tuples and models of pydantic and attrs are
        copied; the latter four become dictionaries. None, booleans and empty values are not secrets.

        Args:
            value: Any value; never changed.
            name: Its name, which may make the whole value secret.
        """
        return self._values.mask(name, value)

    def fields(self, values: Mapping[str, object]) -> dict[str, object]:
        """
        Return a copy of named values with the secret ones masked.

        Args:
            values: Values by name.
        """
        mask = self._values.mask
        return {name: mask(name, value) for name, value in values.items()}


def _checked(names: Iterable[str]) -> frozenset[str]:
    """Return names given by the user, or refuse them."""
    if isinstance(names, str | bytes):
        raise ConfigError(
            f"redact: a set of names is expected, such as {{{names!r}}}, not the text {names!r}"
        )

    try:
        found: frozenset[object] = frozenset(names)  # settings come from users: the annotation is a wish
    except TypeError:
        raise ConfigError(f"redact: a set of names is expected, not {names!r}") from None

    for name in found:
        if not isinstance(name, str) or not any(letter.isalnum() for letter in name):
            raise ConfigError(f"redact: a name has letters or digits, unlike {name!r}")

    return frozenset(name for name in found if isinstance(name, str))


_default: Final = Redactor()


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """
    Return whether a value of this name is masked by default.

    Example:
        >>> [is_secret_name(name) for name in ("SECRET", "dbPassword", "LISTEN_PORT", "max_tokens")]
        [True, True, False, False]
    """
    return _default.is_secret_name(name)


def mask_text(text: str) -> str:
    """
    Return a text with its secrets masked, by the default names.

    Example:
        >>> mask_text("POST /login {'user': 'ann', 'password': 'hunter2'}")
        "POST /login {'user': 'ann', 'password': '***'}"
    """
    return _default.text(text)


def mask(name: str, value: object) -> object:
    """
    Return a copy of a value that may be shown, by the default names.

    Args:
        name: The last part of its name, such as that of a setting; "" when it has none.
        value: Any value; never changed.

    Example:
        >>> mask("DATABASES", {"default": {"url": "mysql://shop:hunter2@db/shop", "pool_size": 5}})
        {'default': {'url': 'mysql://shop:***@db/shop', 'pool_size': 5}}
        >>> mask("api_key", "x"), mask("api_key", ""), mask("api_key", None)
        ('***', '', None)
    """
    return _default.value(value, name)


def mask_url(url: str) -> str:
    """
    Return a URL with its password and the secret values of its query masked.

    Unlike `mask_text`, takes all of the text for one URL, whatever its password is made of, and also when
    its ``://`` is missing.

    Example:
        >>> mask_url("mysql://bob:hunter2@db/shop?charset=utf8mb4")
        'mysql://bob:***@db/shop?charset=utf8mb4'
        >>> mask_url("mysql://bob:two words/@db/shop")
        'mysql://bob:***@db/shop'
        >>> mask_url("mysql:/bob:hunter2@db/shop")
        'mysql:***@db/shop'
    """
    scheme, separator, rest = url.partition("://")

    if separator:
        return mask_text(f"{scheme}://{mask_userinfo(scheme, rest)}")

    begin, colon, rest = url.partition(":")
    return mask_text(f"{begin}:{MASK}{rest[at:]}" if colon and (at := rest.rfind("@")) >= 0 else url)
