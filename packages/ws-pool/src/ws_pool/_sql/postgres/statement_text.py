"""What PostgreSQL's text of a statement shows: its verb, and whether it leaves the session as it was.

The judgement errs on the safe side, as for MySQL: only plain queries and changes of data whose functions
are all known count as clean. See https://www.postgresql.org/docs/current/sql-syntax-lexical.html for
what is a string, a name and a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ws_pool._sql.text import COMMON, calls_only, first_word, has_several

_PLAIN = frozenset(
    {"select", "insert", "update", "delete", "merge", "values", "with", "explain", "show", "("}
)
_READING = frozenset({"select", "values", "explain", "show", "with", "table", "("})
_DML = re.compile(r"\b(?:insert|update|delete|merge)\b(?!\s*\()", re.IGNORECASE)

# Transaction control leaves a session clean only as the whole of a statement, and in its plain forms.
_CONTROL = re.compile(
    r"""\s* (?: (?: begin (?:\s+ (?:work|transaction))? | start \s+ transaction )
          (?:\s*,?\s* (?: isolation \s+ level \s+
              (?: serializable | repeatable \s+ read | read \s+ committed | read \s+ uncommitted )
            | read \s+ (?:only|write) | (?:not\s+)? deferrable ) )*
      | (?: commit | end | rollback | abort ) (?:\s+ (?:work|transaction))?
      | rollback (?:\s+work)? \s+ to (?:\s+savepoint)? \s+ [A-Za-z_0-9]+
      | (?: release \s+ )? savepoint \s+ [A-Za-z_0-9]+
    ) \s* ;? \s*""",
    re.VERBOSE | re.IGNORECASE,
)

_ENDING = re.compile(
    r"\s*(?:begin|start\s+transaction|commit|end|abort|prepare\s+transaction"
    r"|rollback(?!(?:\s+(?:work|transaction))?\s+to))\b",
    re.IGNORECASE,
)

# Strings (E'' with backslashes, others without), quoted names, bodies between dollars, comments.
# Comments nest, so they are taken out by hand.
_TOKEN = re.compile(
    r"""(?P<line> --[^\n]* ) | (?P<open> /\* )
    | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*'
    | (?P<name> "(?:[^"]|"")*" )
    | (?P<dollar> (?<![\w$]) \$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$ )""",
    re.VERBOSE | re.DOTALL,
)
_PUNCTUATION = re.compile(r"[;()]")
_PLACEHOLDER = re.compile(r"(?<![\w$])\$(\d+)")
_NEST = re.compile(r"/\*|\*/")
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)'
_CALL = re.compile(rf"({_NAME}(?:\s*\.\s*{_NAME})*)\s*\(")

# Beside those of all grammars.
_WORDS = """
ilike similar every bool_and bool_or string_agg array_agg json_agg jsonb_agg json_object_agg
jsonb_object_agg corr mode percentile_cont percentile_disc trunc gcd lcm width_bucket initcap btrim strpos
overlay chr split_part string_to_array string_to_table translate regexp_match regexp_matches
regexp_split_to_array regexp_split_to_table regexp_count starts_with encode decode sha224 sha256 sha384
sha512 to_hex quote_literal quote_ident quote_nullable clock_timestamp statement_timestamp
transaction_timestamp timeofday age date_part date_trunc date_bin make_date make_time make_timestamp
make_timestamptz make_interval justify_days justify_hours justify_interval isfinite to_char to_date
to_number to_timestamp timezone array cardinality array_append array_cat array_dims array_length array_lower
array_ndims array_position array_positions array_prepend array_remove array_replace array_to_string
array_upper trim_array unnest json_build_array jsonb_build_array json_build_object jsonb_build_object
to_json to_jsonb row_to_json array_to_json json_array_length jsonb_array_length json_array_elements
jsonb_array_elements json_array_elements_text jsonb_array_elements_text json_each jsonb_each json_each_text
jsonb_each_text json_extract_path jsonb_extract_path json_extract_path_text jsonb_extract_path_text
json_object_keys jsonb_object_keys json_populate_record jsonb_populate_record json_typeof jsonb_typeof
jsonb_set jsonb_insert jsonb_strip_nulls json_strip_nulls jsonb_pretty jsonb_path_exists jsonb_path_match
jsonb_path_query jsonb_path_query_array jsonb_path_query_first isempty lower_inc upper_inc lower_inf
upper_inf range_merge int4range int8range numrange tsrange tstzrange daterange to_tsvector to_tsquery
plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline setweight
generate_series generate_subscripts gen_random_uuid random convert_from convert_to host network masklen
netmask broadcast family nextval currval current_database current_schema current_schemas pg_typeof
pg_backend_pid pg_is_in_recovery txid_current pg_sleep current_setting inet_server_addr inet_server_port
numeric character bpchar bit varbit timestamptz timetz float groups conflict do nothing materialized sets
rollup cube ordinality with
"""
_KNOWN = COMMON | set(_WORDS.split())

# What makes the next name that of a table, an alias or a CTE, though a parenthesis follows it.
_NAMED = re.compile(r"\b(?:into|with|recursive|as|window|conflict)\s+$", re.IGNORECASE)
# A table made by a query, and locks that a read-only server refuses.
_INTO = re.compile(r"\binto\b", re.IGNORECASE)
_LOCKING = re.compile(r"\bfor\s+(?:no\s+key\s+)?(?:update|share|key\s+share)\b", re.IGNORECASE)


@lru_cache(maxsize=2048)
def verb(sql: str) -> str:
    """
    Return a statement's first word in lower case; ``(`` for one in parentheses, or an empty string.

    Example:
        >>> verb("/* a /* nested */ hint */ Select 1")
        'select'
    """
    return first_word(_bare(sql))


@lru_cache(maxsize=2048)
def leaves_clean(sql: str) -> bool:
    """
    Whether a statement surely leaves the session as it was; False when in doubt.

    Example:
        >>> leaves_clean("SELECT count(*) FROM t WHERE a = $1"), leaves_clean("SELECT pg_advisory_lock(1)")
        (True, False)
    """
    text = _bare(sql)

    if _CONTROL.fullmatch(text):
        return True

    first = verb(sql)

    if first not in _PLAIN or has_several(text) or (first in _READING and _makes_table(text)):
        return False

    return calls_only(text, _CALL, _NAMED, _KNOWN)


@lru_cache(maxsize=2048)
def reads_only(sql: str) -> bool:
    """
    Whether a statement surely changes and locks nothing; False when in doubt.

    Example:
        >>> reads_only("SELECT 1"), reads_only("SELECT * INTO t FROM u"), reads_only("SELECT 1 FOR UPDATE")
        (True, False, False)
    """
    text = _bare(sql)

    if verb(sql) not in _READING or has_several(text) or _LOCKING.search(text) or _makes_table(text):
        return False

    # A WITH or EXPLAIN ANALYZE may hold a change; a function may make one too, so it must be known.
    return not _DML.search(text) and calls_only(text, _CALL, _NAMED, _KNOWN - {"nextval"})


def hides_placeholder(sql: str) -> bool:
    """Return False: PostgreSQL itself counts the places of values, and refuses those that have none."""
    return False


@lru_cache(maxsize=2048)
def ends_transaction(sql: str) -> bool:
    """
    Whether a statement ends or begins a transaction; a savepoint's do not.

    Example:
        >>> ends_transaction("ABORT"), ends_transaction("ROLLBACK TO SAVEPOINT here")
        (True, False)
    """
    return bool(_ENDING.match(_bare(sql)))


@lru_cache(maxsize=2048)
def has_cursor(sql: str) -> bool:
    """
    Whether a cursor can be declared for a statement: for queries that change nothing themselves.

    Example:
        >>> has_cursor("SELECT f(1)"), has_cursor("INSERT INTO t VALUES (1) RETURNING id")
        (True, False)
    """
    text = _bare(sql)
    first = verb(sql)

    if first not in {"select", "values", "with", "table", "("} or _makes_table(text):
        return False

    return first != "with" or not _DML.search(text)


def fill(sql: str, literals: Sequence[str]) -> str:
    """
    Write values, as literals, into the places of ``$1`` and so on.

    Example:
        >>> fill("SELECT $1, '$1' -- $1", ["7"])
        "SELECT 7, '$1' -- $1"
    """
    if not literals:
        return sql

    parts: list[str] = []
    at = 0

    for token, end in (*_tokens(sql), (None, len(sql))):
        start = end if token is None else token.start()
        parts.append(_PLACEHOLDER.sub(lambda place: literals[int(place[1]) - 1], sql[at:start]))
        parts.append(sql[start:end])
        at = end

    return "".join(parts)


def _makes_table(text: str) -> bool:
    """Whether a query may be SELECT … INTO; INSERT INTO inside a WITH is a change all the same."""
    return _INTO.search(text) is not None


def _bare(sql: str) -> str:
    """Take comments and the contents of strings away; quoted names stay."""
    parts: list[str] = []
    at = 0

    for token, end in _tokens(sql):
        parts.append(sql[at : token.start()])
        at = end

        if token["name"] is not None:
            parts.append(_PUNCTUATION.sub("_", token["name"]))
        else:
            parts.append(" " if token.lastgroup in {"line", "open"} else "''")

    parts.append(sql[at:])
    return "".join(parts)


def _tokens(sql: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield the beginnings of strings, quoted names and comments, each with where it ends."""
    at = 0

    while found := _TOKEN.search(sql, at):
        at = found.end()

        if found["open"] is not None:
            at = _comment_end(sql, at)
        elif found["dollar"] is not None:
            end = sql.find(found["dollar"], at)
            at = len(sql) if end < 0 else end + len(found["dollar"])

        yield found, at


def _comment_end(sql: str, at: int) -> int:
    """Return where a comment ends whose opening is before ``at``: comments nest."""
    depth = 1

    while depth and (found := _NEST.search(sql, at)):
        depth += 1 if found.group() == "/*" else -1
        at = found.end()

    return at if not depth else len(sql)
