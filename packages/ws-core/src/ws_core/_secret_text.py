"""Mask secrets in text, in time that is linear in its length.

No expression here is tried at every position over an unbounded stretch: a plain search finds the
places that may be of interest, and what is looked at around such a place is bounded or is not looked
at again.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Final

from ws_core._secret_names import AMBIGUOUS, SecretNames

MASK: Final = "***"

_URL = re.compile(r"[^\s\"'<>`]*")
# A password that begins, and is cut off by a quote that belongs to it.
_OPEN_PASSWORD = re.compile(r"[^/?#:\[]*+:(?!\d*+(?:[/?#]|\Z))")
_WIDE_URL = re.compile(r"\S*")
_LONGEST_USERINFO: Final = 4096  # characters from "://" in which the "@" of a URL is looked for
_SCHEME: Final = 32  # characters before "://"
_NAME: Final = 64  # characters of a name before the part that makes it secret
_NAME_CHARACTERS = re.compile(r"[\w.\-]*")

# The quotes of JSON inside JSON are escaped, once more for each level: \" and \\\" and so on.
_QUOTE = re.compile(r"[bBuUrRfF]{0,2}(\\{0,15})([\"'])")
_QUOTED: Final = {
    '"': re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL),
    "'": re.compile(r"(?:[^'\\]++|\\.|'')*+", re.DOTALL),  # SQL writes a quote as two
}
_BRACKETS = re.compile(
    r""""(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'|[\[{(]|[\]})]|[^\[\]{}()"']++|.""", re.DOTALL
)
_SHORT_LIST = re.compile(r"[\[(][^\[\]()]{0,1024}+[\])]")
# What separates values ends one only when another value, or nothing, follows.
_BARE = re.compile(
    r"(?![\"'])(?:[^\s,;&\"']|[\"'](?=\w)|[,;&](?![\s\"'\[{(]|[\w.\-\[\]%]{1,64}\s{0,4}[=:]|\Z))++"
)
_BLOCK = re.compile(r"[|>][+\-\d]{0,2}[ \t]*+\r?\n(?:[ \t]++[^\r\n]*+(?:\r?\n|\Z)|\r?\n)++")  # of YAML
_ANNOTATION = re.compile(
    r"[A-Za-z_][\w.]{0,64}(?:\[[\w.,| ]{0,64}\])?(?: ?\| ?[\w.]{1,32}){0,3}[ \t]{1,8}=[ \t]{0,8}"
    r"(?=[bBuUrRfF]{0,2}[\"'])"
)
_SHORT: Final = 128  # characters of a text that is worth remembering
_MOST_CLEAN: Final = 4096
_CLOSERS: Final = ")]}>"
_NOTHING: Final = frozenset({"", "none", "null", "nil", "true", "false", "undefined"})
# Authorization: SCHEME CREDENTIALS; the credentials of these schemes are lists of parameters.
_LISTING = re.compile(
    r"(?:digest|hawk|oauth|signature|mac|aws4-hmac-sha\d+|scram-sha-\d+)\b[^\r\n]*", re.IGNORECASE
)
_SCHEMED = re.compile(r"[\w.\-+/=~]++(?:[ \t]++[^\s,;&\"']++)?")
_COOKIE = r"(?:(?<==)\\{0,7}\"[^\"\r\n]*+\"|[^\s;,\"'])++"
_COOKIES = re.compile(rf"{_COOKIE}(?:;[ \t]*+{_COOKIE})*+")
_BEARER = re.compile(r"\b(bearer(?:[ \t]{0,4}:)?[ \t]+)[\w.\-~+/]{8,}+=*+", re.IGNORECASE)
_BASIC = re.compile(r"\b(basic[ \t]{1,8})([A-Za-z0-9+/]{4,}+={0,2}+)", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w\-]{8,}+\.[\w\-]++\.[\w\-]*+")
_KEY = re.compile(
    r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----)(.*?)"
    r"(-----END [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# IDENTIFIED BY 'x', PASSWORD('x'), PASSWORD 'x' and SET PASSWORD FOR u = 'x' in statements of SQL.
_STATEMENT = re.compile(
    r"\b((?:identified\s{1,8}(?:with\s{1,8}\S{1,64}\s{1,8})?(?:by|as)|password)(?:\s{1,8}|\s{0,8}\(\s{0,8})"
    r"|password\s{1,8}for\s{1,8}\S{1,128}\s{0,8}=\s{0,8})(?=['\"])",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?<![\w-])--?([A-Za-z][\w\-]{1,63})[ \t]{1,8}(?![-\s])")
_ELEMENT = re.compile(r"<([\w:.\-]{1,64})(?:\s[^<>]{0,256})?>\s{0,64}+(?=[^<\s]|<!\[CDATA\[)")
_CONTENT = re.compile(r"<!\[CDATA\[(?:[^\]]++|\](?!\]>))*+|[^<]++")
_FIELD_QUOTE = r"\\{0,7}[\"']"
# {"name": "password", "value": "x"}, <input name="password" value="x">, Header(name='password', value='x')
_NAME_AND_VALUE = re.compile(
    rf"\b(?:name|key|header)(?:{_FIELD_QUOTE})?\s{{0,8}}[:=]\s{{0,8}}(?:{_FIELD_QUOTE})?([\w.\-]{{1,64}})"
    rf"(?:{_FIELD_QUOTE})?[\s,]{{1,32}}(?:{_FIELD_QUOTE})?val(?:ue)?(?:{_FIELD_QUOTE})?\s{{0,8}}[:=]\s{{0,8}}",
    re.IGNORECASE,
)
# A field of multipart/form-data, up to the empty line before its value.
_FORM_FIELD = re.compile(
    r"\bname=\"([^\"\r\n]{1,64})\"[^\r\n]{0,256}(?:\r?\n[^\r\n]{1,256}){0,3}?\r?\n\r?\n", re.IGNORECASE
)
_FORM_VALUE = re.compile(r"(?!--)(?:[^\r\n]++|\r?\n(?!--))++")


class TextMasker:
    """Masks secrets in texts, for one set of names."""

    def __init__(self, names: SecretNames, ambiguous: frozenset[str] = AMBIGUOUS) -> None:
        self._is_secret = names.matches
        self._is_clear = SecretNames(names.words - ambiguous).matches
        self._clean: set[str] = set()  # short texts that hold no secret
        stems = sorted({_stem(name) for name in names.words})
        self._stems = tuple(
            stem for stem in stems if not any(other in stem for other in stems if other != stem)
        )
        # A secret name, the rest of its word, what closes it (quotes, brackets), and "=" or ":" or
        # the "," of a pair. All repetitions are bounded.
        self._heads = re.compile(
            rf"(?P<name>(?:{_alternatives(names.words)})[\w\-]{{0,14}})"
            r"(?:(?:\[|%5b)\w{0,14}(?:\]|%5d)){0,3}"
            r"(?P<close>[\\\"'\])]{0,16})\s{0,8}(?P<sign>[=:：]{1,2}>?|!=|%(?:25)?3d|(?P<pair>,))\s{0,8}"
        )

    def mask(self, text: str) -> str:
        """Return the text with its secrets masked."""
        # The texts of log messages, and values such as names of methods and states, come again and again.
        if text in self._clean:
            return text

        masked = self._masked(text)

        if len(text) <= _SHORT and masked == text:
            if len(self._clean) >= _MOST_CLEAN:
                self._clean.clear()

            self._clean.add(text)

        return masked

    def _masked(self, text: str) -> str:
        if "://" in text:
            text = _mask_urls(text)

        if "PRIVATE KEY" in text:
            text = _KEY.sub(rf"\1{MASK}\3", text)

        lower = text.lower()

        for stem in self._stems:
            if stem in lower:
                text = self._mask_named(text, lower)
                text = self._mask_formats(text, lower)
                break

        if "password" in lower or "identified" in lower:
            text = _mask_after(text, _STATEMENT, lambda _: True, _quoted_at)

        if "bearer" in lower:
            text = _BEARER.sub(rf"\1{MASK}", text)

        if "basic" in lower:
            text = _BASIC.sub(_without_basic, text)

        if "eyJ" in text:
            text = _JWT.sub(MASK, text)

        return text

    def _mask_named(self, text: str, lower: str) -> str:
        """Mask what stands behind the names of secrets."""
        if len(lower) != len(text):  # a few letters have a longer lower case: then only ASCII matters
            lower = text.translate(_ASCII_LOWER)

        parts: list[str] = []
        done = at = 0

        while head := self._heads.search(lower, at):
            at = head.end()
            start, end = head.span("name")
            before = text[max(done, start - _NAME) : start][::-1]
            matched = _NAME_CHARACTERS.match(before)
            before = matched[0][::-1] if matched else ""

            name = before + text[start:end]
            is_prose = head["sign"][0] in ":：" and not head["close"]

            if not self._is_secret(name) or (is_prose and not self._is_clear(name)):
                # What follows may be a name itself: level=token: x
                at = head.start() + 1
                continue

            span = (
                _pair_value(text, head, before)
                if head["pair"]
                else _value(text, at, text[start:end], head["sign"])
            )

            if span is not None:
                parts += (text[done : span[0]], MASK)
                done = at = span[1]

        return "".join((*parts, text[done:])) if parts else text

    def _mask_formats(self, text: str, lower: str) -> str:
        """Mask what has another form than that of a name, a sign and a value: options, forms, XML."""
        if "--" in text or " -" in text:
            text = _mask_after(text, _OPTION, self._is_clear, _value_at)

        if "val" in lower:
            text = _mask_after(text, _NAME_AND_VALUE, self._is_secret, _value_at)

        if "form-data" in lower:
            text = _mask_after(text, _FORM_FIELD, self._is_secret, _span_at(_FORM_VALUE))

        if "</" in text:
            text = _mask_after(text, _ELEMENT, self._is_secret, _span_at(_CONTENT))

        return text


def _mask_after(
    text: str,
    head: re.Pattern[str],
    is_secret: Callable[[str], bool],
    value_at: Callable[[str, int], tuple[int, int] | None],
) -> str:
    """Mask the value behind each head whose first group is the name of a secret."""
    parts: list[str] = []
    done = 0

    for match in head.finditer(text):
        if (
            match.start() >= done
            and is_secret(match[1])
            and (span := value_at(text, match.end())) is not None
        ):
            parts += (text[done : span[0]], MASK)
            done = span[1]

    return "".join((*parts, text[done:])) if parts else text


def _quoted_at(text: str, at: int) -> tuple[int, int] | None:
    quote = _QUOTE.match(text, at)
    return _quoted(text, quote) if quote is not None else None


def _value_at(text: str, at: int) -> tuple[int, int] | None:
    return _value(text, at, "", "=")


def _span_at(value: re.Pattern[str]) -> Callable[[str, int], tuple[int, int] | None]:
    def find(text: str, at: int) -> tuple[int, int] | None:
        match = value.match(text, at)
        return match.span() if match is not None else None

    return find


_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _stem(name: str) -> str:
    """Return a part of a name that every notation of it has, and few other words."""
    last = name.rpartition("_")[2]
    return last if len(last) > 2 else max(name.split("_"), key=len)  # "id" is everywhere


def _alternatives(names: Iterable[str]) -> str:
    """Return an expression for names, by first letters: most positions of a text are ruled out by them."""
    by_letter: dict[str, list[str]] = {}

    for name in sorted(names, key=lambda name: (-len(name), name)):
        by_letter.setdefault(name[0], []).append(re.escape(name[1:]).replace("_", "[_\\-. ]?"))

    return "|".join(f"{re.escape(letter)}(?:{'|'.join(ends)})" for letter, ends in sorted(by_letter.items()))


def _without_basic(match: re.Match[str]) -> str:
    """Mask the credentials of Basic; the word alone is followed by many others."""
    text = match[2].rstrip("=")

    try:
        is_login = b":" in base64.b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        is_login = False

    return f"{match[1]}{MASK}" if is_login else match[0]


def _value(text: str, at: int, name: str, sign: str) -> tuple[int, int] | None:
    """Return where the value that begins at a place stands, without its quotes; None when there is none."""
    if sign == ":":
        if (block := _BLOCK.match(text, at)) is not None:
            return block.span()

        # password: str = "x" in the source that a traceback shows
        if (annotation := _ANNOTATION.match(text, at)) is not None:
            at = annotation.end()

    quote = _QUOTE.match(text, at)

    if quote is not None:
        return _quoted(text, quote)

    if at < len(text) and text[at] in "[{(":
        return _bracketed(text, at)

    lower = name.lower()

    if lower.startswith("authorization"):
        match = _LISTING.match(text, at) or _SCHEMED.match(text, at)
    elif lower.startswith("cookie"):
        match = _COOKIES.match(text, at)
    else:
        match = _BARE.match(text, at)

    if match is None:
        return None

    value = match[0].rstrip(_CLOSERS)

    # The inside of a private key is masked by now.
    if value.lower() in _NOTHING or value.startswith("-----BEGIN"):
        return None

    return at, at + len(value)


def _quoted(text: str, quote: re.Match[str]) -> tuple[int, int] | None:
    """Return where the inside of a quoted value stands; without a closing quote it ends with the text."""
    start = quote.end()
    escapes, mark = quote[1], quote[2]

    if not escapes:
        body = _QUOTED[mark].match(text, start)
        end = body.end() if body else len(text)
    else:
        # Inside an escaped text the value ends at the same number of backslashes and the same quote;
        # with more backslashes a quote belongs to the value.
        closing = escapes + mark
        end = text.find(closing, start)

        while end > start and text[end - 1] == "\\":
            end = text.find(closing, end + 1)

        end = len(text) if end < 0 else end

    return (start, end) if end > start else None


def _bracketed(text: str, at: int) -> tuple[int, int]:
    """Return where a list, tuple or mapping stands; without a closing bracket it ends with the text."""
    depth, end = 0, at

    while end < len(text):
        part = _BRACKETS.match(text, end)
        assert part is not None
        end = part.end()

        if part[0] in "[{(":
            depth += 1
        elif part[0] in ")}]":
            depth -= 1

            if not depth:
                break

    return at, end


def _pair_value(text: str, head: re.Match[str], before: str) -> tuple[int, int] | None:
    """Return the value of a pair, as in ``('password', 'x')`` or ``[b"authorization", b"x"]``."""
    start = head.start("name") - len(before)
    opening = text[max(0, start - 5) : start].rstrip("\\\"'bB")
    quote = _QUOTE.match(text, head.end())

    if not head["close"].endswith(('"', "'")):
        return None

    if before.startswith("-"):  # ["tool", "--password", "x"]
        span = _quoted(text, quote) if quote is not None else None
        return span if span is not None and text[span[0]] != "-" else None

    if not opening.endswith(("(", "[")):
        return None

    if quote is not None:
        span, escapes = _quoted(text, quote), len(quote[1])
    else:
        several = _SHORT_LIST.match(text, head.end())
        span, escapes = several.span() if several is not None else None, 0

    if span is None:
        return None

    rest = text[span[1] : span[1] + escapes + 3].lstrip("\\\"' ")
    return span if rest.startswith((")", "]")) else None


def _mask_urls(text: str) -> str:
    """Mask the passwords in the URLs of a text."""
    parts: list[str] = []
    done = 0
    at = text.find("://")
    sign = -1

    while at >= 0:
        start = at + 3

        if sign < start:
            sign = text.find("@", start)

            if sign < 0:
                break

        if sign - start <= _LONGEST_USERINFO:
            found = _URL.match(text, start, start + _LONGEST_USERINFO)
            rest = found[0] if found else ""

            if "@" not in rest and _OPEN_PASSWORD.match(rest):
                wide = _WIDE_URL.match(text, start, start + _LONGEST_USERINFO)
                rest = wide[0] if wide else rest

            masked = mask_userinfo(text[max(done, at - _SCHEME) : at], rest)

            if masked is not rest:
                parts += (text[done:start], masked)
                done = start = start + len(rest)

        at = text.find("://", start)

    return "".join((*parts, text[done:])) if parts else text


def mask_userinfo(scheme: str, rest: str) -> str:
    """Return what follows the ``://`` of a URL with its password masked, or the same object."""
    at = _end_of_userinfo(rest)

    if at <= 0:
        return rest

    user, colon, password = rest[:at].partition(":")

    if colon:
        return f"{user}:{MASK}{rest[at:]}" if password and password != MASK else rest

    # A user alone is a token in the URLs of web servers (https://ghp_x@github.com), and a harmless
    # name in those of databases (mysql://root@localhost).
    is_web = scheme.lower().endswith(("http", "https", "ws", "wss"))
    return f"{MASK}{rest[at:]}" if is_web and user != MASK else rest


def _end_of_userinfo(rest: str) -> int:
    """
    Return where the ``@`` before the host stands, or -1.

    A password that should have been percent-encoded may hold ``/``, ``@``, ``?`` or ``#``. When in
    doubt too much is masked rather than too little.
    """
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    host, colon, port = authority.partition(":")

    if "@" not in authority and (
        not colon or (host and (port.isdigit() or not port)) or host.startswith("[")
    ):
        return -1  # a host; an "@" further on belongs to the path or the query

    if not colon:
        return authority.rfind("@")

    at = re.split("[?#]", rest, maxsplit=1)[0].rfind("@")
    return at if at >= 0 else rest.rfind("@")
