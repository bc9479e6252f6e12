"""What a pool logs in with: fixed, or returned by a callable or by a credential provider of redis-py."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from redis.credentials import CredentialProvider, StreamingCredentialProvider

Credentials = Callable[[], "tuple[str, str] | str | Awaitable[tuple[str, str] | str]"] | CredentialProvider


class Login(NamedTuple):
    """What one connection has logged in with."""

    username: str | None = None  # None for the default user
    password: str | None = None  # None for no login at all
    number: int = 0  # of this request for credentials: what was requested later is newer

    def __repr__(self) -> str:
        return f"<Login of {self.username or 'the default user'!r}>"

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of AUTH; none without a password."""
        if self.password is None:
            return ()

        return (self.username, self.password) if self.username else (self.password,)


class CredentialSource:
    """
    Requests credentials, for each connection and when they may have changed.

    Example:
        >>> import asyncio
        >>> passwords = iter(["old", "new"])
        >>> source = CredentialSource(lambda: next(passwords), "bob")
        >>> login = asyncio.run(source.request())
        >>> login.words, source.newer_than(login)
        (('bob', 'old'), None)
        >>> source.latest = asyncio.run(source.request())
        >>> source.newer_than(login).words
        ('bob', 'new')
    """

    def __init__(self, given: Credentials, username: str | None = None) -> None:
        self.streaming: StreamingCredentialProvider | None = None

        if isinstance(given, StreamingCredentialProvider):
            self.streaming = given

        self.latest: Login | None = None  # what live connections shall have; None before the first change
        self._username = username
        self._numbers = itertools.count(1)
        self._call: Callable[[], Any]  # Any: what a user's callable returns

        if not isinstance(given, CredentialProvider):
            self._call = given
        elif type(given).get_credentials_async is CredentialProvider.get_credentials_async:
            self._call = given.get_credentials  # redis-py's own method warns that it should be overridden
        else:
            self._call = given.get_credentials_async

    async def request(self) -> Login:
        """Call the user's callable or provider."""
        number = next(self._numbers)  # before the call: of two at once, the later one knows more
        given = self._call()
        value = await given if inspect.isawaitable(given) else given
        return self._login(value, number)

    def received(self, value: str | Sequence[str]) -> Login:
        """Return the login of credentials that came without a request."""
        return self._login(value, next(self._numbers))

    def newer_than(self, login: Login | None) -> Login | None:
        """Return what a connection with this login should log in with; None when nothing has changed."""
        latest = self.latest
        return None if latest is None or (login is not None and login.number >= latest.number) else latest

    def _login(self, value: str | Sequence[str], number: int) -> Login:
        words = (value,) if isinstance(value, str) else tuple(value)
        username = words[0] if len(words) > 1 else self._username
        return Login(username, words[-1], number)
