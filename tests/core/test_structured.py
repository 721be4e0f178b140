"""Structured Fields (RFC 9651): what parses to what, what must fail, what is written."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.structured import (
    Date,
    DisplayString,
    InnerList,
    Item,
    StructuredFieldError,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
)
from gateway.core.structured_writer import serialize_bare_item, serialize_list, serialize_member


def true(**parameters):
    return Item(value=True, parameters=parameters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("42", 42, id="3.3.1-integer"),
        pytest.param("-0", 0, id="3.3.1-minus-zero"),
        pytest.param("0042", 42, id="3.3.1-leading-zeros"),
        pytest.param("999999999999999", 999999999999999, id="3.3.1-largest"),
        pytest.param("-999999999999999", -999999999999999, id="3.3.1-smallest"),
        pytest.param("1.5", Decimal("1.5"), id="3.3.2-decimal"),
        pytest.param("-123456789012.125", Decimal("-123456789012.125"), id="3.3.2-longest"),
        pytest.param('"a \\"b\\" \\\\"', 'a "b" \\', id="3.3.3-escapes"),
        pytest.param('""', "", id="3.3.3-empty"),
        pytest.param("foo/bar:baz*", Token("foo/bar:baz*"), id="3.3.4-token"),
        pytest.param("*", Token("*"), id="3.3.4-star"),
        pytest.param(":aGVsbG8=:", b"hello", id="3.3.5-bytes"),
        pytest.param(":aGVsbG8:", b"hello", id="4.2.7-padding-missing"),
        pytest.param("::", b"", id="3.3.5-empty"),
        pytest.param("?1", True, id="3.3.6-true"),
        pytest.param("?0", False, id="3.3.6-false"),
        pytest.param("@1659578233", Date(1659578233), id="3.3.7-date"),
        pytest.param("@-62135596800", Date(-62135596800), id="3.3.7-early-date"),
        pytest.param('%"f%c3%bc 100%25 %22"', DisplayString('fü 100% "'), id="3.3.8-display-string"),
        pytest.param("  1  ", 1, id="4.2-surrounding-spaces"),
    ],
)
def test_bare_items(text, expected):
    item = parse_item(text)
    assert item == Item(expected)
    assert type(item.value) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="4.2.3-empty"),
        pytest.param("1000000000000000", id="3.3.1-16-digits"),
        pytest.param("--1", id="3.3.1-two-signs"),
        pytest.param("-", id="3.3.1-only-a-sign"),
        pytest.param("+1", id="3.3.1-plus"),
        pytest.param("- 1", id="3.3.1-space-behind-the-sign"),
        pytest.param("1.", id="3.3.2-no-fraction"),
        pytest.param(".5", id="3.3.2-no-integer"),
        pytest.param("1.1234", id="3.3.2-four-digits"),
        pytest.param("1234567890123.1", id="3.3.2-13-digits"),
        pytest.param("1.5.4", id="3.3.2-two-points"),
        pytest.param("1e3", id="3.3.2-exponent"),
        pytest.param('"a', id="3.3.3-unclosed"),
        pytest.param('"a\\n"', id="3.3.3-unknown-escape"),
        pytest.param('"a\\"', id="3.3.3-escaped-end"),
        pytest.param('"\u00fc"', id="3.3.3-non-ascii"),
        pytest.param('"a\tb"', id="3.3.3-tab"),
        pytest.param("'a'", id="3.3.4-single-quotes"),
        pytest.param("a b", id="4.2-trailing-text"),
        pytest.param("a,b", id="4.2-a-list"),
        pytest.param("&&&", id="4.2.3.1-no-type"),
        pytest.param(":aGVsbG8", id="3.3.5-unclosed"),
        pytest.param(":aGV=sbG8:", id="3.3.5-misplaced-padding"),
        pytest.param(":a:", id="3.3.5-one-digit"),
        pytest.param(":_-Ah:", id="3.3.5-url-alphabet"),
        pytest.param("?2", id="3.3.6-neither"),
        pytest.param("?", id="3.3.6-nothing"),
        pytest.param("@1.5", id="3.3.7-fraction"),
        pytest.param("@", id="3.3.7-nothing"),
        pytest.param('%"%C3%BC"', id="3.3.8-upper-case-hex"),
        pytest.param('%"%c3"', id="3.3.8-not-utf-8"),
        pytest.param('%"%c"', id="3.3.8-half-an-octet"),
        pytest.param("%a", id="3.3.8-no-quote"),
        pytest.param("\t1", id="4.2-leading-tab"),
        pytest.param("1;A=1", id="3.1.2-upper-case-key"),
        pytest.param("1;", id="3.1.2-no-key"),
        pytest.param("1 ;a", id="3.1.2-space-before-semicolon"),
        pytest.param("1;a=", id="3.1.2-no-value"),
        pytest.param("1;a =1", id="3.1.2-space-before-equals"),
        pytest.param("1;a=(1)", id="3.1.2-list-as-a-value"),
        pytest.param("\u0661", id="3.3.1-arabic-digit"),
    ],
)
def test_what_is_no_item(text):
    with pytest.raises(StructuredFieldError):
        parse_item(text)


def test_parameters_3_1_2():
    item = parse_item('tok; a;  b="x";c=?0;a=2')
    assert item.value == Token("tok")
    assert list(item.parameters.items()) == [("b", "x"), ("c", False), ("a", 2)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="4.2.1-no-line"),
        pytest.param([""], [], id="4.2.1-empty"),
        pytest.param(["1, 2"], [Item(1), Item(2)], id="3.1-two"),
        pytest.param(["1 \t,\t 2"], [Item(1), Item(2)], id="4.2.1-ows"),
        pytest.param(["1", "2,3"], [Item(1), Item(2), Item(3)], id="4.2-lines-combine"),
        pytest.param(['"a,b"'], [Item("a,b")], id="3.3.3-comma-inside"),
        pytest.param(
            ["( 1  a );q=1, ()"],
            [InnerList((Item(1), Item(Token("a"))), {"q": 1}), InnerList(())],
            id="3.1.1-inner-lists",
        ),
        pytest.param(["(a;x);y"], [InnerList((Item(Token("a"), {"x": True}),), {"y": True})], id="3.1.1-parameters"),
        pytest.param(
            ["ExampleCache; hit; ttl=376"],
            [Item(Token("ExampleCache"), {"hit": True, "ttl": 376})],
            id="9211-2-cache-status",
        ),
    ],
)
def test_lists(lines, expected):
    assert parse_list(lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["1,"], id="4.2.1-trailing-comma"),
        pytest.param([",1"], id="4.2.1-leading-comma"),
        pytest.param(["1,,2"], id="4.2.1-empty-member"),
        pytest.param(["1 2"], id="4.2.1-no-comma"),
        pytest.param(["(1"], id="4.2.1.2-unclosed"),
        pytest.param(["(1,2)"], id="4.2.1.2-comma-inside"),
        pytest.param(["(1\t2)"], id="4.2.1.2-tab-inside"),
        pytest.param(['("a""b")'], id="4.2.1.2-no-space"),
        pytest.param(["((1))"], id="4.2.1.2-nested"),
        pytest.param(["(1)x"], id="4.2.1-text-behind"),
        pytest.param(["1;a,"], id="4.2.1-comma-behind-a-parameter"),
        pytest.param(["1,\t"], id="4.2.1-comma-and-space"),
    ],
)
def test_what_is_no_list(lines):
    with pytest.raises(StructuredFieldError):
        parse_list(lines)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([""], {}, id="4.2.2-empty"),
        pytest.param(
            ["a=1, b, c;x=1", "d=(1 2)"],
            {"a": Item(1), "b": true(), "c": true(x=1), "d": InnerList((Item(1), Item(2)))},
            id="3.2-members",
        ),
        pytest.param(["a=1,b=2,a=3"], {"b": Item(2), "a": Item(3)}, id="3.2-last-value-stays"),
        pytest.param(["a=?0"], {"a": Item(value=False)}, id="3.2-false"),
        pytest.param(["*a_b-c.d=1"], {"*a_b-c.d": Item(1)}, id="3.1.2-key-characters"),
    ],
)
def test_dictionaries(lines, expected):
    found = parse_dictionary(lines)
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["A=1"], id="3.1.2-upper-case-key"),
        pytest.param(["1=1"], id="3.1.2-digit-first"),
        pytest.param(["a=1,"], id="4.2.2-trailing-comma"),
        pytest.param(["a =1"], id="4.2.2-space-before-equals"),
        pytest.param(["a= 1"], id="4.2.2-space-behind-equals"),
        pytest.param(["a=1 b=2"], id="4.2.2-no-comma"),
        pytest.param(["a=,b"], id="4.2.2-no-value"),
        pytest.param(["=1"], id="4.2.2-no-key"),
    ],
)
def test_what_is_no_dictionary(lines):
    with pytest.raises(StructuredFieldError):
        parse_dictionary(lines)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(True, "?1", id="4.1.9-true"),
        pytest.param(-5, "-5", id="4.1.4-integer"),
        pytest.param(Decimal("1.0"), "1.0", id="4.1.5-whole"),
        pytest.param(Decimal("1.0005"), "1.0", id="4.1.5-half-to-even-down"),
        pytest.param(Decimal("1.0015"), "1.002", id="4.1.5-half-to-even-up"),
        pytest.param(Decimal("-0.5"), "-0.5", id="4.1.5-negative"),
        pytest.param('a"b\\', '"a\\"b\\\\"', id="4.1.6-escapes"),
        pytest.param(Token("a/b"), "a/b", id="4.1.7-token"),
        pytest.param(b"hello", ":aGVsbG8=:", id="4.1.8-padded"),
        pytest.param(Date(-1), "@-1", id="4.1.10-date"),
        pytest.param(DisplayString('ü"%'), '%"%c3%bc%22%25"', id="4.1.11-display-string"),
    ],
)
def test_writing(value, expected):
    assert serialize_bare_item(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(10**15, id="4.1.4-too-large"),
        pytest.param(Decimal("1e12"), id="4.1.5-too-large"),
        pytest.param(Decimal("999999999999.9999"), id="4.1.5-rounds-to-too-large"),
        pytest.param(Decimal("NaN"), id="4.1.5-nan"),
        pytest.param("ü", id="4.1.6-non-ascii"),
        pytest.param("a\nb", id="4.1.6-newline"),
        pytest.param(Token("1a"), id="4.1.7-digit-first"),
        pytest.param(Token(""), id="4.1.7-empty"),
        pytest.param(Date(10**15), id="4.1.10-too-large"),
        pytest.param(DisplayString("\ud800"), id="4.1.11-lone-surrogate"),
    ],
)
def test_what_cannot_be_written(value):
    with pytest.raises(StructuredFieldError):
        serialize_bare_item(value)


def test_a_parameter_needs_a_key():
    with pytest.raises(StructuredFieldError):
        serialize_member(Item(1, {"Not A Key": 1}))


KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,5}", fullmatch=True)
BARE = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.decimals(-(10**11), 10**11, places=3),
    st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
    st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,8}", fullmatch=True).map(Token),
    st.binary(max_size=12),
    st.integers(-(10**14), 10**14).map(Date),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])).map(DisplayString),
)
PARAMETERS = st.dictionaries(KEYS, BARE, max_size=3)
ITEMS = st.builds(Item, BARE, PARAMETERS)
MEMBERS = st.one_of(ITEMS, st.builds(InnerList, st.lists(ITEMS, max_size=3).map(tuple), PARAMETERS))


@given(st.lists(MEMBERS, max_size=4))
@settings(max_examples=150)
def test_what_is_written_reads_back(members):
    assert parse_list([serialize_list(members)]) == members


@given(st.text(alphabet='a1b.;=,() \t"\\:?@%*-&ü', max_size=30))
@settings(max_examples=300)
def test_any_text_parses_or_fails_by_the_named_error(text):
    for parse in (parse_item, lambda line: parse_list([line]), lambda line: parse_dictionary([line])):
        try:
            parse(text)
        except StructuredFieldError:
            continue


@given(st.text(alphabet='ab1.;=,() "?', max_size=24))
@settings(max_examples=300)
def test_writing_is_canonical(text):
    """What parsed once and was written is written the same ever after."""
    try:
        once = serialize_list(parse_list([text]))
    except StructuredFieldError:
        return
    assert serialize_list(parse_list([once])) == once
