"""Models as parts of settings: how text is read for their fields, and which names they have."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel
from typing_extensions import is_typeddict

# Any below: annotations, and values before they are validated.

_MAPPINGS = (dict, Mapping)
_SEQUENCES = (list, tuple, set, frozenset, Sequence)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a declared one stands for: the members of a union, without `Annotated`."""
    origin = get_origin(annotation)

    if origin is Annotated:
        return alternatives(get_args(annotation)[0])

    if origin in (Union, types.UnionType):
        return tuple(one for member in get_args(annotation) for one in alternatives(member))

    return (annotation,)


def inner(declared: Sequence[Any], name: str) -> tuple[Any, ...]:
    """Return the types that a part of this name may have; `Any` where nothing is declared."""
    found: list[Any] = []

    for kind in declared:
        fields = _fields(kind)

        if fields is not None:
            found += alternatives(fields[name]) if name in fields else ()
        elif get_origin(kind) in _MAPPINGS:
            found += alternatives(get_args(kind)[1])

    return tuple(found) or (Any,)


def unknown_names(annotation: Any, value: Any, path: str) -> Iterator[str]:
    """Yield what is wrong with names that no field has; pydantic ignores them without a word."""
    declared = alternatives(annotation)

    if isinstance(value, Mapping):
        models = [fields for kind in declared if (fields := _fields(kind)) is not None]
        names = {name for fields in models for name in fields}
        # Where anything else is declared beside models, it may take the other names.
        is_closed = bool(models) and len(models) == sum(kind is not types.NoneType for kind in declared)

        for key, item in value.items():
            if is_closed and key not in names:
                near = [name for name in names if name.lower() == str(key).lower()]
                near = near or difflib.get_close_matches(str(key).lower(), names, n=1)
                hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(names))}"
                yield f"{path}.{key} does not exist{hint}"
            else:
                part = inner(declared, str(key))
                yield from unknown_names(Union[part], item, f"{path}.{key}")  # noqa: UP007 - built at run time
    elif isinstance(value, list | tuple):
        parts = [get_args(kind)[0] for kind in declared if get_origin(kind) in _SEQUENCES and get_args(kind)]

        for index, item in enumerate(value if parts else ()):
            yield from unknown_names(Union[tuple(parts)], item, f"{path}.{index}")  # noqa: UP007 - as above


def _fields(kind: Any) -> dict[str, Any] | None:
    """Return the types of the fields of a model by all of their names; None when it takes other names too."""
    if is_typeddict(kind):
        return dict(kind.__annotations__)

    if not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return None

    validators = kind.__pydantic_decorators__.model_validators.values()

    if kind.model_config.get("extra", "ignore") != "ignore" or any(
        v.info.mode != "after" for v in validators
    ):
        return None

    fields: dict[str, Any] = {}

    for name, field in kind.model_fields.items():
        named = (name, field.alias, *_aliases(field.validation_alias))
        fields.update(dict.fromkeys(filter(None, named), field.annotation))

    return fields


def _aliases(alias: str | AliasPath | AliasChoices | None) -> list[str]:
    """Return the names that an alias stands for."""
    if isinstance(alias, AliasChoices):
        return [name for choice in alias.choices for name in _aliases(choice)]

    if isinstance(alias, AliasPath):
        return [str(alias.path[0])]

    return [] if alias is None else [alias]
