"""Vary: which stored response a request selects (RFC 9111 §4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fields import vary_names
from gateway.core.model import Fields
from gateway.core.variants import selecting, selects


def chosen(vary, first, second, response=()):
    names = vary_names([vary])
    return selects(Fields(second), names, selecting(Fields(first), names), Fields(response))


@pytest.mark.parametrize(
    ("vary", "first", "second", "expected"),
    [
        pytest.param("", [], [("Foo", "1")], True, id="no-vary"),
        pytest.param("Foo", [("Foo", "1")], [("fOO", "1")], True, id="same"),
        pytest.param("Foo", [("Foo", "1")], [("Foo", "2")], False, id="different"),
        pytest.param("Foo", [("Foo", "a")], [("Foo", "A")], False, id="unknown-fields-keep-their-case"),
        pytest.param("Foo", [], [("Foo", "1")], False, id="missing-then"),
        pytest.param("Foo", [("Foo", "1")], [], False, id="missing-now"),
        pytest.param("Foo", [], [], True, id="missing-both-times"),
        pytest.param("Foo", [], [("Foo", "")], False, id="missing-is-not-empty"),
        pytest.param("Foo", [("Foo", "1")], [("Foo", "1"), ("Bar", "2")], True, id="other-fields-do-not-count"),
        pytest.param("Foo, Bar", [("Foo", "1"), ("Bar", "2")], [("Bar", "2"), ("Foo", "1")], True, id="two-any-order"),
        pytest.param(
            "Foo, Bar", [("Foo", "1"), ("Bar", "2")], [("Foo", "1"), ("Bar", "3")], False, id="two-one-differs"
        ),
        pytest.param("Foo, Bar", [("Foo", "1"), ("Bar", "2")], [("Foo", "2"), ("Bar", "1")], False, id="two-swapped"),
        pytest.param("*", [("Foo", "1")], [("Foo", "1")], False, id="any"),
        pytest.param("Foo, *", [("Foo", "1")], [("Foo", "1")], False, id="any-among-names"),
        pytest.param("Foo", [("Foo", "1, 2")], [("Foo", "1"), ("Foo", "2")], True, id="lines-combine"),
        pytest.param("Foo", [("Foo", "1,2")], [("Foo", " 1, 2 ")], True, id="space-around-commas"),
        pytest.param("Foo", [("Foo", "1 2")], [("Foo", "12")], False, id="space-elsewhere"),
        pytest.param("Foo", [("Foo", '"1,2"')], [("Foo", '"1, 2"')], False, id="space-inside-quotes"),
        pytest.param("Foo", [("Foo", "1,,2")], [("Foo", "1,2")], False, id="empty-members-may-mean-something"),
        pytest.param("Foo", [("Foo", "1, 2")], [("Foo", "2, 1")], False, id="order-may-mean-something"),
        pytest.param("Cookie", [("Cookie", "a=1,b")], [("Cookie", "a=1, b")], False, id="credentials-to-the-letter"),
        pytest.param(
            "Authorization", [("Authorization", "b x")], [("Authorization", "b x")], True, id="credentials-same"
        ),
        pytest.param(
            "Accept-Language",
            [("Accept-Language", "en, de")],
            [("Accept-Language", "de,EN")],
            True,
            id="language-order",
        ),
        pytest.param(
            "Accept-Language",
            [("Accept-Language", "en;q=0.5, de")],
            [("Accept-Language", "de, en ; Q=0.5")],
            True,
            id="language-space-and-case",
        ),
        pytest.param(
            "Accept-Language",
            [("Accept-Language", "en;q=0.5, de")],
            [("Accept-Language", "en, de;q=0.5")],
            False,
            id="language-weights-differ",
        ),
        pytest.param(
            "Accept-Encoding",
            [("Accept-Encoding", "gzip, br")],
            [("Accept-Encoding", "br,gzip")],
            True,
            id="encoding-order",
        ),
        pytest.param(
            "Accept", [("Accept", "a/b, c/d")], [("Accept", "c/d, a/b")], False, id="accept-order-not-assumed"
        ),
    ],
)
def test_selection_9111_4_1(vary, first, second, expected):
    assert chosen(vary, first, second) is expected


@pytest.mark.parametrize(
    ("accept", "content_language", "expected"),
    [
        pytest.param("fr;q=0.5, de;q=1.0", "de", True, id="12.5.4-the-best-one"),
        pytest.param("fr;q=0.5, DE", "de", True, id="12.5.4-any-case"),
        pytest.param("fr;q=0.5, de", "fr", False, id="12.5.4-the-second-best"),
        pytest.param("fr, de", "de", False, id="12.5.4-two-best"),
        pytest.param("de;q=0", "de", False, id="12.5.4-refused"),
        pytest.param("de;q=0.9, fr;q=2", "de", False, id="12.4.2-no-weight"),
        pytest.param("de;q=nan", "de", False, id="12.4.2-not-a-number"),
        pytest.param("de;level=1", "de", False, id="12.4.2-another-parameter"),
        pytest.param("de", "de, fr", False, id="8.5-two-languages"),
        pytest.param("de", None, False, id="8.5-no-language"),
    ],
)
def test_a_response_in_the_language_liked_best_is_selected(accept, content_language, expected):
    response = [] if content_language is None else [("Content-Language", content_language)]
    assert (
        chosen("Accept-Language", [("Accept-Language", "en, x")], [("Accept-Language", accept)], response) is expected
    )


def test_no_language_is_asked_for_9110_12_5_4():
    assert not chosen("Accept-Language", [("Accept-Language", "de")], [], [("Content-Language", "de")])


FIELDS = st.lists(st.tuples(st.sampled_from(["Foo", "Accept-Language", "Cookie"]), st.text(max_size=8)), max_size=4)
VARY = st.sampled_from(["Foo", "Foo, Accept-Language", "Cookie, Foo", ""])


@given(VARY, FIELDS)
def test_a_request_selects_what_it_was_given(vary, first):
    assert chosen(vary, first, first)


@given(VARY, FIELDS, FIELDS)
def test_selection_is_symmetric(vary, first, second):
    assert chosen(vary, first, second) == chosen(vary, second, first)


@given(st.text("ab ,\t\"'", max_size=12), st.text("ab ,\t\"'", max_size=12))
def test_only_space_beside_commas_is_forgiven(one, other):
    """Values that select each other differ in nothing but space."""
    if chosen("Foo", [("Foo", one)], [("Foo", other)]):
        assert "".join(one.split()) == "".join(other.split())


@given(st.text(max_size=12), st.text(max_size=12))
def test_credentials_are_never_confused(one, other):
    assert chosen("Authorization", [("Authorization", one)], [("Authorization", other)]) is (one == other)
