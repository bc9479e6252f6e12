"""Tests with popular add-ons of FastAPI, in an environment of their own: ``dev.py check addons``."""

from __future__ import annotations

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("schemathesis") else ["test_*.py"]


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> None:
    """Add-ons keep threads of their own, for which the fixture of this name would fail a test."""
