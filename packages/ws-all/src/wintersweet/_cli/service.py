"""Where a running service is, for commands that ask it."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from ws_core.errors import ConfigError
from ws_core.redaction import mask_url
from ws_web import Settings

_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def url_of_settings(settings: Settings) -> str:
    """Return where a service with these settings listens, as seen from this machine."""
    if not settings.LISTEN_PORT:
        raise ConfigError("LISTEN_PORT is 0, a port that is chosen at the start: name the URL of the service")

    return local_url(settings.LISTEN_HOST, settings.LISTEN_PORT)


def local_url(host: str, port: int) -> str:
    """Return where a program on this machine finds what listens on an address."""
    host = _ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def base_url(given: str, ending: str = "") -> str:
    """Return a URL as requests need it: with a scheme, without the slash or the path that it may end in."""
    url = given if "://" in given else f"http://{given}"

    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False

    if not fits:
        raise ConfigError(
            f"{mask_url(given)!r} is not the URL of a service: write one such as http://localhost:8080"
        )

    return url.rstrip("/").removesuffix(ending or "/").rstrip("/")


def is_local(url: str) -> bool:
    """Whether a URL is on this machine, as far as its host says."""
    return is_local_host(urlsplit(url).hostname or "")


def is_local_host(host: str) -> bool:
    """Whether a host is this machine, as far as its name says."""
    if host == "localhost":
        return True

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
