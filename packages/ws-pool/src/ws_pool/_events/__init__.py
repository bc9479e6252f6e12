"""Event buses over Redis: pub/sub and streams."""
