"""Validation and the updates that follow from it (RFC 9111 §3.2, §4.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.caching import stored_response
from gateway.core.dates import format_date
from gateway.core.fields import targeted
from gateway.core.freshness import State, freshness
from gateway.core.model import Fields
from gateway.core.validation import (
    HeadEffect,
    Validated,
    head_effect,
    judge,
    selected_by,
    updated_fields,
    validation_request,
)

T = 1_785_585_600
MODIFIED, OTHER = format_date(T - 86400), format_date(T - 90000)


def stored(*pairs, request=(), arrived=0):
    response = Fields((("Cache-Control", "max-age=10"), ("Date", format_date(T + arrived)), *pairs))
    directives = targeted(response)
    fresh = freshness(200, response, directives, request_time=T + arrived, response_time=T + arrived)
    return stored_response(Fields(request), 200, response, directives=directives, fresh=fresh, now=T + arrived)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([("ETag", '"x"')], [("If-None-Match", '"x"')], id="strong"),
        pytest.param([("ETag", 'W/"x"')], [("If-None-Match", 'W/"x"')], id="weak-tag-kept-weak"),
        pytest.param([("Last-Modified", MODIFIED)], [("If-Modified-Since", MODIFIED)], id="last-modified"),
        pytest.param(
            [("ETag", '"x"'), ("Last-Modified", MODIFIED)],
            [("If-None-Match", '"x"'), ("If-Modified-Since", MODIFIED)],
            id="both",
        ),
        pytest.param([("ETag", "x")], None, id="unquoted-tag-is-none"),
        pytest.param([("Last-Modified", "yesterday")], None, id="no-date-is-none"),
        pytest.param([], None, id="neither"),
    ],
)
def test_validation_request_9111_4_3_1(pairs, expected):
    found = validation_request(Fields(), stored(*pairs), T)
    assert (None if found is None else list(found.pairs)) == expected


def test_the_clients_own_conditions_give_way_9111_4_3_1():
    request = Fields(
        [
            ("If-None-Match", '"client"'),
            ("If-Modified-Since", OTHER),
            ("Range", "bytes=0-1"),
            ("If-Range", '"client"'),
            ("Foo", "1"),
        ]
    )
    found = validation_request(request, stored(("ETag", '"x"'), ("Vary", "Foo")), T)
    assert found.pairs == (("Foo", "1"), ("If-None-Match", '"x"'))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (304, Validated.FRESHENS),
        (200, Validated.REPLACES),
        (404, Validated.REPLACES),
        (410, Validated.REPLACES),
        (412, Validated.REPLACES),
        (500, Validated.FAILED),
        (503, Validated.FAILED),
        (599, Validated.FAILED),
        (600, Validated.REPLACES),
    ],
)
def test_answers_9111_4_3_3(status, expected):
    assert judge(status) is expected


STRONG_1, STRONG_2 = stored(("ETag", '"1"')), stored(("ETag", '"2"'))
STRONG_1_NEWER = stored(("ETag", '"1"'), arrived=5)
WEAK_1, WEAK_1_NEWER = stored(("ETag", 'W/"1"')), stored(("ETag", 'W/"1"'), arrived=5)
DATED, DATED_NEWER = stored(("Last-Modified", MODIFIED)), stored(("Last-Modified", MODIFIED), arrived=5)
BARE = stored()


@pytest.mark.parametrize(
    ("answer", "candidates", "validated", "expected"),
    [
        pytest.param([("ETag", '"1"')], [STRONG_1, STRONG_2], STRONG_1, [STRONG_1], id="the-strong-one"),
        pytest.param([("ETag", '"2"')], [STRONG_1, STRONG_2], STRONG_1, [STRONG_2], id="another-than-asked-about"),
        pytest.param(
            [("ETag", '"1"')],
            [STRONG_1, STRONG_1_NEWER, STRONG_2],
            STRONG_1,
            [STRONG_1, STRONG_1_NEWER],
            id="all-with-the-strong-one",
        ),
        pytest.param([("ETag", '"3"')], [STRONG_1, STRONG_2], STRONG_1, [], id="an-unknown-strong-one-updates-nothing"),
        pytest.param([("ETag", '"1"')], [WEAK_1], WEAK_1, [], id="a-weak-one-is-not-the-strong-one"),
        pytest.param(
            [("ETag", '"1"'), ("Last-Modified", MODIFIED)], [DATED], DATED, [DATED], id="a-tag-new-to-a-dated-one"
        ),
        pytest.param(
            [("ETag", '"3"'), ("Last-Modified", MODIFIED)],
            [stored(("ETag", '"1"'), ("Last-Modified", MODIFIED))],
            None,
            [],
            id="the-date-does-not-outvote-the-tag",
        ),
        pytest.param([("ETag", 'W/"1"')], [WEAK_1, WEAK_1_NEWER], WEAK_1, [WEAK_1_NEWER], id="the-newest-weak-one"),
        pytest.param([("ETag", 'W/"1"')], [STRONG_1], STRONG_1, [STRONG_1], id="weakened-on-the-way"),
        pytest.param([("ETag", 'W/"3"')], [WEAK_1], WEAK_1, [], id="an-unknown-weak-one"),
        pytest.param(
            [("Last-Modified", MODIFIED)], [DATED, DATED_NEWER], DATED, [DATED_NEWER], id="the-newest-dated-one"
        ),
        pytest.param([("Last-Modified", OTHER)], [DATED], DATED, [], id="another-date"),
        pytest.param([], [STRONG_1, STRONG_2], STRONG_2, [STRONG_2], id="no-validator-means-the-one-asked-about"),
        pytest.param([], [BARE], None, [], id="no-validator-and-nothing-asked"),
        pytest.param([("ETag", '"1"')], [], None, [], id="nothing-stored"),
    ],
)
def test_selection_by_a_304_9111_4_3_4(answer, candidates, validated, expected):
    assert selected_by(Fields(answer), candidates, validated) == expected


STORED = Fields(
    [
        ("Date", format_date(T)),
        ("Age", "100"),
        ("Cache-Control", "max-age=1"),
        ("Content-Length", "5"),
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/plain"),
        ("Test-Header", "A"),
        ("Twice", "1"),
        ("Twice", "2"),
        ("Kept", "yes"),
        ("ETag", '"x"'),
    ]
)


def test_fields_of_a_304_replace_the_stored_ones_9111_3_2():
    answer = Fields(
        [
            ("date", format_date(T + 9)),
            ("Cache-Control", "max-age=3600"),
            ("Content-Length", "0"),
            ("Content-Encoding", "br"),
            ("Content-Type", "text/html"),
            ("Content-Range", "bytes 0-1/2"),
            ("test-header", "B"),
            ("Twice", "3"),
            ("New", "1"),
            ("New", "2"),
            ("Connection", "hop"),
            ("Hop", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Foo", "c"),
        ]
    )
    assert sorted(updated_fields(STORED, answer, T + 9).pairs) == sorted(
        [
            ("date", format_date(T + 9)),
            ("Cache-Control", "max-age=3600"),
            ("Content-Length", "5"),
            ("Content-Encoding", "gzip"),
            ("Content-Type", "text/html"),
            ("test-header", "B"),
            ("Twice", "3"),
            ("New", "1"),
            ("New", "2"),
            ("Kept", "yes"),
            ("ETag", '"x"'),
            ("Content-Foo", "c"),
        ]
    )


@pytest.mark.parametrize("answer", [[], [("Date", "nonsense")]], ids=["no-date", "no-readable-date"])
def test_a_304_makes_it_young_again_even_without_a_date_9111_4_2_3(answer):
    later = T + 1000
    response = updated_fields(STORED, Fields(answer), later)
    assert response.get_all("date") == [format_date(later)]
    assert "age" not in response
    fresh = freshness(200, response, targeted(response), request_time=later, response_time=later)
    assert fresh.age(later) == 0
    assert fresh.state(targeted(Fields()), later) is State.FRESH


def test_an_age_of_the_304_counts_9111_4_2_3():
    assert updated_fields(STORED, Fields([("Age", "3")]), T + 9).get_all("age") == ["3"]


def test_a_changed_vary_is_taken_over_9111_3_2():
    response = updated_fields(STORED, Fields([("Vary", "Foo")]), T)
    fresh = freshness(200, response, targeted(response), request_time=T, response_time=T)
    again = stored_response(
        Fields([("Foo", "1")]), 200, response, directives=targeted(response), fresh=fresh, now=float(T)
    )
    assert (again.vary, again.selecting) == (("foo",), ("1",))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([], HeadEffect.FRESHENS, id="nothing-contradicts"),
        pytest.param([("ETag", '"x"'), ("Last-Modified", MODIFIED)], HeadEffect.FRESHENS, id="same-validators"),
        pytest.param([("ETag", '"y"')], HeadEffect.OUTDATES, id="another-tag"),
        pytest.param([("ETag", 'W/"x"')], HeadEffect.OUTDATES, id="a-weakened-tag"),
        pytest.param([("Last-Modified", OTHER)], HeadEffect.OUTDATES, id="another-date"),
        pytest.param([("Content-Length", "5")], HeadEffect.FRESHENS, id="same-length"),
        pytest.param([("Content-Length", "6")], HeadEffect.OUTDATES, id="another-length"),
        pytest.param([("ETag", '"x"'), ("Content-Length", "x")], HeadEffect.OUTDATES, id="no-length"),
    ],
)
def test_head_9111_4_3_5(pairs, expected):
    held = stored(("ETag", '"x"'), ("Last-Modified", MODIFIED))
    assert head_effect(held, Fields(pairs), 5) is expected


def test_a_validator_new_to_the_stored_response_outdates_it_9111_4_3_5():
    assert head_effect(BARE, Fields([("ETag", '"x"')]), 5) is HeadEffect.OUTDATES


@given(
    st.lists(st.tuples(st.sampled_from(["A", "b", "Date", "Age", "Content-Type"]), st.sampled_from("123")), max_size=6),
    st.lists(st.tuples(st.sampled_from(["a", "B", "date", "C", "Connection"]), st.sampled_from("123")), max_size=6),
)
def test_updating_twice_is_updating_once(first, second):
    once = updated_fields(Fields(first), Fields(second), T)
    assert updated_fields(once, Fields(second), T).pairs == once.pairs
    for name in ("a", "b", "c"):
        newer = Fields(second).get_all(name)
        assert once.get_all(name) == (newer or Fields(first).get_all(name))


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_text_raises(etag, modified, connection):
    pairs = [("ETag", etag), ("Last-Modified", modified), ("Connection", connection)]
    held = stored(*pairs)
    validation_request(Fields(pairs), held, T)
    selected_by(Fields(pairs), [held], held)
    updated_fields(Fields(pairs), Fields(pairs), T)
    head_effect(held, Fields(pairs), 1)
