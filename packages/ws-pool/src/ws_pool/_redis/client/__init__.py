"""redis-py's client over shared and dedicated connections."""
