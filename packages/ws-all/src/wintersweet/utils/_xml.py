"""XML to and from plain dictionaries. Published by `wintersweet.utils.base`.

Attributes are keys with ``@``, text beside attributes or elements is ``#text``, repeated elements
are lists, and an element without content is None. What one function writes the other reads back.

Documents may come from anyone. A document type declaration is refused, and with it every entity but
the five of XML itself, so that nothing is expanded, fetched or read from disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn
from xml.parsers import expat

from ws_core.errors import InvalidValueError

XmlValue = str | None | dict[str, "XmlValue"] | list["XmlValue"]
"""What `xml_decode` returns."""

_MAX_DEPTH = 200
_NAME = re.compile(r"[^\W\d][\w.\-]*(?::[^\W\d][\w.\-]*)?")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE_ESCAPES = _ESCAPES | str.maketrans({'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})


def xml_encode(dict_val: Mapping[str, object], root_tag: str = "root") -> str:
    """
    Write a dictionary as XML.

    Args:
        dict_val: Values by element name: strings, numbers, None, nested mappings, and lists or tuples
            for repeated elements. ``"@name"`` is an attribute, ``"#text"`` an element's own text.
            Booleans become ``true`` and ``false``; other objects are written by ``str()``.
        root_tag: Name of the outermost element.

    Returns:
        The document without a declaration.

    Raises:
        InvalidValueError: A name is not an XML name, a text holds characters that XML cannot, or the
            nesting is deeper than 200.

    Example:
        >>> xml_encode({"code": 0, "item": [{"@id": 1, "#text": "a & b"}, "c"]}, "reply")
        '<reply><code>0</code><item id="1">a &amp; b</item><item>c</item></reply>'
    """
    parts: list[str] = []
    _write(parts, root_tag, dict_val, 1)
    return "".join(parts)


def xml_decode(val: str | bytes, *, strip: bool = True) -> dict[str, XmlValue]:
    """
    Read XML into a dictionary; safe with documents from anyone.

    Args:
        val: The document; bytes in the encoding that they declare, text whatever it declares.
        strip: Remove white space around texts, and texts of white space only.

    Returns:
        A dictionary with one key, the name of the outermost element.

    Raises:
        InvalidValueError: The document is not well-formed, has a document type declaration, or is
            nested deeper than 200.

    Example:
        >>> xml_decode('<reply><code>0</code><item id="1">a &amp; b</item><item>c</item></reply>')
        {'reply': {'code': '0', 'item': [{'@id': '1', '#text': 'a & b'}, 'c']}}
    """
    return _Reader(strip=strip).read(val)


def _write(parts: list[str], name: object, value: object, depth: int) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidValueError(f"{name!r} is not a name of an XML element", name=name)

    if depth > _MAX_DEPTH:
        raise InvalidValueError(f"XML is nested deeper than {_MAX_DEPTH} elements", depth=depth)

    content: Mapping[object, object] = value if isinstance(value, Mapping) else {"#text": value}
    parts.append(f"<{name}")

    for key, item in content.items():
        if str(key).startswith("@"):
            _write_attribute(parts, str(key), item)

    parts.append(">")

    for key, item in content.items():
        if key == "#text":
            parts.append(_text(item).translate(_ESCAPES))
        elif not str(key).startswith("@"):
            for one in item if isinstance(item, (list, tuple)) else (item,):
                _write(parts, key, one, depth + 1)

    parts.append(f"</{name}>")


def _write_attribute(parts: list[str], key: str, value: object) -> None:
    if not _NAME.fullmatch(key, 1):
        raise InvalidValueError(f"{key!r} is not a name of an XML attribute", name=key)

    parts.append(f' {key[1:]}="{_text(value).translate(_ATTRIBUTE_ESCAPES)}"')


def _text(value: object) -> str:
    if value is None:
        return ""

    if isinstance(value, bool):
        return "true" if value else "false"

    if isinstance(value, (list, tuple, Mapping)):
        raise InvalidValueError(
            f"a {type(value).__name__} is not text: XML has no place for it here", value=value
        )

    text = str(value)

    if wrong := _NOT_XML.search(text):
        raise InvalidValueError(f"XML cannot hold the character {wrong.group()!r}", character=wrong.group())

    return text


class _Reader:
    """Builds dictionaries from what the parser reports."""

    def __init__(self, *, strip: bool) -> None:
        self._strip = strip
        self._result: dict[str, XmlValue] = {}
        self._open: list[tuple[str, dict[str, XmlValue], list[str]]] = []

    def read(self, document: str | bytes) -> dict[str, XmlValue]:
        parser = expat.ParserCreate("utf-8" if isinstance(document, str) else None)
        parser.buffer_text = True
        parser.ordered_attributes = False
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        # No declaration, no entities: this one handler is what makes foreign documents harmless.
        parser.StartDoctypeDeclHandler = _refuse_doctype

        try:
            parser.Parse(document, True)
        except expat.ExpatError as error:
            raise InvalidValueError(
                f"not well-formed XML: {error}", line=error.lineno, column=error.offset
            ) from error
        except (UnicodeError, LookupError, ValueError) as error:
            if isinstance(error, InvalidValueError):
                raise

            raise InvalidValueError(f"not well-formed XML: {error}") from error

        return self._result

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise InvalidValueError(f"XML is nested deeper than {_MAX_DEPTH} elements", depth=_MAX_DEPTH)

        self._open.append((name, {f"@{key}": value for key, value in attributes.items()}, []))

    def _characters(self, data: str) -> None:
        self._open[-1][2].append(data)

    def _end(self, name: str) -> None:
        _, content, texts = self._open.pop()
        text = "".join(texts)

        if self._strip or (content and not text.strip()):
            text = text.strip()

        value: XmlValue = text or None

        if content:
            value = {**content, "#text": text} if text else content

        _add(self._open[-1][1] if self._open else self._result, name, value)


def _add(parent: dict[str, XmlValue], name: str, value: XmlValue) -> None:
    if name not in parent:
        parent[name] = value
        return

    present = parent[name]

    if isinstance(present, list):
        present.append(value)
    else:
        parent[name] = [present, value]


def _refuse_doctype(name: str, system: str | None, public: str | None, internal: int) -> NoReturn:
    raise InvalidValueError(f"XML with a document type declaration ({name}) is refused", doctype=name)
