"""Options are checked before anything happens, and errors name them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from ws_pool._redis.options import RedisOptions, redis_options
from ws_pool.errors import ConfigError
from ws_pool.redis import RedisPool, RedisPoolManager


def settings(**options: object) -> RedisOptions:
    """Check options."""
    return redis_options(options, where="REDIS_CONFIG.default")


class TestAddresses:
    """Where the server is."""

    @pytest.mark.parametrize(
        ("options", "endpoint"),
        [
            ({}, "localhost:6379"),
            ({"url": "redis://h:1/2"}, "h:1"),
            ({"url": "valkey://h"}, "h:6379"),
            ({"url": "unix:///tmp/s?db=3"}, "/tmp/s"),
            ({"address": "redis://h:1"}, "h:1"),
            ({"address": "h:1"}, "h:1"),
            ({"address": "h"}, "h:6379"),
            ({"address": ("h", 1)}, "h:1"),
            ({"address": ["h", "1"]}, "h:1"),
            ({"address": "/tmp/s"}, "/tmp/s"),
            ({"address": "[::1]:1"}, "::1:1"),
            ({"address": "[::1]"}, "::1:6379"),
            ({"address": "::1"}, "::1:6379"),
            ({"host": "h", "port": "1"}, "h:1"),
            ({"path": "/tmp/s"}, "/tmp/s"),
        ],
    )
    def test_forms(self, options: dict[str, object], endpoint: str) -> None:
        """An address may be given in the original's forms and in redis-py's."""
        assert str(settings(**options).endpoint) == endpoint

    def test_all_of_a_url(self) -> None:
        """User, password, database and options stand in the URL, percent-encoded."""
        found = settings(
            url="rediss://us%40er:p%2Fw@h:1/2?decode_responses=yes&command_timeout=1.5&maxsize=7"
        )
        endpoint = found.endpoint
        assert (endpoint.username, endpoint.password, endpoint.db) == ("us@er", "p/w", 2)
        assert endpoint.tls is not None
        assert (found.decode_responses, found.limits.command_timeout, found.max_size) == (True, 1.5, 7)
        assert "p/w" not in repr(endpoint)

    def test_a_user_without_a_password(self) -> None:
        """Users with nopass log in with an empty one, and not as the default user."""
        for options in ({"url": "redis://u:@h"}, {"username": "u", "password": ""}):
            endpoint = settings(**options).endpoint
            assert (endpoint.username, endpoint.password) == ("u", "")

    def test_the_originals_keys(self) -> None:
        """The original's keys mean what they meant: an encoding alone decodes replies."""
        found = settings(address=("h", 1), password="p", db=1, encoding="utf-8", minsize=2, maxsize=3)
        assert (found.min_size, found.max_size, found.decode_responses) == (2, 3, True)
        assert not settings(encoding="utf-8", decode_responses=False).decode_responses
        assert not settings().decode_responses

    def test_a_password_that_is_asked_for(self) -> None:
        """A callable password is asked for at each connect."""
        found = settings(password=lambda: "p")
        assert found.endpoint.password is None
        assert found.endpoint.credentials is not None


class TestErrors:
    """What is refused."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ulr": "x"}, r"REDIS_CONFIG\.default\.ulr .* did you mean 'url'"),
            ({"url": "http://h"}, r"REDIS_CONFIG\.default\.url must begin with"),
            ({"url": "redis://h:99999"}, r"REDIS_CONFIG\.default\.url.*port"),
            ({"url": "redis://h?nonsense=1"}, r"REDIS_CONFIG\.default\.url\.nonsense"),
            ({"url": "redis://h/x"}, r"REDIS_CONFIG\.default\.url\.db"),
            ({"url": "redis://h/1", "db": 2}, r"REDIS_CONFIG\.default\.db is given, and in the URL"),
            ({"url": "redis://h", "address": "h"}, r"say the same"),
            ({"address": 5}, r"REDIS_CONFIG\.default\.address must be"),
            ({"address": ("h", 0)}, r"REDIS_CONFIG\.default\.address must be a whole number from 1"),
            ({"port": 0}, r"REDIS_CONFIG\.default\.port"),
            ({"db": -1}, r"REDIS_CONFIG\.default\.db"),
            ({"minsize": 5, "maxsize": 2}, r"minsize is 5, above .*maxsize, which is 2"),
            ({"protocol": 4}, r"REDIS_CONFIG\.default\.protocol"),
            ({"encoding": "utf-16"}, r"REDIS_CONFIG\.default\.encoding must be .*'utf-8'.*not 'utf-16'"),
            ({"encoding": "utf-8-sig"}, r"encoding must be an encoding that keeps ASCII"),
            ({"encoding": "klingon"}, r"encoding must be .*not 'klingon'"),
            ({"encoding": "base64"}, r"encoding must be .*not 'base64'"),
            ({"retry": "always"}, r"REDIS_CONFIG\.default\.retry"),
            ({"credentials": "x"}, r"REDIS_CONFIG\.default\.credentials must be callable"),
            ({"password": 5}, r"REDIS_CONFIG\.default\.password must be"),
            ({"cluster": True, "db": 1}, r"db must be 0"),
            ({"cluster": True, "sentinels": ["h:1"], "service": "s"}, r"exclude each other"),
            ({"sentinels": ["h:1"]}, r"service is missing"),
            ({"service": "s"}, r"sentinels is missing"),
            ({"sentinels": [], "service": "s"}, r"sentinels is empty"),
            ({"sentinels": "h:1", "service": "s"}, r"sentinels must be a list"),
            ({"cache": 5, "protocol": 2}, r"cache needs RESP3"),
            ({"command_timeout": 0}, r"command_timeout"),
            ({"ssl": "perhaps"}, r"REDIS_CONFIG\.default\.ssl"),
            ({"ssl": True, "ssl_ca_certs": "/absent"}, r"ssl_ca_certs: cannot load '/absent'"),
            ({"ssl": True, "ssl_certfile": "/absent"}, r"ssl_certfile: cannot load '/absent'"),
            ({"username": "u"}, r"username needs .*password; for a user with nopass"),
            ({"url": "redis://u@h"}, r"username needs .*password"),
            ({"sentinels": ["h:1"], "service": "s", "sentinel_username": "u"}, r"needs .*sentinel_password"),
            ({"url": "redis://h/1?db=2"}, r"url has db twice"),
            ({"url": "redis://h?db=1&db=2"}, r"url has db twice"),
            ({"url": "redis://u:p@h?password=q"}, r"url has password twice"),
            ({"url": "redis://u:p@h?username=v"}, r"url has username twice"),
            ({"url": "redis://h?host=g"}, r"url has host twice"),
            ({"url": "rediss://h?ssl=false"}, r"url has ssl twice"),
            ({"url": "redis://h#1"}, r"must not have #"),
            ({"url": "redis://:12#word@h"}, r"in a password it is written %23"),
            ({"url": "redis://h,g"}, r"names one host"),
            ({"url": "unix://run/redis.sock"}, r"with three slashes"),
            ({"ssl_ca_certs": "/absent"}, r"ssl_ca_certs needs rediss://"),
            ({"url": "redis://h?ssl_cert_reqs=required"}, r"ssl_cert_reqs needs rediss://"),
            ({"url": "rediss://h", "ssl_keyfile": "/absent"}, r"ssl_keyfile needs .*ssl_certfile"),
            (
                {"ssl": True, "ssl_ca_certs": "/absent", "ssl_cert_reqs": "none"},
                r"ssl_ca_certs and .*exclude each other",
            ),
            (
                {"url": "rediss://h?ssl_check_hostname=true&ssl_cert_reqs=none"},
                r"ssl_check_hostname and .*exclude each other",
            ),
            (
                {"ssl": ssl.create_default_context(), "ssl_check_hostname": False},
                r"ssl_check_hostname and the SSLContext",
            ),
        ],
    )
    def test_named(self, options: dict[str, Any], message: str) -> None:
        """Each wrong option is named in full."""
        with pytest.raises(ConfigError, match=message):
            settings(**options)

    def test_secrets_are_not_shown(self) -> None:
        """A wrong option that may be a secret is not shown in the error."""
        with pytest.raises(ConfigError) as caught:
            settings(url="redis://h:99999", password="hunter2")

        with pytest.raises(ConfigError) as other:
            RedisPool(url="redis://:hunter2@h:99999")

        assert "hunter2" not in str(caught.value) + str(other.value)


class TestTls:
    """TLS settings."""

    def test_contexts(self) -> None:
        """A context is taken as it is; else one is built with redis-py's options."""
        context = ssl.create_default_context()
        assert settings(ssl=context).endpoint.tls is context
        assert settings(ssl=False).endpoint.tls is None
        trusting = settings(ssl=True, ssl_cert_reqs="none").endpoint.tls
        assert trusting is not None
        assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)
        optional = settings(ssl=True, ssl_cert_reqs="optional").endpoint.tls
        assert optional is not None
        assert (optional.verify_mode, optional.check_hostname) == (ssl.CERT_OPTIONAL, True)

    def test_wrong_files(self, tmp_path: Path) -> None:
        """A file that holds no certificate is named."""
        file = tmp_path / "cert.pem"
        file.write_text("no certificate")

        with pytest.raises(ConfigError, match="ssl_ca_certs: cannot load"):
            settings(ssl=True, ssl_ca_certs=str(file))


def test_a_managers_sections_are_all_checked() -> None:
    """A wrong section is an error before anything is registered."""
    manager = RedisPoolManager()

    with pytest.raises(ConfigError, match=r"REDIS_CONFIG\.second\.port"):
        manager.register({"first": "redis://h", "second": {"port": "x"}})

    assert manager.names == ()
