"""XML: what is written comes back, and documents from anyone do no harm."""

from __future__ import annotations

import string
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wintersweet.utils.base import XmlValue, xml_decode, xml_encode
from ws_core.errors import InvalidValueError

NAMES = st.text(string.ascii_letters, min_size=1, max_size=5)
# Every character that XML can hold; white space at the ends is removed in reading.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")).map(
    str.strip
)
FULL = TEXTS.filter(bool)


def elements(children: st.SearchStrategy[XmlValue]) -> st.SearchStrategy[XmlValue]:
    """Return elements with attributes, text and children as `xml_decode` shows them."""
    repeated = st.lists(children, min_size=2, max_size=3)
    content: st.SearchStrategy[dict[str, XmlValue]] = st.dictionaries(NAMES, children | repeated, max_size=3)
    attributes: st.SearchStrategy[dict[str, XmlValue]] = st.dictionaries(
        NAMES.map("@{}".format), TEXTS, max_size=2
    )
    own: st.SearchStrategy[dict[str, XmlValue]] = st.just({}) | st.builds(lambda text: {"#text": text}, FULL)
    parts = st.tuples(attributes, content, own).filter(lambda three: bool(three[0] or three[1]))
    return parts.map(lambda three: {**three[0], **three[1], **three[2]})


VALUES: st.SearchStrategy[XmlValue] = st.recursive(st.none() | FULL, elements, max_leaves=12)


class TestRoundTrip:
    """What one function writes the other reads."""

    @given(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
    def test_everything_returns(self, root: str, content: dict[str, XmlValue]) -> None:
        """Any tree of elements, attributes and texts comes back as it was."""
        assert xml_decode(xml_encode(content, root)) == {root: content}

    @given(
        st.text(
            st.characters(
                exclude_categories=("Cs", "Cc"),
                exclude_characters="\ufffe\uffff",
                include_characters="\t\n\r",
            )
        )
    )
    def test_white_space_returns(self, text: str) -> None:
        """Without stripping, white space in texts and attributes comes back as well."""
        document = xml_encode({"@a": text, "#text": text})
        expected: XmlValue = {"@a": text, "#text": text} if text.strip() else {"@a": text}

        assert xml_decode(document, strip=False) == {"root": expected}


class TestEncode:
    """`xml_encode`."""

    def test_values(self) -> None:
        """Numbers, booleans, None, lists and nested mappings are written in the plain way."""
        content = {
            "a": 1,
            "b": 1.5,
            "c": True,
            "d": False,
            "e": None,
            "f": Decimal("1.20"),
            "g": [1, {"h": "x"}],
            "i": (),
        }

        assert xml_encode(content) == (
            "<root><a>1</a><b>1.5</b><c>true</c><d>false</d><e></e><f>1.20</f><g>1</g><g><h>x</h></g></root>"
        )

    def test_no_injection(self) -> None:
        """Text and attributes cannot leave their place."""
        evil = '</a><b c="\'">&amp;]]>'

        assert xml_decode(xml_encode({"@x": evil, "a": evil})) == {"root": {"@x": evil, "a": evil}}

    @pytest.mark.parametrize("name", ["", "1a", "a b", "a>", "-a", "a/", "a:b:c", 'a="1"', "#other", 5, None])
    def test_bad_element_names(self, name: str) -> None:
        """A key that is not a name is refused."""
        with pytest.raises(InvalidValueError, match="is not a name of an XML element"):
            xml_encode({name: 1})

    @pytest.mark.parametrize("name", ["@", "@1", '@a="', "@a b"])
    def test_bad_attribute_names(self, name: str) -> None:
        """An attribute's key that is not a name is refused."""
        with pytest.raises(InvalidValueError, match="is not a name of an XML attribute"):
            xml_encode({name: 1})

    @pytest.mark.parametrize("name", ["xml", "ns:a", "é", "a.b-c_d", "汉字", "xml:lang"])
    def test_good_names(self, name: str) -> None:
        """Names with a prefix or in any script are fine, as elements and attributes."""
        assert xml_decode(xml_encode({f"@{name}": "1", name: "2"})) == {"root": {f"@{name}": "1", name: "2"}}

    @pytest.mark.parametrize("text", ["\0", "a\x1b", "\ud800", "\ufffe"])
    def test_characters_that_xml_cannot_hold(self, text: str) -> None:
        """Control characters and half characters are refused rather than written."""
        with pytest.raises(InvalidValueError, match="XML cannot hold the character"):
            xml_encode({"a": text})

    @pytest.mark.parametrize("content", [{"a": [[1]]}, {"@a": {"b": 1}}, {"#text": [1]}])
    def test_values_out_of_place(self, content: dict[str, object]) -> None:
        """Lists in lists, and structures where only text can be, are refused."""
        with pytest.raises(InvalidValueError, match="is not text"):
            xml_encode(content)

    def test_circles(self) -> None:
        """A structure that contains itself is refused."""
        circle: dict[str, object] = {}
        circle["a"] = circle

        with pytest.raises(InvalidValueError, match="deeper than 200"):
            xml_encode(circle)


class TestDecode:
    """`xml_decode`."""

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ("<a/>", None),
            ("<a> \n </a>", None),
            ("<a> x </a>", "x"),
            ("<a><![CDATA[<b>&]]></a>", "<b>&"),
            ("<a>1<!-- no --><?php no ?>2</a>", "12"),
            ("<a><b>1</b><c/><b>2</b><b>3</b></a>", {"b": ["1", "2", "3"], "c": None}),
            ("<a x='1'/>", {"@x": "1"}),
            ("<a x='1'>t</a>", {"@x": "1", "#text": "t"}),
            ("<a>t<b/>u</a>", {"b": None, "#text": "tu"}),
            ("<a xmlns='u' xmlns:n='v'><n:b/></a>", {"@xmlns": "u", "@xmlns:n": "v", "n:b": None}),
            ("<a>&#x6c49;&lt;&#13;z</a>", "汉<\rz"),
        ],
    )
    def test_shapes(self, document: str, expected: XmlValue) -> None:
        """Elements, attributes, texts, repetitions and CDATA have their fixed shapes."""
        assert xml_decode(document) == {"a": expected}

    def test_encodings(self) -> None:
        """Bytes are read in the encoding they declare; text is text whatever it declares."""
        assert xml_decode("<?xml version='1.0' encoding='gbk'?><a>汉</a>") == {"a": "汉"}
        assert xml_decode("<a>汉</a>".encode()) == {"a": "汉"}
        assert xml_decode("<a>汉</a>".encode("utf-16")) == {"a": "汉"}
        assert xml_decode("<?xml version='1.0' encoding='iso-8859-1'?><a>é</a>".encode("latin-1")) == {
            "a": "é"
        }

    @pytest.mark.parametrize(
        "document",
        [
            *(
                "",
                "   ",
                "text",
                "<a>",
                "<a></b>",
                "<a/><b/>",
                "<a x=1/>",
                "<a>&nbsp;</a>",
                "<a>\0</a>",
                "<a>\ud800</a>",
            ),
            *(b"<a>\xff</a>", b"<?xml version='1.0' encoding='no-such'?><a/>"),
        ],
    )
    def test_not_well_formed(self, document: str | bytes) -> None:
        """What is not XML is one kind of error, whichever way it is not."""
        with pytest.raises(InvalidValueError, match="not well-formed XML"):
            xml_decode(document)

    def test_place_of_the_error(self) -> None:
        """The error knows line and column."""
        with pytest.raises(InvalidValueError, match="line 2, column 2") as caught:
            xml_decode("<a>\n</b>")

        assert (caught.value.context["line"], caught.value.context["column"]) == (2, 2)


BILLION_LAUGHS = (
    "<!DOCTYPE lolz [<!ENTITY lol0 'lol'>"
    + "".join(f"<!ENTITY lol{n} '{f'&lol{n - 1};' * 10}'>" for n in range(1, 10))
    + "]><lolz>&lol9;</lolz>"
)
QUADRATIC = f"<!DOCTYPE a [<!ENTITY b '{'x' * 100_000}'>]><a>{'&b;' * 10_000}</a>"


class TestHostileDocuments:
    """Documents that are meant to do harm."""

    @pytest.mark.parametrize(
        "document",
        [
            BILLION_LAUGHS,
            QUADRATIC,
            "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
            "<!DOCTYPE a [<!ENTITY % b SYSTEM 'http://localhost/x.dtd'> %b;]><a/>",
            "<!DOCTYPE a SYSTEM 'http://localhost/x.dtd'><a/>",
            "<!DOCTYPE a PUBLIC 'x' 'http://localhost/x.dtd'><a/>",
            "<!DOCTYPE a><a/>",
            "<!DOCTYPE a [<!ATTLIST a b CDATA 'default'>]><a/>",
        ],
        ids=["laughs", "quadratic", "file", "parameter", "system", "public", "plain", "attlist"],
    )
    def test_declarations_are_refused(self, document: str) -> None:
        """A document type declaration is refused before anything in it counts."""
        begin = time.process_time()

        with pytest.raises(InvalidValueError, match="document type declaration"):
            xml_decode(document)

        assert time.process_time() - begin < 5  # expansion would take minutes and gigabytes

    def test_depth(self) -> None:
        """Nesting is limited, so that whoever walks the result is not driven into its depth."""
        assert xml_decode("<a>" * 200 + "</a>" * 200)

        with pytest.raises(InvalidValueError, match="deeper than 200"):
            xml_decode("<a>" * 201 + "</a>" * 201)
