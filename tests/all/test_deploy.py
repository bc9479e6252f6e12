"""``wintersweet check --deploy``: mistakes planted one by one are found, and a good service has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.all._support import wintersweet
from wintersweet._cli.deploy import find_mistakes
from ws_web.conf import Settings

GOOD: dict[str, Any] = {
    "SECRET": "x3Vn0kQmT9wR7yB2sLdH5gJ8fPzC4aEu",
    "LISTEN_HOST": "0.0.0.0",
    "OPS": True,
    "OPS_TOKEN": "kQmT9wR7yB2sLdH5gJ8f",
    "METRICS": True,
    "METRICS_TOKEN": "dH5gJ8fPzC4aEux3Vn0k",
    "PROCESS_NUM": 2,
    "TRUSTED_PROXIES": ("10.0.0.0/8",),
    "ALLOWED_ORIGINS": ("https://shop.example",),
    "DATABASES": {"default": {"url": "mysql://shop:yB2sLdH5@db.example/shop"}},
    "REDIS_CONFIG": {
        "default": {"url": "redis://:sLdH5gJ8@cache.example/0"},
        "near": {"url": "redis://localhost"},
    },
}
CORS = "starlette.middleware.cors.CORSMiddleware"
HOSTS = "starlette.middleware.trustedhost.TrustedHostMiddleware"
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "debug": ({"DEBUG": True}, "DEBUG"),
    "tracebacks": ({"APP_CONFIG": {"debug": True}}, "APP_CONFIG.debug"),
    "short secret": ({"SECRET": "hunter2"}, "SECRET"),
    "repeated secret": ({"SECRET": "ab" * 20}, "SECRET"),
    "proxies": ({"TRUSTED_PROXIES": ("0.0.0.0/0",)}, "TRUSTED_PROXIES"),
    "open ops page": ({"OPS_TOKEN": ""}, "OPS_TOKEN"),
    "short token": ({"OPS_TOKEN": "letmein"}, "OPS_TOKEN"),
    "open metrics": ({"METRICS_TOKEN": ""}, "METRICS_TOKEN"),
    "origins": ({"ALLOWED_ORIGINS": ("*",)}, "ALLOWED_ORIGINS"),
    "cors": ({"MIDDLEWARES": ({"cls": CORS, "options": {"allow_origins": ["*"]}},)}, "MIDDLEWARES.0"),
    "hosts": ({"MIDDLEWARES": ({"cls": HOSTS, "options": {"allowed_hosts": ["*"]}},)}, "MIDDLEWARES.0"),
    "no header": ({"SECURITY_HEADERS": {"x-frame-options": ""}}, "SECURITY_HEADERS.x-frame-options"),
    "memory": ({"DATABASES": {"default": {"url": "sqlite:///:memory:"}}}, "DATABASES.default.url"),
    "no password": (
        {"REDIS_CONFIG": {"default": {"url": "redis://cache.example"}}},
        "REDIS_CONFIG.default.url",
    ),
    "usual password": (
        {"DATABASES": {"default": {"url": "mysql://root:root@db.example/x"}}},
        "DATABASES.default.url",
    ),
    "usual password beside the URL": (
        {"REDIS_CONFIG": {"default": {"host": "cache.example", "password": "Redis"}}},
        "REDIS_CONFIG.default.password",
    ),
    "one of several hosts": (
        {"MONGO_CONFIG": {"default": {"url": "mongodb://localhost:1,db.example:2/x"}}},
        "MONGO_CONFIG.default.url",
    ),
    "embedded": ({"REDIS_CONFIG": {"default": {"url": "embedded"}}}, "REDIS_CONFIG.default.url"),
    "level": ({"LOGGING_CONFIG": {"level": "debug"}}, "LOGGING_CONFIG.level"),
    "diagnosis": ({"LOGGING_CONFIG": {"debug": True}}, "LOGGING_CONFIG.debug"),
    "folder": ({"LOGGING_CONFIG": {"file_path": "/dev/null/logs"}}, "LOGGING_CONFIG.file_path"),
}


def test_a_good_service_has_none(tmp_path: Path) -> None:
    """Tokens, passwords, named proxies and origins: nothing is found."""
    (tmp_path / ".env").touch(0o600)
    assert find_mistakes(Settings(**GOOD), tmp_path) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_each_planted_mistake_is_found(planted: str, tmp_path: Path) -> None:
    """One mistake is one finding, under the setting's name, and with something to do."""
    changes, setting = PLANTED[planted]
    (found,) = find_mistakes(Settings(**{**GOOD, **changes}), tmp_path)
    assert found.setting == setting
    assert found.problem
    assert found.remedy


@pytest.mark.parametrize(
    "sections",
    [
        {"REDIS_CONFIG": {"default": {"url": "redis://cache.example", "password": "sLdH5gJ8"}}},
        {"REDIS_CONFIG": {"default": {"url": "redis://cache.example", "credentials": lambda: "sLdH5gJ8"}}},
        {"REDIS_CONFIG": {"default": {"url": "redis://cache.example", "password": lambda: "sLdH5gJ8"}}},
        {
            "ES_CONFIG": {
                "default": {"url": ["https://a.example", "https://b.example"], "api_key": "sLdH5gJ8"}
            }
        },
        {"MONGO_CONFIG": {"default": {"url": "mongodb://ann:sLdH5gJ8@a.example:1,b.example:2/x"}}},
        {"DATABASES": {"default": {"url": "sqlite:///shop.db"}}},
        {"DATABASES": {"default": {"url": "mysql://ann@[::1]:3306/x"}}},
    ],
)
def test_other_ways_to_log_in_are_fine(sections: dict[str, Any], tmp_path: Path) -> None:
    """A password beside the URL, a callable, an API key, and servers of this machine."""
    assert find_mistakes(Settings(**{**GOOD, **sections}), tmp_path) == []


def test_a_file_that_others_can_read(tmp_path: Path) -> None:
    """The mode of .env is looked at, not its content."""
    (tmp_path / ".env").touch(0o644)
    (found,) = find_mistakes(Settings(**GOOD), tmp_path)
    assert found.setting == ".env"


def test_a_secret_in_the_file_of_settings(tmp_path: Path) -> None:
    """A password in TOML is named by its setting; the same in the environment is where it should be."""
    (tmp_path / "wintersweet.toml").write_text(
        '[DATABASES.default]\nurl = "mysql://u:hunter2@127.0.0.1:1/x"\n'
    )
    outcome = wintersweet("check", "--deploy", "--json", cwd=tmp_path)
    assert [one["setting"] for one in outcome.json()["mistakes"]] == ["DATABASES.default.url"]
    assert "hunter2" not in outcome.out + outcome.err


@pytest.mark.parametrize(("database", "much"), [("mysql_url", 150), ("postgres_url", 60)])
def test_more_connections_than_the_server_allows(
    database: str, much: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Workers times the sizes of all pools of a server are held against the limit of the real one."""
    url = request.getfixturevalue(database)
    both = ["DATABASES.a.max_size, DATABASES.b.max_size"]

    # The test servers allow 500 and 200: one of the pools alone would fit.
    for size, found in ((much, both), (2, [])):
        variables = {"WS_PROCESS_NUM": "2"}

        for name in "ab":
            variables[f"WS_DATABASES__{name}__url"] = url
            variables[f"WS_DATABASES__{name}__min_size"] = "0"
            variables[f"WS_DATABASES__{name}__max_size"] = str(size)

        outcome = wintersweet("check", "--deploy", "--json", cwd=tmp_path, env=variables)
        assert [one["setting"] for one in outcome.json()["mistakes"]] == found
        assert outcome.status == bool(found)


def test_a_table(tmp_path: Path) -> None:
    """People read problems and remedies in a table; without any, that is said."""
    bad = wintersweet("check", "--deploy", cwd=tmp_path, env={"WS_DEBUG": "true", "COLUMNS": "160"})
    assert bad.status == 1
    assert "Not for production" in bad.out
    assert "set it to false" in bad.out

    good = wintersweet("check", "--deploy", cwd=tmp_path)
    assert good.status == 0
    assert "no mistake found" in good.out
