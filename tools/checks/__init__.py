"""What must hold for a change to land, beside the tests: run by ``python3 tools/dev.py check``."""
