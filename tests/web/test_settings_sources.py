"""`ws_web._settings_sources` and `_settings_models`: what names and values stand for."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, SecretStr, model_validator
from typing_extensions import TypedDict

from ws_web import Settings, create_app
from ws_web.errors import SettingsError

# Any below: values before validation.


class Mail(BaseModel):
    """A section of the application's own."""

    host: str = "localhost"
    port: int = 25
    password: SecretStr = SecretStr("")
    copies: list[str] = []
    sender: str | None = None
    limit: int | None = 5


class Aliased(BaseModel):
    """A section whose fields have other names."""

    one: int = Field(default=0, alias="uno")
    two: int = Field(default=0, validation_alias=AliasChoices("dos", AliasPath("deux", 0)))


class Open(BaseModel, extra="allow"):
    """A section that takes any name."""


class Shorthand(BaseModel):
    """A section that reads other names by itself."""

    host: str = ""

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        """Take the name "at" for the host."""
        return {"host": data["at"]} if "at" in data else data


class Options(TypedDict, total=False):
    """A section as a dictionary."""

    size: int


class Shop(Settings):
    """Settings with sections of their own."""

    MAIL: Mail = Mail()
    OTHER: Annotated[Mail | None, "described"] = None
    MANY: dict[str, Mail] = Field(default={})
    LIST: list[Mail] = Field(default=[])
    ALIASED: Aliased = Aliased()
    OPEN: Open = Open()
    SHORT: Shorthand = Shorthand()
    OPTIONS: Options = Field(default=Options())
    MIXED: dict[str, int] | Mail = Field(default_factory=dict)
    TAGS: list[str] | None = None
    NAMES: set[str] = Field(default=set())
    TITLE: str = ""


def made(**values: Any) -> Shop:
    """Return settings of values that pydantic makes models of."""
    return Shop(**values)


class TestNestedNames:
    """Names of fields of models; pydantic ignores those that it does not know."""

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("WS_MAIL__prot", "26", r"MAIL\.prot does not exist: did you mean port\? \(environment\)"),
            ("WS_MAIL__PORT", "26", r"MAIL\.PORT does not exist: did you mean port\?"),
            ("WS_MAIL__x", "26", r"MAIL\.x does not exist; there are copies, host"),
            ("WS_MAIL", '{"prot": 26}', r"MAIL\.prot"),
            ("WS_OTHER__hots", "x", r"OTHER\.hots does not exist: did you mean host\?"),
            ("WS_MANY__main__hots", "x", r"MANY\.main\.hots"),
            ("WS_LIST", '[{"host": "x"}, {"hots": "x"}]', r"LIST\.1\.hots"),
            ("WS_ALIASED__unos", "1", r"ALIASED\.unos does not exist: did you mean uno\?"),
            ("WS_OPTIONS__sizes", "1", r"OPTIONS\.sizes does not exist: did you mean size\?"),
        ],
    )
    def test_unknown(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
        """A name that no field has is refused with the likely one, however deep it is."""
        monkeypatch.setenv(name, value)

        with pytest.raises(SettingsError, match=message):
            Shop()

    def test_in_arguments_and_toml(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Every source is looked at."""
        with pytest.raises(SettingsError, match=r"MAIL\.hots .*\(arguments\)"):
            made(MAIL={"hots": "x"})

        monkeypatch.chdir(tmp_path)
        Path("wintersweet.toml").write_bytes(b"\xef\xbb\xbf[MAIL]\nhots = 'x'\n")

        with pytest.raises(SettingsError, match=r"MAIL\.hots .*\(TOML\)"):
            Shop()

    def test_known(self) -> None:
        """Aliases, open models, models that read for themselves and what may be a dictionary take theirs."""
        shop = made(
            ALIASED={"uno": 1, "deux": [2]},
            OPEN={"x": 1},
            SHORT={"at": "h"},
            MIXED={"x": 1},
            LIST=[Mail(port=1)],
        )

        assert (shop.ALIASED.one, shop.ALIASED.two, shop.SHORT.host, shop.LIST[0].port) == (1, 2, "h", 1)
        assert shop.MIXED == {"x": 1}


class TestNestedValues:
    """Text of the environment for fields of models."""

    @pytest.mark.parametrize("text", ["123", "0123", "true", "null", "[1]", "{"])
    def test_text_stays_text(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """A field that is a text takes any, also what looks like a number or like JSON."""
        monkeypatch.setenv("WS_MAIL__host", text)
        monkeypatch.setenv("WS_MAIL__password", text)
        monkeypatch.setenv("WS_TITLE", text)
        monkeypatch.setenv("WS_SECRET", text)
        shop = Shop()

        assert [shop.MAIL.host, shop.MAIL.password.get_secret_value(), shop.TITLE] == [text] * 3
        assert shop.SECRET.get_secret_value() == text

    def test_by_declared_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Numbers, lists and null are what the field declares."""
        values = {
            "MAIL__port": "26", "MAIL__copies": "a, b", "MAIL__limit": "null", "TAGS": "a,b", "NAMES": "a",
            "MANY__main__copies": '["c,d"]', "MAIL__sender": "null",
        }  # fmt: skip

        for name, value in values.items():
            monkeypatch.setenv(f"WS_{name}", value)

        shop = Shop()

        assert (shop.MAIL.port, shop.MAIL.copies, shop.MAIL.limit) == (26, ["a", "b"], None)
        assert (shop.TAGS, shop.NAMES, shop.MANY["main"].copies) == (["a", "b"], {"a"}, ["c,d"])


class TestDotenv:
    """The file .env; what python-dotenv leaves out with a warning, or without."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("A=1\nWS_DEBUG true\n", "line 2 is not NAME=VALUE"),
            ("WS_TITLE='abc\nWS_DEBUG=1\n", "line 1 is not NAME=VALUE, or a quote is not closed"),
            ("WS_DEBUG\n", "line 1: WS_DEBUG has no value"),
            ("WS_TITLE='pa${ss}word'\n", r"line 1: WS_TITLE takes \$\{ss\}, which is not set"),
        ],
    )
    def test_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str) -> None:
        """A line of ours that would be lost, or lose a part of its value, is an error that names it."""
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text(text)

        with pytest.raises(SettingsError, match=message):
            Shop()

    def test_taken(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A byte order mark, lines of others, and variables that are set or have a default are taken."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PLACE", "p")
        lines = "\ufeffWS_DEBUG=1\nothers are free\nOTHER\nX=x\nWS_TITLE=${X}${PLACE}${NO:-n}\n"
        Path(".env").write_text(lines, encoding="utf-8")

        shop = Shop()

        assert (shop.DEBUG, shop.TITLE) == (True, "xpn")


class TestChecked:
    """Values that could never do what they are for."""

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("ALLOWED_ORIGINS", ("shop.example",), "is not an origin such as https://shop.example"),
            ("ALLOWED_ORIGINS", ("https://*.example",), "is not an origin"),
            ("ALLOWED_ORIGINS", ("https://shop.example/x",), "is not an origin"),
            ("ALLOWED_ORIGINS", ("null",), "is not an origin"),
            ("OPS_TOKEN", "pässwort", "must be ASCII without blanks at its ends"),
            ("METRICS_TOKEN", " x", "must be ASCII without blanks at its ends"),
            ("TRUSTED_PROXIES", ("::ffff:10.0.0.0/104",), "write it as one, such as 10.0.0.0/8"),
            ("DRAIN_DELAY", float("inf"), "finite"),
        ],
    )
    def test_refused(self, name: str, value: object, message: str) -> None:
        """They are refused at start, and a token is not shown."""
        with pytest.raises(SettingsError, match=message) as caught:
            Settings(**{name: value})

        assert "pässwort" not in str(caught.value)

    def test_origins_are_written_as_browsers_send_them(self) -> None:
        """Capitals, the usual port and a slash at the end make no difference."""
        given = ("https://Shop.Example:443/", "http://[::1]:80", "http://a:81", "*", "app://local")
        shown = ["https://shop.example", "http://[::1]", "http://a:81", "*", "app://local"]

        settings = Settings(ALLOWED_ORIGINS=given)

        assert list(settings.ALLOWED_ORIGINS) == shown

    def test_fastapi_may_change_what_it_was_given(self) -> None:
        """Lists of settings are frozen; FastAPI gets copies, since it adds to them."""
        shop = Shop(APP_CONFIG={"servers": [{"url": "/a"}]}, TAGS=["x"])
        create_app(shop).servers.append({"url": "/b"})

        assert shop.APP_CONFIG == {"servers": [{"url": "/a"}]}
        assert shop.TAGS is not None

        with pytest.raises(TypeError, match="settings are frozen"):
            shop.TAGS.append("y")

        with pytest.raises(TypeError, match="settings are frozen"):
            shop.APP_CONFIG["servers"].clear()

        assert (
            copy.deepcopy(shop.TAGS) == copy.copy(shop.TAGS) == pickle.loads(pickle.dumps(shop.TAGS)) == ["x"]
        )
        changed: Any = shop.replace(TAGS=[*shop.TAGS, "y"])
        assert changed.TAGS == ["x", "y"]
