"""Lua scripts as package data: read once, known to the server by digest."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

COMMON = "--[[common]]"
"""Where a script has the common part; others have it in front."""

ALONE = ("claim", "claim_run", "fast", "finish_run", "open_runs", "renew_run", "return_run", "unclaim")
"""Scripts without the common part, as are those of limiters: they know neither holders nor a queue."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its name, its text, and the digest by which EVALSHA calls it."""

    name: str
    text: str
    sha: str


@functools.cache
def load(name: str) -> Script:
    """Load a script of this package."""
    folder = resources.files("ws_redislock") / "_scripts"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")

    if name not in ALONE and not name.startswith("limit_"):
        common = (folder / "common.lua").read_text(encoding="utf-8")
        text = text.replace(COMMON, common) if COMMON in text else common + text

    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
