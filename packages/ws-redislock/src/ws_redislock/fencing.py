"""Refusing late writes: compare the fence where the data is kept.

A lease can end while its holder does not notice: the machine was suspended, a packet was late, a
replica took over that did not have the lock yet. Nothing on the holder's side can rule that out.
What can is the store: it remembers the largest fence it has seen with each row, and refuses a
write that comes with a smaller one. The fence of every acquisition is larger than all before it.

In SQL one condition is enough, and the number of changed rows is the answer::

    UPDATE stock SET amount = :amount, fence = :fence WHERE id = :id AND fence < :fence

The example has two holders; the first comes back late.

Example:
    >>> import sqlite3
    >>> db = sqlite3.connect(":memory:")
    >>> _ = db.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER, fence INTEGER DEFAULT 0)")
    >>> _ = db.execute("INSERT INTO stock (id, amount) VALUES (7, 100)")
    >>> statement = guarded_update("stock", ["amount"], key="id")
    >>> statement
    'UPDATE stock SET amount = :amount, fence = :fence WHERE id = :id AND fence < :fence'
    >>> db.execute(statement, {"amount": 90, "id": 7, "fence": 34}).rowcount
    1
    >>> late = db.execute(statement, {"amount": 99, "id": 7, "fence": 33})
    >>> check_written(late.rowcount, name="stock:7", fence=33)
    Traceback (most recent call last):
        ...
    ws_redislock.errors.LockLost: the write under lock 'stock:7' was refused: the store has seen a \
fence above 33, or the row does not exist
    >>> db.close()
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ws_redislock.errors import ConfigError, LockLost

__all__ = ("check_written", "guarded_update")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def guarded_update(
    table: str, columns: Iterable[str], *, key: str, fence: str = "fence", again: bool = False
) -> str:
    """
    Write an UPDATE that refuses a fence the row has seen a larger one of.

    Args:
        table: The table's name.
        columns: The columns to set, each from the parameter of its name.
        key: The column that selects the row, and the name of its parameter.
        fence: The column that holds the largest fence, and the name of its parameter.
        again: Whether the same acquisition may write more than once (``<=`` instead of ``<``).

    Returns:
        The statement, with named parameters as ``:name``.

    Raises:
        ConfigError: A name is not a plain SQL identifier.
    """
    columns = list(columns)

    for name in (table, *columns, key, fence):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is not a plain SQL name: letters, digits and underscores only", name=name
            )

    if not columns:
        raise ConfigError("a guarded update needs at least one column to set")

    assignments = ", ".join(f"{column} = :{column}" for column in [*columns, fence])
    compare = "<=" if again else "<"
    # Every name was checked to be a plain identifier; all values are parameters.
    return f"UPDATE {table} SET {assignments} WHERE {key} = :{key} AND {fence} {compare} :{fence}"  # noqa: S608


def check_written(rows: int, *, name: str, fence: int) -> None:
    """
    Check what a guarded write has changed.

    Args:
        rows: The number of changed rows that the driver reports.
        name: The lock's name, for the message.
        fence: The fence of the write.

    Raises:
        LockLost: No row was changed.
    """
    if rows == 0:
        raise LockLost(
            f"the write under lock {name!r} was refused: the store has seen a fence above {fence}, "
            f"or the row does not exist",
            lock=name,
            fence=fence,
        )
