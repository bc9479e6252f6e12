"""What a statement's text shows: its verb, whether it only reads, whether the session stays clean."""

from __future__ import annotations

import pytest

from ws_pool._sql.mysql.batches import split_values
from ws_pool._sql.mysql.statement_text import leaves_clean, reads_only, verb

CLEAN = (
    "SELECT a, COUNT(*), MAX(b) FROM t WHERE c IN (%s, %s) AND d = '@x; SET' GROUP BY a",
    "select `get_lock` from t -- get_lock('x')",
    "INSERT INTO t (a, b) VALUES (%s, NOW())",
    "INSERT INTO `s`.`t` (a) VALUES (%s) ON DUPLICATE KEY UPDATE a = VALUES(a)",
    "UPDATE t SET a = CONCAT(a, '\\'@') WHERE b = %s",
    "DELETE FROM t WHERE a = %s;",
    "WITH c (x) AS (SELECT 1) SELECT * FROM c",
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "SAVEPOINT a",
    "(SELECT 1) UNION (SELECT 2)",
    "SHOW TABLES",
    "SELECT /* @a */ 1 # @b",
    "ROLLBACK WORK TO SAVEPOINT a;",
    "release savepoint ws_1",
    "/* x */ BEGIN -- @y",
    "SELECT `a'` FROM t WHERE b = '@x'",
    "INSERT INTO `get_lock` (a) VALUES (%s)",
)
UNCLEAN = (
    "SET @a = 1",
    "SELECT @a := 1",
    "SELECT GET_LOCK('x', 1)",
    "SELECT LAST_INSERT_ID(5)",
    "SELECT mydb.my_function(1)",
    "SELECT my_function(1)",
    "SELECT a INTO @x FROM t",
    "SELECT SQL_CALC_FOUND_ROWS a FROM t",
    "SELECT 1; SET NAMES latin1",
    "SELECT 1 /*! , @a := 2 */",
    "CALL p()",
    "USE x",
    "LOCK TABLES t READ",
    "CREATE TEMPORARY TABLE t (a INT)",
    "PREPARE x FROM 'SELECT 1'",
    "BEGIN NOT ATOMIC SET @x = 5; END",
    "START TRANSACTION; SET @x = 5; COMMIT",
    "ROLLBACK; SET time_zone = '+05:00'",
    "COMMIT AND CHAIN",
    "SELECT 1 /*M!, @x := 5 */",
    "SELECT get_lock/**/('a', 1)",
    "SELECT f$abs(7)",
    "SELECT éabs(7)",
    "SELECT test.abs(7)",
    "SELECT test . `abs` (7)",
    "SELECT `a'`, @x := 5, `b'`",
    'SELECT "my_function"(1)',
    "SELECT 1 --\t'\n, @x := 5 -- '",
    "ALTER TABLE t ADD b INT",
    "",
)


@pytest.mark.parametrize("sql", CLEAN)
def test_plain_statements_leave_the_session_clean(sql: str):
    """Queries and changes with known functions keep no state, whatever is in their literals and comments."""
    assert leaves_clean(sql)


@pytest.mark.parametrize("sql", UNCLEAN)
def test_everything_in_doubt_is_unclean(sql: str):
    """Variables, locks, settings, unknown functions and several statements at once need a reset."""
    assert not leaves_clean(sql)


def test_verbs_and_reading():
    """The first word counts, behind comments; a WITH reads unless it writes."""
    assert verb("  /* x */ Insert into t") == "insert"
    assert verb("") == ""
    assert reads_only("SELECT 1")
    assert reads_only("WITH a AS (SELECT 'delete') SELECT * FROM a")
    assert not reads_only("WITH a AS (SELECT 1) DELETE FROM t")
    assert not reads_only("SELECT 1; DELETE FROM t")
    assert not reads_only("PRAGMA x")
    assert not reads_only("WITH a AS (SELECT 1) SELECT * FROM a; DROP TABLE t")
    assert not reads_only("SELECT 1 --\t'\n; DELETE FROM t -- '")
    assert not reads_only("EXPLAIN ANALYZE DELETE a, b FROM a JOIN b")
    assert not reads_only("SELECT 1 /*M! INTO OUTFILE 'x' */")
    assert reads_only("WITH a AS (SELECT REPLACE(b, 'x', 'y') FROM t) SELECT * FROM a")


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("INSERT INTO t (a) VALUES (%s)", ("INSERT INTO t (a) VALUES ", "(%s)", "")),
        (
            "INSERT INTO t (a) VALUES (')', (%s)) RETURNING a",
            ("INSERT INTO t (a) VALUES ", "(')', (%s))", " RETURNING a"),
        ),
        ("INSERT INTO t (a) VALUES (%s) ON DUPLICATE KEY UPDATE a = %s", None),
        ("INSERT INTO t SELECT %s", None),
        ("INSERT INTO t (a) VALUES (%s", None),
    ],
)
def test_an_insert_is_split_around_its_values(sql: str, parts: tuple[str, str, str] | None):
    """The group of values is found by its parentheses; what cannot be repeated is not split."""
    assert split_values(sql) == parts
