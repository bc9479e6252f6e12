"""Settings: one typed, frozen model filled from every usual place, and the proxy `settings`.

The order, strongest first: arguments, environment (``WS_LISTEN_PORT``,
``WS_DATABASES__default__url``), ``.env``, secrets directory, ``wintersweet.toml``, the module
named by ``WINTERSWEET_SETTINGS_MODULE``, the defaults in `ws_web.global_setting`. Sections are
merged key by key, so one URL can be replaced without repeating the section.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ws_core.redaction import is_secret_name, mask
from ws_web import global_setting as default
from ws_web._frozen import frozen
from ws_web._settings_models import unknown_names
from ws_web._settings_sources import (
    DotenvSource,
    EnvironmentSource,
    ModuleSource,
    SecretsDirSource,
    Source,
    TomlSource,
    is_one_edit_away,
    overlay,
)
from ws_web.errors import SettingsError

__all__ = ("LazySettings", "Setting", "Settings", "settings")

_CLOSE = 0.84  # how alike two names must be, of 1, to be taken for a typing error

SETTINGS_OF_APPLICATION: ContextVar[Settings | None] = ContextVar("ws_web_settings", default=None)
"""The settings of the application whose request is being served."""

# What each source gave, by its label and strongest first, while settings are being made: pydantic has no
# other way to hand it from the last source to the validators, whose messages name the source.
_trace: ContextVar[dict[str, Mapping[str, Any]] | None] = ContextVar("ws_web_settings_trace", default=None)


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One setting as people may see it.

    Args:
        value: The value in use, with secrets masked.
        source: Where it came from, such as ``"environment"`` or ``"default"``.
    """

    value: object
    source: str


class Settings(BaseSettings):
    """
    The settings of an application. Subclass it to declare fields of your own.

    Raises:
        SettingsError: A value or name is wrong, or a source cannot be read. All problems are
            in the one message; nothing has been started.

    Example:
        >>> class Shop(Settings):
        ...     CURRENCY: str = "EUR"
        >>> shop = Shop(LISTEN_PORT=9000, DATABASES={"default": {"url": "mysql://u:pw@db/shop"}})
        >>> shop.LISTEN_PORT, shop.CURRENCY, shop.describe()["DATABASES.default.url"].value
        (9000, 'EUR', 'mysql://u:***@db/shop')
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="WS_",
        env_nested_delimiter="__",
        case_sensitive=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        nested_model_default_partial_update=True,
    )

    DEBUG: bool = default.DEBUG
    EMBEDDED_SERVERS: bool = default.EMBEDDED_SERVERS
    SECRET: SecretStr = SecretStr(default.SECRET)
    LISTEN_HOST: str = default.LISTEN_HOST
    LISTEN_PORT: int = Field(default=default.LISTEN_PORT, ge=0, le=65535)
    PROCESS_NUM: int = Field(default=default.PROCESS_NUM, ge=1)
    DRAIN_DELAY: float = Field(default=default.DRAIN_DELAY, ge=0, allow_inf_nan=False)
    TRUSTED_PROXIES: tuple[str, ...] = default.TRUSTED_PROXIES
    ALLOWED_ORIGINS: tuple[str, ...] = default.ALLOWED_ORIGINS
    SECURITY_HEADERS: dict[str, str] = default.SECURITY_HEADERS
    ACCESS_LOG: Literal["text", "json", "off"] = default.ACCESS_LOG
    METRICS: bool = default.METRICS
    OPS: bool = default.OPS
    OPS_TOKEN: SecretStr = SecretStr(default.OPS_TOKEN)
    OTEL: bool = default.OTEL
    METRICS_TOKEN: SecretStr = SecretStr(default.METRICS_TOKEN)
    # Any: what these hold is defined, and checked, by whom it is handed to.
    APP_CONFIG: dict[str, Any] = default.APP_CONFIG
    LOGGING_CONFIG: dict[str, Any] = default.LOGGING_CONFIG
    MIDDLEWARES: tuple[Any, ...] = default.MIDDLEWARES
    EXCEPTION_HANDLERS: tuple[Any, ...] = default.EXCEPTION_HANDLERS
    DATABASES: dict[str, dict[str, Any]] = default.DATABASES
    REDIS_CONFIG: dict[str, dict[str, Any]] = default.REDIS_CONFIG
    MONGO_CONFIG: dict[str, dict[str, Any]] = default.MONGO_CONFIG
    ES_CONFIG: dict[str, dict[str, Any]] = default.ES_CONFIG
    HTTP_CONFIG: dict[str, dict[str, Any]] = default.HTTP_CONFIG

    extra: dict[str, Any] = Field(default_factory=dict)
    """Undeclared UPPERCASE names of any source, with their values."""

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:  # Any: pydantic validates them
        trace: dict[str, Mapping[str, Any]] = {}
        token = _trace.set(trace)

        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _settings_error(type(self), error, trace) from None
        finally:
            _trace.reset(token)

        self._sources = _origins(trace)

        # Sections are frozen like the settings themselves: a pool that is changed later would not notice.
        for name, value in self.__dict__.items():
            self.__dict__[name] = frozen(value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={mask(name, getattr(self, name))!r}" for name in type(self).model_fields)
        return f"{type(self).__name__}({shown})"

    __str__ = __repr__

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first. Override it to add one of your own."""
        return (
            init_settings,
            EnvironmentSource(settings_cls),
            DotenvSource(settings_cls),
            SecretsDirSource(settings_cls),
            TomlSource(settings_cls),
            ModuleSource(settings_cls),
            _Recorder(settings_cls),
        )

    @model_validator(mode="before")
    @classmethod
    def _sort_names(cls, data: dict[str, Any]) -> dict[str, Any]:  # Any: not validated yet
        """Put undeclared UPPERCASE names into ``extra``; refuse typing errors and other names."""
        known: dict[str, Any] = {}
        extra: dict[str, Any] = dict(data.get("extra") or {})
        problems: list[str] = []

        for name, value in data.items():
            if name in cls.model_fields:
                known[name] = value
                wrong = unknown_names(cls.model_fields[name].annotation, value, name)
                problems += [f"{one}{_from(name)}" for one in wrong]
                continue

            # One slip in a short name changes too much of it to be found by likeness.
            edited = [field for field in cls.model_fields if is_one_edit_away(name.upper(), field)]
            meant = edited or difflib.get_close_matches(name.upper(), cls.model_fields, n=1, cutoff=_CLOSE)

            if meant:
                problems.append(f"there is no setting {name}{_from(name)}: did you mean {meant[0]}?")
            elif name.isupper():
                extra[name] = value
            else:
                problems.append(f"there is no setting {name}{_from(name)}: names of settings are UPPERCASE")

        if problems:
            raise SettingsError("; ".join(problems))

        return {**known, "extra": extra}

    @field_validator("ACCESS_LOG", mode="before")
    @classmethod
    def _read_access_log(cls, value: object) -> object:
        text = str(value).lower()
        return {"true": "text", "on": "text", "false": "off"}.get(text, text)

    @field_validator("TRUSTED_PROXIES")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            network = ip_network(text, strict=False)

            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
                raise ValueError(f"{text!r} is a network of IPv4: write it as one, such as 10.0.0.0/8")

        return value

    @field_validator("ALLOWED_ORIGINS")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Write origins as browsers send them: in small letters, without a path and the usual port."""
        return tuple(one if one == "*" else _origin(one) for one in value)

    @field_validator("OPS_TOKEN", "METRICS_TOKEN")
    @classmethod
    def _check_token(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value()

        if token != token.strip() or not re.fullmatch(r"[\x20-\x7e]*", token):
            raise ValueError("must be ASCII without blanks at its ends, since it is sent in a header")

        return value

    @field_validator("SECURITY_HEADERS")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        """Keep what would break a reply out of its head; names are in lower case."""
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", text):
                raise ValueError(f"{name!r} is not a header's name, or its value is not ASCII in one line")

        # One that is set in part keeps the others; it is in capitals in the environment.
        return {**default.SECURITY_HEADERS, **{name.lower(): text for name, text in value.items()}}

    @field_validator("DATABASES", "REDIS_CONFIG", "MONGO_CONFIG", "ES_CONFIG", "HTTP_CONFIG", mode="before")
    @classmethod
    def _check_section(cls, value: object, info: ValidationInfo) -> object:
        """Return how a section of named pools should look, when it does not."""
        message = f'must map names to options, such as {{"default": {{"url": ...}}}} ({info.field_name})'
        # Those of single sources too: options from a stronger one stand in the place of a text.
        sources = {label: values.get(str(info.field_name)) for label, values in (_trace.get() or {}).items()}

        for label, section in (*sources.items(), ("", value)):
            if section is None and label:
                continue  # this source says nothing of it

            for name, pool in section.items() if isinstance(section, Mapping) else [("", None)]:
                if isinstance(pool, str):
                    # Not repeated: a URL may have a password.
                    place = f"in the {label} " if label else ""
                    message += f': {place}write {{"{name}": {{"url": "…"}}}} in place of {{"{name}": "…"}}'

                if not isinstance(pool, Mapping):
                    raise ValueError(message)  # noqa: TRY004 - pydantic reports no TypeError

        return value

    def describe(self) -> dict[str, Setting]:
        """
        Return every setting with its masked value and where it came from.

        Returns:
            Keys are names such as ``LISTEN_PORT`` and, inside sections, paths such as
            ``DATABASES.default.url``.
        """
        shown: dict[str, Setting] = {}

        for name in type(self).model_fields:
            if name != "extra":
                self._describe(shown, name, getattr(self, name))

        for name, value in self.extra.items():
            self._describe(shown, name, value)

        return shown

    def replace(self, **changes: Any) -> Settings:  # Any: validated like arguments
        """
        Return a copy with some values changed; sections are merged.

        Args:
            **changes: New values under the names of the settings.

        Raises:
            SettingsError: As for the constructor.
        """
        present = {name: getattr(self, name) for name in self.model_fields_set if name != "extra"}
        copy = type(self)(**overlay({**present, **self.extra}, changes))
        changed = _origins({"arguments": changes})
        copy._sources = {**copy._sources, **self._sources, **changed}  # noqa: SLF001 - our own class
        return copy

    def _describe(self, shown: dict[str, Setting], path: str, value: object) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                self._describe(shown, f"{path}.{key}", item)
        else:
            shown[path] = Setting(mask(path.rpartition(".")[2], value), self._origin(path))

    def _origin(self, path: str) -> str:
        """Return the source of a value, or of the nearest section around it that has one."""
        while path:
            if path in self._sources:
                return self._sources[path]

            path = path.rpartition(".")[0]

        return "default"


class _Recorder(Source):
    """The last source: it adds nothing, but notes what each of the others gave."""

    label = "recorder"

    def __call__(self) -> dict[str, Any]:
        trace = _trace.get()

        if trace is not None:
            for name, values in self.settings_sources_data.items():
                trace[_LABELS.get(name, name)] = values

        return {}


_LABELS: Mapping[str, str] = {
    "InitSettingsSource": "arguments",
    **{
        source.__name__: source.label
        for source in (EnvironmentSource, DotenvSource, SecretsDirSource, TomlSource, ModuleSource)
    },
}


def _origins(trace: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the strongest source of each value, by dotted path; the trace is strongest first."""
    origins: dict[str, str] = {}

    def walk(values: Mapping[str, Any], prefix: str, label: str) -> None:
        for key, value in values.items():
            path = f"{prefix}{key}"

            if isinstance(value, Mapping) and value:
                walk(value, f"{path}.", label)
            else:
                origins.setdefault(path, label)

    for label, values in trace.items():
        walk(values, "", label)

    return origins


def _origin(text: str) -> str:
    """Return an origin as browsers send it, or refuse what none sends."""
    match = re.fullmatch(
        r"([a-z][a-z0-9+.\-]*)://([^\s/?#@*:\[\]]+|\[[0-9a-f:.]+\])(:\d{1,5})?/?", text.lower()
    )

    if match is None:
        raise ValueError(f"{text!r} is not an origin such as https://shop.example, or * for all")

    scheme, host, port = match.groups(default="")
    return f"{scheme}://{host}" + ("" if (scheme, port) in (("http", ":80"), ("https", ":443")) else port)


def _from(name: str) -> str:
    """Return " (environment)" for the strongest source that has the name, for messages."""
    for label, values in (_trace.get() or {}).items():
        if name in values:
            return f" ({label})"

    return ""


def _settings_error(
    cls: type[Settings], error: ValidationError, trace: Mapping[str, Mapping[str, Any]]
) -> SettingsError:
    """Turn pydantic's error into one sentence per problem: name, value, source and what is expected."""
    problems: list[str] = []

    for item in error.errors(include_url=False, include_context=False):
        path = [str(part) for part in item["loc"]]
        name = path[0] if path else cls.__name__
        given = next((values[name] for values in trace.values() if name in values), None)
        hidden = len(path) > 1 or isinstance(given, Mapping) or is_secret_name(name)
        value = "" if hidden or given is None else f" = {mask(name, given)!r}"
        expected = item["msg"].removeprefix("Value error, ")
        problems.append(f"{'.'.join(path) or name}{value}{_from(name)}: {expected}")

    return SettingsError("wrong settings: " + "; ".join(problems), count=len(problems))


class LazySettings:
    """
    The proxy `settings`: inside of a request those of its application, elsewhere those of the process.

    Those of the process are loaded on first use, and replaced by `use`; `override` goes before both.
    Reading an attribute reads the setting; assigning is refused, because settings are frozen.

    Args:
        factory: Builds the settings on first use.

    Example:
        >>> from ws_web import settings
        >>> with settings.override(DEBUG=True):
        ...     settings.DEBUG
        True
    """

    __slots__ = ("_current", "_factory", "_lock", "_overridden")

    _current: Settings | None
    _overridden: Settings | None
    _factory: type[Settings]
    _lock: threading.RLock

    def __init__(self, factory: type[Settings] = Settings) -> None:
        object.__setattr__(self, "_factory", factory)
        object.__setattr__(self, "_current", None)
        object.__setattr__(self, "_overridden", None)
        object.__setattr__(self, "_lock", threading.RLock())

    def __getattr__(self, name: str) -> Any:  # Any: as declared by the settings class
        if name.startswith("__"):
            raise AttributeError(name)

        current = self.current

        try:
            return getattr(current, name)
        except AttributeError:
            pass

        if name in current.extra:
            return current.extra[name]

        names = [*type(current).model_fields, *current.extra]
        meant = difflib.get_close_matches(name.upper(), names, n=1)
        hint = f": did you mean {meant[0]}?" if meant else ""
        raise AttributeError(f"there is no setting {name}{hint}")

    def __setattr__(self, name: str, value: object) -> None:
        message = f"settings are frozen: to change {name} for a test use `with settings.override({name}=...)`"
        raise AttributeError(message)

    def __repr__(self) -> str:
        return f"<settings: {self._current!r}>" if self._current else "<settings: not loaded>"

    @property
    def current(self) -> Settings:
        """Return the settings in use here, loading them at the first call."""
        chosen = self._overridden or SETTINGS_OF_APPLICATION.get()

        if chosen is not None:
            return chosen

        with self._lock:
            if self._current is None:
                object.__setattr__(self, "_current", self._factory())

            assert self._current is not None
            return self._current

    def initialize(self) -> Settings:
        """Load the settings anew from all sources and return them."""
        with self._lock:
            object.__setattr__(self, "_current", None)
            return self.current

    def offer(self, value: Settings) -> None:
        """Make these the settings of the process, unless it has some: another application's stay."""
        with self._lock:
            if self._current is None:
                object.__setattr__(self, "_current", value)

    def use(self, value: Settings | None) -> None:
        """Make these the settings in use, or with None load them anew at the next use."""
        with self._lock:
            object.__setattr__(self, "_current", value)

    @contextmanager
    def override(self, **changes: Any) -> Iterator[Settings]:  # Any: validated like arguments
        """
        Change settings for the length of a ``with`` block, for all threads and tasks.

        Args:
            **changes: New values; sections are merged into the present ones.

        Raises:
            SettingsError: A new value or name is wrong; nothing was changed.
        """
        with self._lock:
            before = self._overridden
            changed = self.current.replace(**changes)
            object.__setattr__(self, "_overridden", changed)

        try:
            yield changed
        finally:
            with self._lock:
                object.__setattr__(self, "_overridden", before)


settings: LazySettings = LazySettings()
"""The settings of this process."""
