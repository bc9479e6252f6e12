"""FastAPI's own tests, with `create_app` in FastAPI's place.

    python -m tools.conformance.fastapi_suite [TEST FILES]

They run with the plugin beside this file. What passes on plain FastAPI and fails on ours is named in
``fastapi_exceptions.json`` with its reason, or is a failure; so is a named exception that passes.
"""

from __future__ import annotations

import sys

from tools.conformance._peer import Peer, main

# Telemetry, benchmarks and release scripts are not about routes.
LEFT_OUT = (
    "benchmarks", "memory_benchmarks", "test_fastapi_cli.py", "test_prepare_release.py", "test_telemetry",
    "test_tutorial/test_opentelemetry",
)  # fmt: skip
FASTAPI = Peer("fastapi", "FastAPI", ["tests"], [f"tests/{name}" for name in LEFT_OUT])

if __name__ == "__main__":
    sys.exit(main(FASTAPI))
