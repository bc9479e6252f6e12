"""Errors of aiomysql and asyncmy become ours, by the server's error numbers."""

from __future__ import annotations

from ws_pool.errors import IntegrityViolation, QueryError, TransactionConflict, UnavailableError, WsError

# The connection is gone: a shutdown, a KILL, no server, gone away, lost in a query, out of step, and idle for
# longer than the server waits.
_LOST = frozenset({1053, 1927, 2003, 2006, 2013, 2014, 2055, 4031})

# The server sends the error and closes the connection: a packet it cannot read (1153: one over its
# max_allowed_packet), a broken one, a shutdown, a KILL.
_LAST = frozenset({1053, 1080, 1152, 1153, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927, 4031})

# LOAD DATA LOCAL INFILE is not allowed, by the client or by the server.
_NO_LOCAL_FILES = frozenset({1148, 3948, 4166})

# Running the whole transaction again may help: a lock was not free in time, a deadlock, a row that another
# has changed since, NOWAIT, too many transactions.
_CONFLICT = frozenset({1205, 1213, 1020, 3572, 1637})


def map_error(error: Exception, sql: str) -> WsError:
    """Map a driver's error, whose first argument is the server's number; ``sql`` is without values."""
    number = _number(error)
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    kind = type(error).__name__  # of either driver, which this module does not load

    if number in _LOST or (not number and kind == "InterfaceError"):  # the driver's: its connection is closed
        return UnavailableError(
            f"the connection to the server was lost: ({number}) {text}", errno=number, sql=sql
        )

    if number in _CONFLICT:
        return TransactionConflict(f"({number}) {text}", errno=number, sql=sql)

    if kind == "IntegrityError":
        return IntegrityViolation(f"({number}) {text}", errno=number, sql=sql)

    if number in _NO_LOCAL_FILES:
        text += "; load_data() and the option local_infile send files, if the server's local_infile is ON"

    # The drivers refuse it, whenever a server asks: it may name any file of the client's machine.
    if kind == "RuntimeError" and "LOAD_LOCAL" in text:
        text = "the server asks for a file of this machine: only load_data() sends one, and only its own"

    return QueryError(f"({number}) {text}" if number else text, errno=number, sql=sql)


def ends_connection(error: Exception) -> bool:
    """
    Whether nothing more can be run after a driver's error.

    That is so for errors after which the server closes the connection, and for those that are not
    the server's at all: a driver that does not understand the server has lost its place in the stream.
    """
    number = _number(error)
    return number in _LAST or not number or 2000 <= number < 3000  # errors of the client library


def _number(error: Exception) -> int:
    """Return the server's number of an error, 0 when it is the driver's own."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0
