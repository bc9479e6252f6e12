"""Walk the public names of an installed ``wintersweet``; runs on Python 3.8 and under 1.1.4 too."""

import importlib
import inspect
import json
import os
import pkgutil
import sys

_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}


def parameters(thing):
    """Return the names of a function's parameters, with stars as they are written."""
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None

    return [_STARS.get(p.kind.name, "") + p.name for p in found if p.name not in ("self", "cls")]


def members(kind):
    """Return the public members of a class: parameters of a function, else the kind of the member."""
    found = {}

    for name, value in vars(kind).items():
        if not name.startswith("_") and not inspect.ismodule(value):
            plain = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            found[name] = parameters(plain) if callable(plain) else type(value).__name__

    return found


def walk():
    """Return the classes and functions that each module defines."""
    import wintersweet

    tree = {}

    for found in pkgutil.walk_packages(wintersweet.__path__, "wintersweet."):
        module = importlib.import_module(found.name)
        own = {
            name: {"parameters": parameters(thing.__init__ if inspect.isclass(thing) else thing)}
            for name, thing in vars(module).items()
            if not name.startswith("_") and callable(thing) and getattr(thing, "__module__", "") == found.name
        }

        for name in own:
            if inspect.isclass(getattr(module, name)):
                own[name]["members"] = members(getattr(module, name))

        if own:
            tree[found.name[len("wintersweet.") :]] = own

    return tree


if __name__ == "__main__":
    os.environ.setdefault("WINTERSWEET_SETTINGS_MODULE", "wintersweet.framework.conf.global_setting")
    json.dump(walk(), sys.stdout)
