"""Tests with popular add-ons of FastAPI, in an environment of their own: ``dev.py check addons``."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("schemathesis") else ["test_*.py"]
