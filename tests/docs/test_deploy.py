"""The page about deployment: its configurations are loaded, and fit the service that they are for."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prompt import blocks
from ws_web import Settings, create_app
from ws_web.errors import SettingsError
from ws_web.testing import AppClient

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/deploy.md"
FILES = {block.file: block.text for block in blocks(PAGE.read_text(encoding="utf-8")) if block.file}
GRACEFUL = 10.0
"""Seconds that running requests have to finish, unless `ws_web.server.run` is given others."""


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load the settings under an environment; a name that does not exist is refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    return Settings()


def kubernetes(kind: str) -> Any:
    """Return an object of the manifest."""
    (found,) = [one for one in yaml.safe_load_all(FILES["shop.yaml"]) if one["kind"] == kind]
    return found


def test_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit stops later than the service drains, and systemd has nothing to say against it."""
    text = FILES["/etc/systemd/system/shop.service"]
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read_string(text)
    service = unit["Service"]
    settings = settings_of(dict([service["Environment"].split("=", 1)]), monkeypatch)

    assert settings.PROCESS_NUM >= 2  # or a reload would not be a rolling one
    assert float(service["TimeoutStopSec"]) > settings.DRAIN_DELAY + GRACEFUL
    assert service["ExecStart"].endswith("/wintersweet run")

    if (program := shutil.which("systemd-analyze")) is not None:
        here = Path(sys.executable)
        path = tmp_path / "shop.service"
        path.write_text(re.sub(r"/srv/shop/\.venv/bin/wintersweet", str(here), text))
        words = [program, "verify", "--man=no", str(path)]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
        assert "shop.service" not in done.stderr


def test_nginx() -> None:
    """Braces are in pairs, statements end, and nginx connects to the port on which the service listens."""
    text = FILES["/etc/nginx/conf.d/shop.conf"]
    lines = [line.strip() for line in text.splitlines() if line.strip()]

    assert text.count("{") == text.count("}")
    assert all(line.endswith(("{", "}", ";")) for line in lines)
    assert f"server 127.0.0.1:{Settings().LISTEN_PORT};" in lines


def test_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image starts the service, to be reached from outside on the port that it exposes."""
    lines = FILES["Dockerfile"].splitlines()
    environment = dict(
        word.split("=", 1) for line in lines if line.startswith("ENV ") for word in line.split()[1:]
    )
    settings = settings_of({k: v for k, v in environment.items() if k.startswith("WS_")}, monkeypatch)

    assert settings.LISTEN_HOST == "0.0.0.0"
    assert f"EXPOSE {settings.LISTEN_PORT}" in lines
    assert lines[-1] == 'CMD ["wintersweet", "run"]'  # not through a shell, which would keep SIGTERM


def test_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the service are accepted, and name services of the file."""
    loaded = yaml.safe_load(FILES["compose.yaml"])
    service = loaded["services"]["shop"]
    settings = settings_of(service["environment"], monkeypatch)

    assert settings.DATABASES["default"]["url"].endswith("@postgres/shop")
    assert set(service["depends_on"]) <= set(loaded["services"])
    assert {one.partition(":")[0] for one in loaded["services"]["postgres"]["volumes"]} == set(
        loaded["volumes"]
    )


async def test_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and ports fit, each probe is answered, and a pod has the time that its shutdown takes."""
    template = kubernetes("Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    settings = settings_of(environment, monkeypatch)
    service = kubernetes("Service")["spec"]

    assert service["selector"] == template["metadata"]["labels"]
    assert service["ports"][0]["targetPort"] == container["ports"][0]["containerPort"] == settings.LISTEN_PORT
    assert template["spec"]["terminationGracePeriodSeconds"] > settings.DRAIN_DELAY + GRACEFUL
    assert container["readinessProbe"]["periodSeconds"] < settings.DRAIN_DELAY

    async with AppClient(create_app(Settings())) as client:
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert (await client.get(container[name]["httpGet"]["path"])).status_code == 200


def test_a_wrong_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loading of an environment, on which the tests above rely, can fail."""
    with pytest.raises(SettingsError, match="DRAIN_DELAI"):
        settings_of({"WS_DRAIN_DELAI": "5"}, monkeypatch)
