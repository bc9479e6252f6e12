"""Which names are those of secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

SECRET_NAMES: Final = frozenset(
    {
        "access_key", "account_key", "admin_key", "aes_key", "api_key", "app_key", "auth", "auth_key",
        "authorization", "basic_auth", "bearer", "bearer_auth", "card_number", "client_key", "conn_str",
        "connect_sid", "connection_string", "cookie", "cookies", "cred", "credential", "credentials",
        "credit_card", "creds", "csrf", "cvc", "cvv", "deploy_key", "dsn", "encryption_key", "fernet_key",
        "hmac_key", "http_auth", "jsessionid", "jwt", "jwt_key", "license_key", "master_key", "otp",
        "pass", "passcode", "passphrase", "passwd", "password", "passwords", "phpsessid", "private_key",
        "psk", "pw", "pwd", "secret", "secret_key", "secret_key_base", "secrets", "service_key",
        "session_id", "session_key", "shared_key", "sig", "signature", "signing_key", "social_security",
        "ssh_key", "ssn", "storage_key", "stripe_key", "token", "token_key", "webhook_key",
        "x_amz_signature", "x_goog_signature", "xsrf",
    }
)  # fmt: skip
"""Names whose values are masked, in lower case with underscores; a name that ends with one is secret too."""

AMBIGUOUS: Final = frozenset({"auth", "bearer", "csrf", "pass", "sig", "signature", "xsrf"})
"""Names that are words, too: in a text their values are masked behind ``=``, and behind names in quotes."""

# These end a name also without a boundary before them ("dbpassword", "csrftoken"). The short ones
# do not: too many words end with them.
_STRONG: Final = frozenset(
    {"authorization", "cookie", "credentials", "passphrase", "passwd", "password", "secret", "token"}
)

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[\W_]+")
# What may stand behind a secret's name without making it harmless: password_confirm, token2, secretHash.
_TAIL = re.compile(
    r"(?:_?(?:\d+|confirm|confirmation|repeat|again|old|new|current|hash|digest|plain|raw|value|text|"
    r"base64|b64|hex))+$"
)
_LONGEST: Final = 128  # of a longer name only the end is looked at: the end decides


class SecretNames:
    """A set of secret names, with its answer for any notation of a name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.words = frozenset(_plain(name) for name in names)
        self._endings = tuple(f"_{word}" for word in self.words)
        # The names with more than one word are unlike any other word when they are run together.
        self._compact = tuple(word.replace("_", "") for word in self.words if "_" in word or word in _STRONG)
        self.matches = lru_cache(maxsize=4096)(self._matches)

    def _matches(self, name: str) -> bool:
        """Return whether a name, in any notation, is that of a secret."""
        plain = _plain(name[-_LONGEST:])
        return self._is_secret(plain) or self._is_secret(_TAIL.sub("", plain))

    def _is_secret(self, plain: str) -> bool:
        return (
            plain in self.words
            or plain.endswith(self._endings)
            or plain.replace("_", "").endswith(self._compact)
        )


def _plain(name: str) -> str:
    """Return a name in lower case with underscores, whatever its notation was."""
    return _NOT_WORD.sub("_", _HUMP.sub("_", name)).strip("_").lower()
