"""Settings: sources, their order, merging, validation, masking and the proxy."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ws_core.errors import ConfigError
from ws_core.redaction import mask, mask_text
from ws_web import Settings, SettingsError, global_setting
from ws_web._settings_sources import EnvironmentSource, nest, overlay

ORIGINAL = [
    "DEBUG",
    "SECRET",
    "LISTEN_PORT",
    "PROCESS_NUM",
    "APP_CONFIG",
    "LOGGING_CONFIG",
    "MIDDLEWARES",
    "EXCEPTION_HANDLERS",
    "DATABASES",
    "REDIS_CONFIG",
    "MONGO_CONFIG",
    "ES_CONFIG",
    "HTTP_CONFIG",
]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write a settings module and name it in the environment."""

    def write(text: str, name: str = "shop_settings") -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", name)

    yield write
    sys.modules.pop("shop_settings", None)


class TestDefaults:
    """Without any source."""

    def test_every_key_of_the_original_exists(self) -> None:
        """Users of the first version find every setting again."""
        assert set(ORIGINAL) <= set(Settings.model_fields) == {*global_setting.__all__, "extra"}

    def test_defaults_are_those_of_the_module(self) -> None:
        """The defaults come from global_setting and are safe: no debug, no secret, one process."""
        settings = Settings()
        assert (settings.DEBUG, settings.SECRET.get_secret_value(), settings.PROCESS_NUM) == (False, "", 1)
        assert settings.LISTEN_PORT == global_setting.LISTEN_PORT
        assert settings.describe()["LISTEN_PORT"].source == "default"

    def test_settings_are_frozen(self) -> None:
        """A setting cannot be assigned."""
        with pytest.raises(ValueError, match="frozen"):
            Settings().DEBUG = True

    def test_sections_are_frozen(self) -> None:
        """What is changed after the start would not be noticed; a copy can be changed."""
        shop = Settings(DATABASES={"default": {"url": "mysql://db/shop"}}, EXTRA_SECTION={"a": {"b": 1}})

        for change in (
            lambda: shop.DATABASES.update(other={}),
            lambda: shop.DATABASES["default"].pop("url"),
            shop.extra["EXTRA_SECTION"]["a"].clear,
            lambda: Settings().DATABASES.setdefault("x", {}),
        ):
            with pytest.raises(TypeError, match="settings are frozen"):
                change()

        copied = copy.deepcopy(shop.DATABASES)
        copied["default"]["url"] = "other"
        assert (
            shop.DATABASES
            == {"default": {"url": "mysql://db/shop"}}
            == pickle.loads(pickle.dumps(shop.DATABASES))
        )
        assert global_setting.DATABASES == {}


class TestOrder:
    """Which source wins."""

    def test_each_source_wins_over_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Callable[..., None]
    ) -> None:
        """Arguments, environment, .env, secrets directory, TOML, module: in that order."""
        module("A0=A1=A2=A3=A4=A5='module'")
        (tmp_path / "wintersweet.toml").write_text("\n".join(f"A{n}='toml'" for n in range(5)))
        secrets = tmp_path / "secrets"
        secrets.mkdir()

        for n in range(4):
            (secrets / f"A{n}").write_text("secrets\n")

        monkeypatch.setenv("WINTERSWEET_SECRETS_DIR", str(secrets))
        (tmp_path / ".env").write_text("\n".join(f"WS_A{n}=dotenv" for n in range(3)))
        monkeypatch.setenv("WS_A0", "environment")
        monkeypatch.setenv("WS_A1", "environment")

        class Own(Settings):
            A0: str = ""
            A1: str = ""
            A2: str = ""
            A3: str = ""
            A4: str = ""
            A5: str = ""

        own = Own(A0="arguments")
        values = [getattr(own, f"A{n}") for n in range(6)]
        assert values == ["arguments", "environment", "dotenv", "secrets", "toml", "module"]
        sources = [own.describe()[f"A{n}"].source for n in range(6)]
        assert sources == ["arguments", "environment", ".env", "secrets directory", "TOML", "module"]

    def test_sections_are_merged_key_by_key(
        self, monkeypatch: pytest.MonkeyPatch, module: Callable[..., None]
    ) -> None:
        """The environment replaces one URL and leaves the rest of the section."""
        module("DATABASES = {'default': {'url': 'mysql://a', 'maxsize': 5}, 'Stats': {'url': 'mysql://b'}}")
        monkeypatch.setenv("WS_DATABASES__default__url", "mysql://c")
        monkeypatch.setenv("WS_DATABASES__Stats__minsize", "2")
        settings = Settings()
        assert settings.DATABASES == {
            "default": {"url": "mysql://c", "maxsize": 5},
            "Stats": {"url": "mysql://b", "minsize": 2},
        }
        described = settings.describe()
        assert described["DATABASES.default.url"].source == "environment"
        assert described["DATABASES.default.maxsize"].source == "module"

    def test_json_in_one_variable_is_refined_by_nested_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A whole section may be given as JSON; more exact names win."""
        monkeypatch.setenv("WS_REDIS_CONFIG", '{"default": {"url": "redis://a", "maxsize": 3}}')
        monkeypatch.setenv("WS_REDIS_CONFIG__default__url", "redis://b")
        assert Settings().REDIS_CONFIG == {"default": {"url": "redis://b", "maxsize": 3}}

    def test_a_source_of_a_subclass_takes_part(self) -> None:
        """settings_customise_sources is pydantic-settings' own hook, and works."""

        class Vault(EnvironmentSource):
            def __call__(self) -> Any:
                return {"LISTEN_PORT": 5, "DEBUG": True}

        class Own(Settings):
            @classmethod
            def settings_customise_sources(cls, settings_cls: Any, *args: Any, **given: Any) -> Any:
                first, *others = super().settings_customise_sources(settings_cls, *args, **given)
                return first, Vault(settings_cls), *others

        own = Own(LISTEN_PORT=1)
        assert (own.LISTEN_PORT, own.DEBUG) == (1, True)
        assert own.describe()["DEBUG"].source == "Vault"

    def test_toml_may_be_anywhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """WINTERSWEET_TOML names another file; tables become sections."""
        path = tmp_path / "other.toml"
        path.write_text("LISTEN_PORT = 9\n[HTTP_CONFIG.default]\nbase_url = 'http://x'\n")
        monkeypatch.setenv("WINTERSWEET_TOML", str(path))
        assert Settings().LISTEN_PORT == 9
        assert Settings().HTTP_CONFIG == {"default": {"base_url": "http://x"}}


class TestNames:
    """How flat names become values."""

    def test_the_case_of_pool_names_is_kept(self) -> None:
        """Only the settings key must be UPPERCASE."""
        assert nest([("WS_A__Main__maxSize", "1")], prefix="WS_") == {"A": {"Main": {"maxSize": 1}}}

    @pytest.mark.parametrize("name", ["OTHER_A", "WS_", "WS_a", "WS_A__", "WS_A____b", "WS_Mixed"])
    def test_other_names_are_not_ours(self, name: str) -> None:
        """Names that do not fit the form are ignored."""
        assert nest([(name, "1")], prefix="WS_") == {}

    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("7", 7),
            ("-1.5", -1.5),
            ("true", True),
            ("null", None),
            ("[1, 2]", [1, 2]),
            ("007", "007"),
            ("1_000", "1_000"),
            ("text", "text"),
            ("[broken", "[broken"),
        ],
    )
    def test_nested_values_are_json_literals_or_text(self, raw: Any, value: Any) -> None:
        """What no field describes is a literal when it looks like one."""
        assert nest([("WS_A__b", raw)], prefix="WS_") == {"A": {"b": value}}

    @pytest.mark.parametrize("name", ["password", "db_password", "token", "user", "host", "url", "db"])
    def test_a_password_of_digits_stays_text(self, name: str) -> None:
        """A driver must get '123456', not a number."""
        assert nest([(f"WS_A__{name}", "123456")], prefix="WS_") == {"A": {name: "123456"}}

    def test_a_list_of_a_secret_name_is_a_list(self) -> None:
        """A pair of a user and a password is a pair, also from the environment."""
        pair = nest([("WS_A__auth", '["ann", "hunter2"]')], prefix="WS_")
        assert pair == {"A": {"auth": ["ann", "hunter2"]}}

    def test_overlay_does_not_change_its_arguments(self) -> None:
        """Merging makes new dictionaries."""
        base, above = {"a": {"x": 1}}, {"a": {"y": 2}}
        assert overlay(base, above) == {"a": {"x": 1, "y": 2}}
        assert base == {"a": {"x": 1}}
        assert above == {"a": {"y": 2}}

    def test_a_scalar_and_a_section_of_one_name(self) -> None:
        """The more exact name wins over a scalar."""
        assert nest([("WS_A__b", "1"), ("WS_A", "x")], prefix="WS_") == {"A": {"b": 1}}
        assert nest([("WS_A__b__c", "1"), ("WS_A__b", "x")], prefix="WS_") == {"A": {"b": {"c": 1}}}


class TestMistakes:
    """Every mistake is one clear message and no traceback of pydantic."""

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("LISTEN_PROT", "LISTEN_PORT"),
            ("DATABASE", "DATABASES"),
            ("listen_port", "LISTEN_PORT"),
            ("DEBGU", "DEBUG"),
            ("OPSS", "OPS"),
            ("OTL", "OTEL"),
            ("DEBUT", "DEBUG"),
        ],
    )
    def test_a_typing_error_gets_a_proposal(self, name: str, meant: str) -> None:
        """An unknown name near a known one is refused."""
        with pytest.raises(SettingsError, match=rf"no setting {name} \(arguments\): did you mean {meant}\?"):
            Settings(**{name: 1})

    def test_a_typing_error_in_the_environment_names_the_source(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says where the wrong name is."""
        monkeypatch.setenv("WS_PROCES_NUM", "2")

        with pytest.raises(SettingsError, match=r"PROCES_NUM \(environment\): did you mean PROCESS_NUM"):
            Settings()

    def test_a_lowercase_name_is_refused(self) -> None:
        """Names of settings are UPPERCASE."""
        with pytest.raises(SettingsError, match=r"no setting nonsense.*UPPERCASE"):
            Settings(nonsense=1)

    def test_undeclared_uppercase_goes_to_extra(self, module: Callable[..., None]) -> None:
        """An application's own names need no declaration."""
        module("CURRENCY = 'EUR'\n_PRIVATE = 1\nlower = 2")
        assert Settings().extra == {"CURRENCY": "EUR"}
        assert Settings().describe()["CURRENCY"].value == "EUR"

    def test_all_problems_are_in_one_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Values, their sources and what is expected."""
        monkeypatch.setenv("WS_LISTEN_PORT", "eighty")

        with pytest.raises(SettingsError) as caught:
            Settings(PROCESS_NUM=0, DATABASES=["x"], TRUSTED_PROXIES=["10.0.0.0/99"])

        text = str(caught.value)
        assert "LISTEN_PORT = 'eighty' (environment): Input should be a valid integer" in text
        assert "PROCESS_NUM = 0 (arguments): Input should be greater than or equal to 1" in text
        assert "DATABASES" in text
        assert "must map names to options" in text
        assert "TRUSTED_PROXIES" in text
        assert "\n" not in text
        assert caught.value.__cause__ is None
        assert isinstance(caught.value, ConfigError)

    @pytest.mark.parametrize(
        ("section", "remedy"),
        [
            ({"shard": "mysql://u:hunter2@x"}, 'write {"shard": {"url": "…"}} in place of {"shard": "…"}'),
            ({"default": {}, "shard": 3}, 'must map names to options, such as {"default": {"url": ...}}'),
        ],
    )
    def test_a_pool_without_options(self, section: dict[str, object], remedy: str) -> None:
        """A text in place of a mapping is a URL, most likely: how to write it is said."""
        with pytest.raises(SettingsError) as caught:
            Settings(DATABASES=section)

        assert remedy in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert ("in place of" in str(caught.value)) == ("in place of" in remedy)

    def test_options_do_not_replace_a_text(
        self, module: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They would be those of a pool without the URL."""
        module("DATABASES = {'default': 'sqlite:///shop.db'}")
        monkeypatch.setenv("WS_DATABASES__default__maxsize", "5")

        with pytest.raises(SettingsError, match=r'in the module write {"default": {"url": "…"}} in place'):
            Settings()

    @pytest.mark.parametrize(
        ("name", "raw", "part"),
        [
            ("WS_DATABASES__default", "mysql://x", "WS_DATABASES__default__maxsize"),
            ("WS_DATABASES", "mysql://x", "WS_DATABASES__default__url"),
            ("WS_REDIS_CONFIG__default", "[]", "WS_REDIS_CONFIG__default__url"),
        ],
    )
    def test_a_value_and_its_part(
        self, monkeypatch: pytest.MonkeyPatch, name: str, raw: str, part: str
    ) -> None:
        """Which of them would count, nobody could know; an object has parts, and other names are others'."""
        monkeypatch.setenv(part, "5")
        monkeypatch.setenv(name, "{}")
        monkeypatch.setenv("WS_GATEWAY", "1")
        monkeypatch.setenv("WS_GATEWAY__x", "1")
        Settings()
        monkeypatch.setenv(name, raw)

        with pytest.raises(SettingsError, match=f"{name} .environment. is a value, and {part} a part of it"):
            Settings()

    def test_a_secret_is_not_in_the_message(self) -> None:
        """A wrong value of a secret setting is not repeated."""
        with pytest.raises(SettingsError) as caught:
            Settings(SECRET=["hunter2"], DATABASES={"default": "mysql://u:hunter2@x"})

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "1/0",
                r"'shop_settings' failed: ZeroDivisionError: division by zero \(.*shop_settings.py, line 1\)",
            ),
            ("import nosuchlib", "imports 'nosuchlib', which is not installed"),
            ("x = (", "failed: SyntaxError.*shop_settings.py"),
        ],
    )
    def test_a_broken_module_says_where(self, module: Callable[..., None], text: str, message: Any) -> None:
        """Whatever the module raises is one line with its place."""
        module(text)

        with pytest.raises(SettingsError, match=message):
            Settings()

    @pytest.mark.parametrize("name", ["nosuch", "nosuch.settings", "json.nosuch"])
    def test_a_missing_module(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """The message names the variable."""
        monkeypatch.setenv("WINTERSWEET_SETTINGS_MODULE", name)

        with pytest.raises(SettingsError, match=rf"WINTERSWEET_SETTINGS_MODULE names '{name}'"):
            Settings()

    def test_broken_toml(self, tmp_path: Path) -> None:
        """The message says where in the file."""
        (tmp_path / "wintersweet.toml").write_text("LISTEN_PORT = = 1")

        with pytest.raises(SettingsError, match=r"wintersweet.toml cannot be read: .*line 1"):
            Settings()

    def test_a_missing_toml_that_was_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A named file must exist."""
        monkeypatch.setenv("WINTERSWEET_TOML", "nosuch.toml")

        with pytest.raises(SettingsError, match=r"nosuch.toml cannot be read"):
            Settings()

    def test_a_missing_secrets_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A named directory must exist."""
        monkeypatch.setenv("WINTERSWEET_SECRETS_DIR", "/nosuch")

        with pytest.raises(SettingsError, match="secrets directory /nosuch cannot be read"):
            Settings()

    def test_a_dotenv_that_is_no_text(self, tmp_path: Path) -> None:
        """The message names the file."""
        (tmp_path / ".env").write_bytes(b"WS_A=\xff\xfe\xff")

        with pytest.raises(SettingsError, match=r".env cannot be read"):
            Settings()

    def test_wrong_json_for_a_section(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Text that only looks like JSON is refused by the type of the field."""
        monkeypatch.setenv("WS_APP_CONFIG", "{broken")

        with pytest.raises(SettingsError, match=r"APP_CONFIG = '\{broken' \(environment\)"):
            Settings()


class TestMasking:
    """Nothing that is shown holds a secret."""

    def test_nothing_shown_holds_a_secret(self) -> None:
        """repr, str and describe mask passwords in URLs and values of secret names."""
        settings = Settings(
            SECRET="hunter2",
            DATABASES={"default": {"url": "mysql://u:hunter2@db/x", "password": "hunter2"}},
            API_KEYS=["https://u:hunter2@x?token=hunter2"],
            HTTP_CONFIG={"default": {"base_url": "http://x", "auth": ("ann", "hunter2")}},
            JWT_KEY="hunter2",
            SMTP_PASS="hunter2",
            STRIPE={"signing_key": "hunter2"},
        )
        shown = f"{settings!r} {settings} {settings.describe()}"
        assert "hunter2" not in shown
        assert "mysql://u:***@db/x" in shown
        assert isinstance(settings.SECRET, SecretStr)

    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("password", "", ""),
            ("password", None, None),
            ("secret", 7, "***"),
            ("SECRET", SecretStr(""), ""),
            ("port", 7, 7),
            ("list", ["redis://:pw@h"], ["redis://:***@h"]),
            ("tuple", ("a",), ("a",)),
            ("monkey", "a", "a"),
        ],
    )
    def test_values(self, name: str, value: Any, shown: Any) -> None:
        """Empty secrets are shown as empty, so that a missing one is seen."""
        assert mask(name, value) == shown

    def test_a_password_with_strange_characters(self) -> None:
        """An unencoded '@' or '/' in a password does not show its rest."""
        assert mask_text("mysql://u:p@ss@host/db") == "mysql://u:***@host/db"


class TestLikelyNames:
    """Names in the environment that nearly fit."""

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("WS_DATABASES_default_url", "WS_DATABASES__default__url"),
            ("WS_DATABASES_DEFAULT_URL", "WS_DATABASES__DEFAULT__URL"),
            ("WS_DATABASES_default__url", "WS_DATABASES__default__url"),
            ("WS_REDIS_CONFIG_default__url", "WS_REDIS_CONFIG__default__url"),
            ("WS_REDIS__default__url", "WS_REDIS_CONFIG__default__url"),
            ("WS_Debug", "WS_DEBUG"),
            ("WS_databases__default__url", "WS_DATABASES__default__url"),
            ("WS_DATABASES____url", "WS_DATABASES__url"),
        ],
    )
    def test_they_are_refused(self, monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
        """The message has the name that was probably meant, and where the wrong one is."""
        monkeypatch.setenv(name, "1")

        with pytest.raises(
            SettingsError, match=rf"^{name} \(environment\) is not a setting: did you mean {meant}\?"
        ):
            Settings()

    @pytest.mark.parametrize(
        "name", ["WS_GATEWAY_PORT", "WS_TIMEZONE", "WS_TEST_MYSQL_URL", "WS_SHOP__x", "WS_x", "OTHER"]
    )
    def test_names_of_others_are_not(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Platforms and other libraries have names that begin like ours."""
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
        Settings()

    def test_lists_may_have_commas(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Instead of JSON, which is hard to write in a shell."""
        monkeypatch.setenv("WS_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1,")
        assert Settings().TRUSTED_PROXIES == ("10.0.0.0/8", "192.0.2.1")
        monkeypatch.setenv("WS_TRUSTED_PROXIES", '["fd00::/8"]')
        assert Settings().TRUSTED_PROXIES == ("fd00::/8",)
