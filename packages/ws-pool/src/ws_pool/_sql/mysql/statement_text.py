"""What the text of a MySQL statement alone shows: its verb, and whether it leaves the session as it was.

A session is *clean* after a statement when the statement cannot have changed anything that the
next user of the connection would notice: no user variable, no setting, no temporary table, no lock,
no default schema. The judgement errs on the safe side: only plain queries and changes of data whose
functions are all known count as clean. What a trigger or a stored function does cannot be seen here;
a call of a stored function is unknown and therefore not clean.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ws_pool._sql.text import COMMON, calls_only, first_word, has_several

_PLAIN = frozenset(
    {"select", "insert", "update", "delete", "replace", "values", "with", "explain", "show", "("}
)
_READING = frozenset({"select", "values", "explain", "show", "with", "("})
_MAY_HOLD_DML = frozenset({"with", "explain"})
_DML = re.compile(r"\b(?:insert|update|delete|replace)\b(?!\s*\()", re.IGNORECASE)

# Transaction control leaves a session clean only as the whole of a statement, and in its plain forms.
_CONTROL = re.compile(
    r"""\s* (?: begin (?:\s+work)?
      | start \s+ transaction (?:\s+ (?: read \s+ (?:only|write) | with \s+ consistent \s+ snapshot) )?
      | commit (?:\s+work)?
      | rollback (?:\s+work)? (?:\s+ to (?:\s+savepoint)? \s+ [A-Za-z_0-9]+)?
      | (?: release \s+ )? savepoint \s+ [A-Za-z_0-9]+
    ) \s* ;? \s*""",
    re.VERBOSE | re.IGNORECASE,
)

# What ends the open transaction: its control, and what the server commits by itself before it runs. See
# https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html; temporary tables are not among it.
_ENDING = re.compile(
    r"""\s* (?: begin | start \s+ transaction | commit | rollback (?!(?:\s+work)?\s+to\b)
      | alter | rename | truncate | grant | revoke | lock \s+ tables?
      | create \s+ (?!(?:or\s+replace\s+)?temporary\b) | drop \s+ (?!temporary\b)
    ) (?:\b|(?<=\s))""",
    re.VERBOSE | re.IGNORECASE,
)

# A run of plain characters is one possessive step: fast in long strings, and linear in open ones.
# What MySQL and MariaDB take for a comment, a string, or a quoted name. `/*!` and `/*M!` are no comments.
_SKIP = re.compile(
    r"""(?P<comment> /\*(?!M?!).*?\*/ | --(?=[\x00-\x20]|\Z)[^\n]* | \#[^\n]* )
    | '(?:[^'\\]++|\\.|'')*' | "(?:[^"\\]++|\\.|"")*" | (?P<name> `[^`]*` )""",
    re.VERBOSE | re.DOTALL,
)
_NAME = r"(?:`[^`]*`|(?<![\w$])[\w$]++)"  # from its first letter: else long words cost their square
_CALL = re.compile(rf"({_NAME}(?:\s*\.\s*{_NAME})*)\s*\(")

# Beside those of all grammars.
_WORDS = """
ifnull isnull group_concat std truncate pow log2 log10 rand cot crc32 conv bin oct hex unhex ord lcase ucase
substring_index mid locate instr insert elt field find_in_set space strcmp soundex quote to_base64
from_base64 sha sha1 sha2 aes_encrypt aes_decrypt compress uncompress curdate curtime utc_date utc_time
utc_timestamp sysdate date year month day dayofmonth dayofweek dayofyear dayname monthname hour minute
second microsecond quarter week weekday weekofyear yearweek date_add date_sub adddate subdate addtime
subtime datediff timediff timestampdiff timestampadd date_format time_format str_to_date from_unixtime
unix_timestamp from_days to_days to_seconds sec_to_time time_to_sec makedate maketime last_day convert
binary signed unsigned nchar json json_extract json_unquote json_value json_array json_object json_arrayagg
json_objectagg json_contains json_contains_path json_keys json_length json_type json_valid json_set
json_insert json_replace json_remove json_merge json_merge_patch json_merge_preserve json_search json_quote
json_table uuid uuid_short inet_aton inet_ntoa inet6_aton inet6_ntoa database schema user current_user
connection_id sleep match against xor index ignore duplicate straight_join
"""
_KNOWN = COMMON | set(_WORDS.split())

# What makes the next name that of a table, an alias or a CTE, though a parenthesis follows it.
_NAMED = re.compile(r"\b(?:into|with|recursive|as|window)\s+$", re.IGNORECASE)

# Constructs that always count as unclean: variables, locks, results into variables, code in comments,
# and calls of a name in quotes (which is a name in the mode ANSI_QUOTES).
_UNCLEAN = re.compile(
    r"@|:=|/\*M?!|(?<!into )(?<!with )''\s*\(|\binto\s+(?:outfile|dumpfile)\b"
    r"|\bsql_calc_found_rows\b|\bprocedure\s+analyse\b",
    re.IGNORECASE,
)
_WRITING = re.compile(r"/\*M?!|\binto\s+(?:outfile|dumpfile)\b", re.IGNORECASE)


@lru_cache(maxsize=2048)
def verb(sql: str) -> str:
    """
    Return a statement's first word in lower case, or ``(`` for a statement in parentheses.

    Example:
        >>> verb("/* hint */ Select 1")
        'select'
    """
    return first_word(bare(sql))


@lru_cache(maxsize=2048)
def leaves_clean(sql: str) -> bool:
    """
    Whether a statement surely leaves the session as it was; False when in doubt.

    Example:
        >>> leaves_clean("SELECT count(*) FROM t WHERE a = %s"), leaves_clean("SELECT get_lock('a', 1)")
        (True, False)
    """
    text = bare(sql)

    if _CONTROL.fullmatch(text):
        return True

    if verb(sql) not in _PLAIN or has_several(text) or _UNCLEAN.search(text):
        return False

    return calls_only(text, _CALL, _NAMED, _KNOWN)


@lru_cache(maxsize=2048)
def reads_only(sql: str) -> bool:
    """Whether a statement surely changes nothing; False when in doubt."""
    first = verb(sql)
    text = bare(sql)

    if first not in _READING or has_several(text) or _WRITING.search(text):
        return False

    return not (first in _MAY_HOLD_DML and _DML.search(text))


@lru_cache(maxsize=2048)
def ends_transaction(sql: str) -> bool:
    """
    Whether a statement ends or begins a transaction, or commits the open one by itself, as far as that shows.

    Example:
        >>> ends_transaction("CREATE TABLE t (a INT)"), ends_transaction("CREATE TEMPORARY TABLE t (a INT)")
        (True, False)
    """
    return bool(_ENDING.match(bare(sql)))


def hides_placeholder(sql: str) -> bool:
    """
    Whether a placeholder stands inside a string or a comment, where a value in quotes would become SQL.

    Example:
        >>> hides_placeholder("SELECT '%s'"), hides_placeholder("SELECT '100 %%s', %s")
        (True, False)
    """
    return _places(sql) != _places(bare(sql))


def bare(sql: str) -> str:
    """Take comments and the contents of strings away; names in backquotes stay."""
    return _SKIP.sub(_reduced, sql)


def _places(sql: str) -> int:
    return sql.replace("%%", "").count("%s")


def _reduced(found: re.Match[str]) -> str:
    return " " if found.group("comment") is not None else found.group("name") or "''"
