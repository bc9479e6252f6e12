"""What the text of a PostgreSQL statement shows: its verb, whether it reads only, what it leaves behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pool._sql.postgres.statement_text import fill, has_cursor, leaves_clean, reads_only, verb


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("SELECT 1", "select"),
        ("  -- a\n select 1", "select"),
        ("/* /* nested */ */ INSERT INTO t VALUES (1)", "insert"),
        ("/* open", ""),
        ("(SELECT 1) UNION (SELECT 2)", "("),
        ("", ""),
        ("# SELECT 1", "select"),  # no comment here: the server refuses it, and it is no business of ours
    ],
)
def test_verb(sql: str, first: str) -> None:
    """Comments nest, and `#` begins none."""
    assert verb(sql) == first


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a::int, '{}'::jsonb ? 'k' FROM t WHERE b = $1",
        "SELECT $$ pg_advisory_lock(1); $$, $x$ $$ set_config() $x$, E'it\\'s ; pg_notify()'",
        "SELECT 'a''b; listen()' FROM \"Strange; name()\"",
        "SELECT count(*) FILTER (WHERE x > 1) OVER (PARTITION BY y) FROM t",
        "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING id",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "UPDATE t SET a = jsonb_set(a, '{b}', to_jsonb($1)) WHERE id = $2",
        "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "COMMIT",
        "ROLLBACK TO SAVEPOINT s1",
        "SHOW search_path",
        "SELECT 1;",
    ],
)
def test_clean(sql: str) -> None:
    """Plain queries and changes, whatever is in their strings, leave the session as it was."""
    assert leaves_clean(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_advisory_lock(1)",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT \"set_config\"('a.b', 'c', false)",
        "SELECT my_function()",
        "SELECT public.lower('A')",
        "SELECT * INTO TEMP mine FROM t",
        "SET search_path = a",
        "CREATE TEMP TABLE t (a int)",
        "LISTEN a",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
        "SELECT 1; SET a.b = 'c'",
        "SELECT E'\\'' , pg_advisory_lock(1) , ''",
        "SELECT '\\', pg_advisory_lock(1), ''",  # a backslash is itself outside of E''
        "SELECT $a$ $b$, pg_advisory_lock(1), $b$ $a$ , pg_advisory_lock(2)",
        "/* /* */ SELECT 1 */ SELECT pg_advisory_lock(1)",
        "CALL p()",
        "COPY t FROM STDIN",
        "WITH x AS (SELECT 1 AS n INTO t) SELECT 1",
    ],
)
def test_not_clean(sql: str) -> None:
    """What changes the session, or may, is followed by a reset."""
    assert not leaves_clean(sql)


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "TABLE t", "VALUES (1)", "SHOW a", "EXPLAIN SELECT 1", "(SELECT 1)"]
)
def test_reading(sql: str) -> None:
    """Plain queries only read."""
    assert reads_only(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT * INTO t FROM u",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "SELECT nextval('s')",
        "SELECT my_function()",
        "INSERT INTO t VALUES (1)",
        "SELECT 1; DELETE FROM t",
        "",
    ],
)
def test_writing(sql: str) -> None:
    """Locks, tables made by a query, changes inside of one, and unknown functions count as changes."""
    assert not reads_only(sql)


@pytest.mark.parametrize(
    ("sql", "declared"),
    [
        ("SELECT f(1)", True),
        ("(SELECT 1) UNION (SELECT 2)", True),
        ("TABLE t", True),
        ("WITH x AS (SELECT 'delete') SELECT * FROM x", True),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", False),
        ("INSERT INTO t VALUES (1) RETURNING a", False),
        ("SELECT * INTO t FROM u", False),
        ("SHOW a", False),
    ],
)
def test_cursors(sql: str, declared: bool) -> None:
    """A cursor is declared for queries that change nothing."""
    assert has_cursor(sql) is declared


def test_values_are_filled_in() -> None:
    """In the places of values: not in strings, names, comments, or bodies between dollars."""
    sql = """SELECT $1, $10, a$1, '$1', "$1", E'\\'$1', $b$ $1 $b$ /* /* $1 */ $1 */ -- $1\n, $2"""
    literals = [f"<{n}>" for n in range(1, 11)]
    expected = sql.replace("SELECT $1, $10,", "SELECT <1>, <10>,").replace("\n, $2", "\n, <2>")
    assert fill(sql, literals) == expected
    assert fill(sql, []) == sql


@given(st.text(alphabet="aA1 '\"$;-/*\\\n(),E", max_size=60))
def test_any_text(text: str) -> None:
    """Any text is judged, quickly and without an error."""
    verb(text)
    reads_only(text)
    leaves_clean(text)


@given(st.text(alphabet="ab '\"$;-/*\\\n()", max_size=40))
def test_what_is_quoted_does_not_count(text: str) -> None:
    """Whatever stands in a string, a quoted name or a comment changes no judgement."""
    string = text.replace("'", "''")
    dollar = f"$q${text.replace('$', '')}$q$"
    comment = text.replace("*/", "").replace("/*", "")

    assert leaves_clean(f"SELECT '{string}', {dollar} /* {comment} */ FROM t")
    assert not leaves_clean(f"SELECT '{string}', {dollar} /* {comment} */, pg_advisory_lock(1) FROM t")
