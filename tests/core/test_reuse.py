"""May a stored response answer a request (RFC 9111 §4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.caching import stored_response
from gateway.core.dates import format_date
from gateway.core.fields import targeted
from gateway.core.freshness import State, freshness
from gateway.core.model import Fields
from gateway.core.reuse import Action, Forwarded, may_reuse

T = 1_785_585_600
A, F = Action, Forwarded


def stored(cache_control="max-age=10", *, request=(), date=0, arrived=0, **more):
    response = Fields(
        [
            ("Cache-Control", cache_control),
            ("Date", format_date(T + date)),
            *((name.replace("_", "-"), value) for name, value in more.items()),
        ]
    )
    directives = targeted(response)
    fresh = freshness(200, response, directives, request_time=T + arrived, response_time=T + arrived)
    return stored_response(Fields(request), 200, response, directives=directives, fresh=fresh, now=T + arrived)


def ask(candidates, *, method="GET", after=0, **fields):
    request = Fields((name.replace("_", "-"), value) for name, value in fields.items())
    return may_reuse(method, request, candidates, T + after)


@pytest.mark.parametrize(
    ("response", "asked", "after", "action", "forwarded"),
    [
        pytest.param("max-age=10", "", 5, A.SERVE, None, id="4-fresh"),
        pytest.param("max-age=10", "", 10, A.VALIDATE, F.STALE, id="4-stale"),
        pytest.param("max-age=10, no-cache", "", 5, A.VALIDATE, F.STALE, id="5.2.2.4-no-cache"),
        pytest.param("max-age=10", "no-cache", 5, A.VALIDATE, F.REQUEST, id="5.2.1.4-no-cache"),
        pytest.param("max-age=10", "max-age=1", 5, A.VALIDATE, F.REQUEST, id="5.2.1.1-max-age"),
        pytest.param("max-age=10", "min-fresh=9", 5, A.VALIDATE, F.REQUEST, id="5.2.1.3-min-fresh"),
        pytest.param("max-age=10", "max-stale", 15, A.SERVE, None, id="5.2.1.2-max-stale"),
        pytest.param("max-age=10", "no-store", 5, A.FETCH, F.REQUEST, id="5.2.1.5-no-store"),
        pytest.param("max-age=10", "only-if-cached", 5, A.SERVE, None, id="5.2.1.7-fresh"),
        pytest.param("max-age=10", "only-if-cached", 15, A.UNSATISFIABLE, F.STALE, id="5.2.1.7-stale"),
        pytest.param("max-age=10", "only-if-cached, max-stale", 15, A.SERVE, None, id="5.2.1.7-stale-accepted"),
        pytest.param("max-age=10", "only-if-cached, no-cache", 5, A.UNSATISFIABLE, F.REQUEST, id="5.2.1.7-no-cache"),
        pytest.param(
            "max-age=10, stale-while-revalidate=9", "", 15, A.SERVE_AND_REFRESH, F.STALE, id="5861-3-serve-and-refresh"
        ),
        pytest.param(
            "max-age=10, stale-while-revalidate=9",
            "only-if-cached",
            15,
            A.SERVE_AND_REFRESH,
            F.STALE,
            id="5.2.1.7-a-refresh-is-not-waited-for",
        ),
    ],
)
def test_one_candidate(response, asked, after, action, forwarded):
    candidate = stored(response)
    found = ask([candidate], after=after, Cache_Control=asked)
    assert (found.action, found.forwarded) == (action, forwarded)
    assert found.stored is candidate


def test_nothing_stored_9111_4():
    assert ask([]).action is A.FETCH
    assert ask([]).forwarded is F.URI_MISS
    assert ask([], Cache_Control="only-if-cached").action is A.UNSATISFIABLE


def test_no_variant_selected_9111_4_1():
    found = ask([stored(Vary="Foo", request=[("Foo", "1")])], Foo="2")
    assert (found.action, found.forwarded, found.stored) == (A.FETCH, F.VARY_MISS, None)


def test_the_right_one_of_several_variants_9111_4_1():
    one, two = (stored(Vary="Foo", request=[("Foo", value)]) for value in "12")
    assert ask([one, two], Foo="2").stored is two
    assert ask([two, one], Foo="1").stored is one


def test_of_several_the_most_recent_counts_9111_4():
    older, newer = stored(date=-5, arrived=5), stored(date=0, arrived=0)
    assert ask([newer, older]).stored is newer
    assert ask([older, newer]).stored is newer


def test_a_response_that_once_had_no_vary_counts_among_those_that_have_9111_4_1():
    plain, varying = stored(date=-1), stored(date=0, Vary="Foo", request=[("Foo", "1")])
    assert ask([plain, varying], Foo="1").stored is varying
    assert ask([plain, varying], Foo="2").stored is plain


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH", "get"])
def test_other_methods_go_to_the_origin_9111_4(method):
    found = ask([stored()], method=method)
    assert (found.action, found.forwarded, found.stored) == (A.FETCH, F.METHOD, None)


def test_a_stored_get_answers_head_9110_9_3_2():
    assert ask([stored()], method="HEAD").action is A.SERVE


def test_a_validation_names_what_may_stand_in():
    found = ask([stored("max-age=10, stale-if-error=60")], after=20)
    assert found.state is State.STALE_NEEDS_VALIDATION
    assert found.stored.freshness.stands_in(targeted(Fields()), T + 20)


# The six conditions of RFC 9111 §4, literally, over a handful of stored responses.

RESPONSES = st.lists(
    st.fixed_dictionaries(
        {
            "lifetime": st.integers(0, 20),
            "no-cache": st.booleans(),
            "must-revalidate": st.booleans(),
            "vary": st.sampled_from(["", "foo", "*"]),
            "foo": st.sampled_from([None, "1", "2"]),
            "made": st.integers(-10, 0),
        }
    ),
    max_size=4,
    unique_by=lambda response: response["made"],
)


def literal(responses, foo, no_cache, max_stale, after):
    """(may serve, which one) by the list in §4: presented variant, then conditions on the most recent of them."""
    presented = [
        response
        for response in responses
        if response["vary"] == "" or (response["vary"] == "foo" and response["foo"] == foo)
    ]
    if not presented:
        return False, None
    newest = max(presented, key=lambda response: response["made"])
    current_age = after - newest["made"]
    is_fresh = newest["lifetime"] > current_age
    staleness_allowed = (
        max_stale is not None and not newest["must-revalidate"] and current_age - newest["lifetime"] <= max_stale
    )
    return not no_cache and not newest["no-cache"] and (is_fresh or staleness_allowed), newest


@given(
    RESPONSES,
    st.sampled_from([None, "1", "2", "3"]),
    st.booleans(),
    st.none() | st.integers(0, 10),
    st.integers(0, 30),
)
@settings(max_examples=400)
def test_equals_the_literal_list(responses, foo, no_cache, max_stale, after):
    candidates = []
    for response in responses:
        words = [f"max-age={response['lifetime']}"]
        words += [word for word in ("no-cache", "must-revalidate") if response[word]]
        request = [] if response["foo"] is None else [("Foo", response["foo"])]
        candidates.append(stored(", ".join(words), request=request, date=response["made"], Vary=response["vary"]))
    fields = {} if foo is None else {"Foo": foo}
    words = ["no-cache"] * no_cache + ([] if max_stale is None else [f"max-stale={max_stale}"])
    found = ask(candidates, after=after, Cache_Control=", ".join(words), **fields)
    serves, newest = literal(responses, foo, no_cache, max_stale, after)
    assert (found.action is A.SERVE) is serves
    assert found.stored is (None if newest is None else candidates[responses.index(newest)])
    assert (found.forwarded is None) is serves
