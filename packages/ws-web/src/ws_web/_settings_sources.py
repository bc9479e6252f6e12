"""Where settings come from: the environment, .env, a secrets directory, TOML and a module.

Each source is a pydantic-settings source that returns plain nested dictionaries; merging and
validation are done by `ws_web.conf.Settings`. Unlike pydantic-settings' own environment source
these keep the case of nested names (pool names are case-sensitive), and never turn a password
that looks like a number into one.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from types import MappingProxyType, ModuleType, NoneType
from typing import Any, ClassVar, get_origin

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from ws_core.errors import describe
from ws_core.redaction import is_secret_name
from ws_web._importing import search_working_directory
from ws_web._settings_models import alternatives, inner
from ws_web.errors import SettingsError

DELIMITER = "__"
_VARIABLE = re.compile(r"\$\{([^\}:]*)(:-[^\}]*)?\}")  # as python-dotenv has it
_LISTS = (list, tuple, set, frozenset)
_PLAIN = (str, SecretStr, bytes, SecretBytes, Path)  # what text is for, whatever it looks like
MODULE_VARIABLE = "WINTERSWEET_SETTINGS_MODULE"
SECRETS_VARIABLE = "WINTERSWEET_SECRETS_DIR"
TOML_VARIABLE = "WINTERSWEET_TOML"

# Leaves with these names stay text even when they look like a number: "0123" is a password, not 123.
_TEXT_NAMES = frozenset({"url", "base_url", "address", "host", "user", "username", "db", "database", "name"})
_LITERAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|true|false|null|[\[{].*", re.DOTALL)


# Any below: settings values are of any type until pydantic has validated them.


def nest(
    pairs: Iterable[tuple[str, str]], *, prefix: str, fields: Mapping[str, FieldInfo] = MappingProxyType({})
) -> dict[str, Any]:
    """
    Turn flat names such as ``WS_DATABASES__default__url`` into nested dictionaries.

    Example:
        >>> nest([("WS_DATABASES__Main__maxsize", "7"), ("WS_DEBUG", "1"), ("HOME", "/")], prefix="WS_")
        {'DEBUG': '1', 'DATABASES': {'Main': {'maxsize': 7}}}
    """
    tree: dict[str, Any] = {}

    # Short names first, so that WS_X__y refines what WS_X gave as a whole.
    for name, raw in sorted(pairs, key=lambda pair: pair[0].count(DELIMITER)):
        if not name.startswith(prefix):
            continue

        key, *path = name[len(prefix) :].split(DELIMITER)

        if not key.isupper() or "" in path:
            continue

        declared: Sequence[Any] = alternatives(fields[key].annotation) if key in fields else (Any,)

        if not path:
            tree[key] = _declared(declared, raw, _whole)
            continue

        branch = tree.get(key)

        if not isinstance(branch, dict):
            branch = tree[key] = {}

        for part in path[:-1]:
            if not isinstance(branch.get(part), dict):
                branch[part] = {}

            branch = branch[part]

        for part in path:
            declared = inner(declared, part)

        leaf = functools.partial(_leaf, path[-1])
        is_none = raw == "null" and NoneType in declared
        branch[path[-1]] = None if is_none else _declared(declared, raw, leaf)

    return tree


def likely_name(name: str, prefix: str, fields: Mapping[str, FieldInfo]) -> str | None:
    """
    Return what a name in the environment was probably meant to be, or None when nothing is wrong with it.

    Names of others are left alone: container platforms add names such as ``WS_GATEWAY_PORT`` by themselves.
    A name is taken for a mistake when it begins with that of a section, differs from one in its case, or is
    nested below a beginning of one, as in ``WS_REDIS__default__url``.
    """
    if not name.startswith(prefix):
        return None

    key, *path = name[len(prefix) :].split(DELIMITER)

    if key in fields:
        return DELIMITER.join([prefix + key, *filter(None, path)]) if "" in path else None

    if key.upper() in fields:
        return DELIMITER.join([prefix + key.upper(), *path])

    for section in (name for name, field in fields.items() if get_origin(field.annotation) is dict):
        if key.upper().startswith(f"{section}_"):
            rest = [key[len(section) + 1 :].replace("_", DELIMITER, 1), *path]
            return DELIMITER.join([prefix + section, *rest])

        if path and key and section.startswith(f"{key.upper()}_"):
            return DELIMITER.join([prefix + section, *path])

    return None


def _contradictions(values: Mapping[str, str], settings: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield names of settings that have a plain value, with the name of a part that would replace it."""
    known = set(settings)
    names = sorted(name for name in values if name.split(DELIMITER)[0] in known)

    for name in names:
        if not isinstance(_whole(values[name]), dict):
            yield from ((name, part) for part in names if part.startswith(name + DELIMITER))


def is_one_edit_away(one: str, other: str) -> bool:
    """
    Return whether two words differ by one letter too much, too little or wrong, or two that changed places.

    Example:
        >>> is_one_edit_away("DEBGU", "DEBUG"), is_one_edit_away("OP", "OPS"), is_one_edit_away("AB", "ABCD")
        (True, True, False)
    """
    shared = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    left, right = one[shared:], other[shared:]
    swapped = left[:2] == right[1::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right[1:] or left[1:] == right or left == right[1:]


def _whole(raw: str) -> Any:
    """Return the value of a top-level key: JSON when it is an object or a list, else the text."""
    if raw.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(raw)
        except ValueError:
            return raw  # the field's own type decides whether text will do

    return raw


def _declared(declared: Sequence[Any], raw: str, otherwise: Callable[[str], Any]) -> Any:
    """Return the value for a declared type: text is left to pydantic where one plain type is declared."""
    kinds = [kind for kind in declared if kind is not NoneType]

    if len(kinds) != 1 or kinds[0] is Any:
        return otherwise(raw)

    # A list is JSON, or simply its items with commas between them.
    if get_origin(kinds[0]) in _LISTS and raw.lstrip()[:1] != "[":
        return [item.strip() for item in raw.split(",") if item.strip()]

    return raw if kinds[0] in _PLAIN else _whole(raw)


def _leaf(name: str, raw: str) -> Any:
    """Return the value of a nested name, which no field describes: a JSON literal, else the text."""
    is_text = name.lower() in _TEXT_NAMES or (is_secret_name(name) and raw[:1] not in ("[", "{"))

    if is_text or not _LITERAL.fullmatch(raw):
        return raw

    try:
        return json.loads(raw)
    except ValueError:
        return raw


class Source(PydanticBaseSettingsSource):
    """A source that returns everything at once; ``label`` names it in messages."""

    label: ClassVar[str]

    @property
    def prefix(self) -> str:
        """Return what names in the environment begin with."""
        return self.config.get("env_prefix") or ""

    def named(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings in flat names and raw values; refuse names that nearly fit."""
        fields = self.settings_cls.model_fields
        problems = [
            f"{name} ({self.label}) is not a setting: did you mean {meant}?"
            for name in values
            if (meant := likely_name(name, self.prefix, fields)) is not None
        ]
        problems += [
            f"{name} ({self.label}) is a value, and {part} a part of it: leave one of them out"
            for name, part in _contradictions(values, {self.prefix + field for field in fields})
        ]

        if problems:
            raise SettingsError("; ".join(problems))

        return nest(values.items(), prefix=self.prefix, fields=fields)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Answer the abstract method of the base; fields are not asked for one by one here."""
        return None, field_name, False


class EnvironmentSource(Source):
    """The process environment: ``WS_DEBUG``, ``WS_DATABASES__default__url``."""

    label = "environment"

    def __call__(self) -> dict[str, Any]:
        """Read the environment as it is now."""
        return self.named(os.environ)


class DotenvSource(Source):
    """The file ``.env`` of the working directory, with the names of the environment."""

    label = ".env"

    def __call__(self) -> dict[str, Any]:
        """Read the file, if there is one."""
        path = Path(str(self.config.get("env_file") or ".env"))

        if not path.is_file():
            return {}

        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            message = f"{path} cannot be read: {error}; correct or remove it"
            raise SettingsError(message, path=str(path)) from None

        problems = list(self._problems(text))

        if problems:
            raise SettingsError(f"{path}: {'; '.join(problems)}", path=str(path))

        values = dotenv_values(stream=StringIO(text))
        return self.named({key: value for key, value in values.items() if value is not None})

    def _problems(self, text: str) -> Iterator[str]:
        """Yield what python-dotenv leaves out with a warning at most, of the lines that are ours."""
        known = set(os.environ)

        for binding in parse_stream(StringIO(text)):
            line, key = binding.original.line, binding.key or ""

            if binding.error:
                if self.prefix in binding.original.string:
                    yield f"line {line} is not NAME=VALUE, or a quote is not closed"
            elif key.startswith(self.prefix):
                if binding.value is None:
                    yield f"line {line}: {key} has no value"

                for name, default in _VARIABLE.findall(binding.value or ""):
                    if name not in known and not default:
                        yield (
                            f"line {line}: {key} takes ${{{name}}}, which is not set: set it before,"
                            " or give the value by the environment or the secrets directory"
                        )

            known.add(key)


class SecretsDirSource(Source):
    """A directory with one file per value, as container platforms mount secrets."""

    label = "secrets directory"

    def __call__(self) -> dict[str, Any]:
        """Read every file of the directory that ``WINTERSWEET_SECRETS_DIR`` or the class names."""
        named = os.environ.get(SECRETS_VARIABLE) or self.config.get("secrets_dir")

        if not named:
            return {}

        directory = Path(str(named))
        found: dict[str, str] = {}

        try:
            for path in sorted(directory.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    name = path.name if path.name.startswith(self.prefix) else self.prefix + path.name
                    found[name] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            message = f"the secrets directory {directory} cannot be read: {error}; check {SECRETS_VARIABLE}"
            raise SettingsError(message, path=str(directory)) from None

        return self.named(found)


class TomlSource(Source):
    """The file ``wintersweet.toml`` of the working directory, or the one ``WINTERSWEET_TOML`` names."""

    label = "TOML"

    def __call__(self) -> dict[str, Any]:
        """Read the file, if there is one."""
        named = os.environ.get(TOML_VARIABLE)
        path = Path(named or "wintersweet.toml")

        if not named and not path.is_file():
            return {}

        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:  # ValueError: TOML and Unicode errors
            raise SettingsError(f"{path} cannot be read: {error}; correct it", path=str(path)) from None


class ModuleSource(Source):
    """The UPPERCASE names of the module that ``WINTERSWEET_SETTINGS_MODULE`` names."""

    label = "module"

    def __call__(self) -> dict[str, Any]:
        """Import the module, if one is named, and take its UPPERCASE names."""
        named = os.environ.get(MODULE_VARIABLE)

        if not named:
            return {}

        module = _import(named)
        return {
            key: value for key, value in vars(module).items() if key.isupper() and not key.startswith("_")
        }


def _import(named: str) -> ModuleType:
    """Import a settings module; every way in which that fails is one clear message."""
    search_working_directory()

    try:
        return importlib.import_module(named)
    except ModuleNotFoundError as error:
        if error.name and (named == error.name or named.startswith(f"{error.name}.")):
            message = (
                f"{MODULE_VARIABLE} names '{named}', but there is no module '{error.name}': "
                f"correct the name, or start where it can be imported"
            )
        else:
            message = f"the settings module '{named}' imports '{error.name}', which is not installed"
    except Exception as error:  # noqa: BLE001 - user code may raise anything; it is reported with its place
        message = f"the settings module '{named}' failed: {_place(error)}"
    raise SettingsError(message, module=named)


def _place(error: BaseException) -> str:
    """Describe an error of user code in one line, with file and line number."""
    text = describe(error, with_type=True)

    if isinstance(error, SyntaxError):
        return text  # which has the place

    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def overlay(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """
    Merge two nested mappings; where both have a value, the one above wins.

    Example:
        >>> overlay({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
        {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(base)

    for key, value in above.items():
        under = merged.get(key)
        merged[key] = (
            overlay(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        )

    return merged
