"""YAML and environment: values, lines and what a text can be refused for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.errors import key_path
from gateway.settings.source import read


def _data(text: str, **environ: str):
    source = read(text.encode(), environ)
    assert source.problems == []
    return source.data


def _problems(text: str | bytes, **environ: str) -> list[str]:
    source = read(text.encode() if isinstance(text, str) else text, environ)
    return [f"{line}: {key_path(problem.loc)}: {problem}" for line, problem in source.problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("off", "off"),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("1_000", "1_000"),
        ("-5", -5),
        ("1.5", 1.5),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_plain_scalars_follow_yaml_1_2(written, value):
    (read_value,) = _data(f"a: {written}").values()
    assert read_value == value
    assert type(read_value) is type(value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${NAME}", "world"),
        ("a-${NAME}-b", "a-world-b"),
        ("${NAME}${NAME}", "worldworld"),
        ("${MISSING:-else}", "else"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-else}", "else"),
        ("${EMPTY}", ""),
        ("${NAME:-else}", "world"),
        ("${MISSING:-https://uaa.example.org}/x", "https://uaa.example.org/x"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$${NAME}"),
        ("$NAME costs 5$", "$NAME costs 5$"),
        ("'${NAME}'", "world"),
        ('"${NAME}"', "world"),
        ("|\n  x ${NAME}", "x world"),
        ("${NUMBER}", "8080"),
        ("${NULL}", "null"),
    ],
)
def test_environment(written, value):
    given_environment = {"NAME": "world", "EMPTY": "", "NUMBER": "8080", "NULL": "null"}
    assert _data(f"a: {written}", **given_environment) == {"a": value}


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_a_variable_is_the_text_of_one_value_whatever_it_holds(value):
    assert _data("a: ${X}\nb: 1\nc: '<${X}>'", X=value) == {"a": value, "b": 1, "c": f"<{value}>"}


def test_keys_are_not_substituted():
    assert _data("${X}: 1", X="a") == {"${X}": 1}


def test_lines_and_locations():
    source = read(b"a:\n  b:\n    - x\n    - c: 1\n      d: 2\n\ne: |\n  t\nf: {g: 1,\n  h: 2}\n", {})
    named = {key_path(loc): line for loc, line in source.lines.items()}
    assert named == {
        "": 1,
        "a": 1,
        "a.b": 2,
        "a.b[0]": 3,
        "a.b[1]": 4,
        "a.b[1].c": 4,
        "a.b[1].d": 5,
        "e": 7,
        "f": 9,
        "f.g": 9,
        "f.h": 10,
    }
    assert source.line(("a", "b", 1, "missing", "deeper")) == 4


def test_anchors_and_merge_keys():
    text = "a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\nd: {<<: [{x: 7}, *a]}\n"
    assert _data(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": {"x": 7, "y": 2}}
    source = read(text.encode(), {})
    assert (source.lines["c", "x"], source.lines["c", "y"]) == (1, 5)


def test_byte_order_mark_and_comments():
    assert _data("\ufeff# only\na: 1 # one\n") == {"a": 1}


_CHECK = "check indentation, colons, quotes and brackets"
_BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            ["4: b.c: expected each key once (also on line 3), found it again"],
            id="twice",
        ),
        pytest.param("a:\n\tb: 1", ["2: : expected valid YAML, found a tab; indent with spaces"], id="tab"),
        pytest.param(
            "a: [1\nb: 2",
            [f"2: : expected valid YAML, found something that is not; {_CHECK} up to here"],
            id="unclosed",
        ),
        pytest.param(
            "a: 1\nb: c: d",
            [f"2: : expected valid YAML, found a colon where no key can be; {_CHECK}"],
            id="colons",
        ),
        pytest.param(
            "a: {b: ${X}}",
            ['1: : expected valid YAML, found a brace inside brackets; there "${NAME}" needs quotes'],
            id="brace",
        ),
        pytest.param(
            "a: @b",
            ["1: : expected valid YAML, found a value that begins with @, ` or %; put quotes around it"],
            id="at",
        ),
        pytest.param(
            "a: 1\nb: *secret",
            ["2: : expected valid YAML, found an alias without its anchor; text that begins with * needs quotes"],
            id="alias",
        ),
        pytest.param(
            "a: 1\n---\nb: 2",
            ["2: : expected valid YAML, found a second document; keep one document in the file"],
            id="two",
        ),
        pytest.param(b"a: 1\nb: \xff\n", ["2: : expected UTF-8, found other bytes"], id="bytes"),
        pytest.param("a: 1\nb: \0", ["2: : expected printable characters, found a control character"], id="control"),
        pytest.param("[" * 3000, ["1: : expected a plain nesting of keys, found hundreds of levels"], id="deep"),
        pytest.param(
            "a: !!python/object/apply:os.system [x]",
            ["1: a: expected a plain value, found a YAML tag"],
            id="python-tag",
        ),
        pytest.param("a: !env X", ["1: a: expected a plain value, found a YAML tag"], id="own-tag"),
        pytest.param(
            "a: !!int x", ["1: a: expected a plain value, found a YAML tag that does not fit it"], id="wrong-tag"
        ),
        pytest.param("a: {1: 2}", ["1: a: expected keys that are words, found another kind of key"], id="number-key"),
        pytest.param("? [a]\n: 1", ["1: : expected keys that are words, found another kind of key"], id="list-key"),
        pytest.param(
            "a: &a [*a]",
            ["1: a[0]: expected aliases that come to an end, found one that expands without end"],
            id="circle",
        ),
        pytest.param(
            "a: &a\n  <<: *a",
            ["1: a: expected aliases that come to an end, found one that expands without end"],
            id="merge",
        ),
        pytest.param("a: {<<: 5}", ["1: a: expected mappings to merge with <<, found something else"], id="no-merge"),
        pytest.param(
            "a: 1\nb: ${GONE}",
            ["2: b: expected a value for ${GONE} in the environment, found none; give it, or a default with :-"],
            id="unset",
        ),
        pytest.param(
            "a: hunter2${",
            ["1: a: expected ${NAME} or ${NAME:-default}, found another ${; $${ means ${ itself"],
            id="open-reference",
        ),
        pytest.param(
            "a: ${A:-${X}}",
            ["1: a: expected ${NAME} or ${NAME:-default}, found another ${; $${ means ${ itself"],
            id="nested-reference",
        ),
    ],
)
def test_faulty_texts(text, expected):
    assert _problems(text, X="x") == expected


def test_aliases_of_aliases_come_to_an_end():
    (problem,) = _problems(_BOMB)
    assert "expected aliases that come to an end" in problem


@given(st.binary(max_size=60))
def test_no_bytes_raise(raw):
    read(raw, {})


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`\\\t\n #,?<$~", max_size=40))
def test_no_text_raises(text):
    read(text.encode(), {"a": "b"})
