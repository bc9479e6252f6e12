"""The table of the tests of PostgreSQL, and URLs that name a driver."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

QUICK = {"deadlock_timeout": "50ms"}  # by default the server looks for deadlocks after a second
METADATA = MetaData()
ITEM = Table(
    "item",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False, unique=True),
    Column("stock", Integer, default=5),
)


def over(driver: str, url: str) -> str:
    """Return a URL that names the driver."""
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)
