"""What the grammars of statements share; a text stands here without its comments and strings."""

from __future__ import annotations

import re

# Words that stand before a parenthesis without being calls, and functions that keep nothing in a session.
_WORDS = """
in exists values value and or not on using as by over partition select from where set into having limit
union all any some between like case when then else end distinct interval if nullif coalesce greatest least
count sum avg min max stddev stddev_pop stddev_samp var_pop var_samp variance bit_and bit_or bit_xor
row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value abs ceil
ceiling floor round mod power sqrt exp ln log sign pi sin cos tan asin acos atan atan2 degrees radians ascii
char char_length character_length length octet_length bit_length concat concat_ws lower upper left right
substring substr trim ltrim rtrim lpad rpad repeat replace reverse position format regexp_like
regexp_replace regexp_substr regexp_instr md5 now current_date current_time current_timestamp localtime
localtimestamp time timestamp extract cast decimal varchar version row collate grouping div default
recursive key primary exclude filter within order group rows range returning update lateral join inner outer
cross natural window
"""
COMMON = frozenset(_WORDS.split())
_FIRST = re.compile(r"[A-Za-z]+|\(")


def first_word(text: str) -> str:
    """Return the first word in lower case, ``(`` for a statement in parentheses, or an empty string."""
    found = _FIRST.search(text)
    return found.group().lower() if found else ""


def has_several(text: str) -> bool:
    """Whether there may be more than one statement."""
    return ";" in text.strip().rstrip(";")


def calls_only(text: str, call: re.Pattern[str], named: re.Pattern[str], known: frozenset[str]) -> bool:
    """Whether each name before a parenthesis is known, or ``named``: a table with its columns, or a CTE."""
    return all(
        found[1].lower() in known or named.search(text[: found.start()]) for found in call.finditer(text)
    )
