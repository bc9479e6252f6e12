"""The options of an Elasticsearch pool."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    config_error,
    integer,
    number,
    option,
    optional,
    refuse,
    text,
)


def _hosts(value: object, where: str) -> list[str]:
    urls = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [None]
    )
    return [_host(url, where) for url in urls]


def _certificates(value: object, where: str) -> str:
    path = text(value, where)

    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise config_error(where, f": cannot read certificates from {path!r}: {error}") from error

    return path


def _host(value: object, where: str) -> str:
    url = text(value, where).strip()

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None

    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise config_error(where, f": {mask_url(url)!r} is not like http://localhost:9200")

    # The client would drop them, and with them what their author meant.
    if parts.query or parts.fragment:
        raise config_error(where, f": {mask_url(url)!r} must not have ? or #: give options by name")

    if parts.username is not None and not (parts.username and parts.password):
        raise config_error(where, f": {mask_url(url)!r} needs a user and a password, or neither")

    if port is not None:
        return url

    return f"{parts.scheme}://{parts.netloc}:{443 if parts.scheme == 'https' else 9200}{parts.path}"


@dataclass(frozen=True, slots=True)
class EsOptions:
    """How an Elasticsearch pool makes its requests."""

    url: Sequence[str] = option(
        (), _hosts, "`https://[user:password@]host:9200`, or a list of nodes", aliases=("hosts", "host")
    )
    user: str | None = option(None, optional(text), "with `password`", aliases=("username",))
    password: str | None = option(None, optional(text), "with `user`", secret=True)
    api_key: str | None = option(None, optional(text), "instead of user and password", secret=True)
    connections: int = option(10, integer(1), "most connections to each node", aliases=("maxsize",))
    timeout: float = option(10.0, number(0.001), "seconds for each request")
    retries: int = option(3, integer(0), "how often a failed request is repeated on other nodes")
    verify: bool = option(True, boolean, "whether certificates are checked")
    ca_certs: str | None = option(None, optional(_certificates), "a file of certificates to trust")


def check_together(options: EsOptions, where: str) -> None:
    """Refuse options that contradict each other, of which the client would drop one."""
    user, password, api_key = options.user, options.password, options.api_key
    urls = [urlsplit(host) for host in options.url]
    secure = any(url.scheme == "https" for url in urls)
    twice = any("@" in url.netloc for url in urls) and not (api_key is None and user is None)
    refuse(
        where,
        {
            "{url} is missing: give one like http://localhost:9200": not urls,
            "{password} needs {user}": password is not None and user is None,
            "{user} needs {password}": user is not None and password is None,
            # Behind a colon the password begins (RFC 7617).
            "{user} must be a name without a colon": user is not None and (not user or ":" in user),
            "{api_key} must not be empty": api_key == "",
            "{api_key} and {user} exclude each other: keep one": api_key is not None and user is not None,
            "{url} has a user and a password, and so has another option: keep one": twice,
            "{ca_certs} and {verify}=False exclude each other: keep one": options.ca_certs
            and not options.verify,
            "{ca_certs} needs https:// in {url}": options.ca_certs and not secure,
            "{url} names a node twice": len(set(options.url)) < len(urls),
        },
    )
