"""Age, lifetime and staleness (RFC 9111 §4.2, RFC 5861), and equality with a slow, literal model of the prose."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dates import format_date
from gateway.core.fields import Directives, cache_control, targeted
from gateway.core.freshness import Source, State, freshness, initial_age, lifetime, policy_freshness
from gateway.core.model import Fields
from gateway.core.routes import CacheMode, CacheRule

T = 1_785_585_600
NOTHING = Directives()


def at(offset):
    return format_date(T + offset)


def fields(**named):
    return Fields((name.replace("_", "-"), value) for name, value in named.items())


def made(response, status=200, request_time=T, response_time=T, stale_if_error=0.0):
    return freshness(
        status,
        response,
        targeted(response),
        request_time=request_time,
        response_time=response_time,
        stale_if_error=stale_if_error,
    )


@pytest.mark.parametrize(
    ("response", "seconds", "source"),
    [
        pytest.param(fields(cache_control="max-age=60"), 60, Source.MAX_AGE, id="4.2.1-max-age"),
        pytest.param(fields(cache_control="max-age=60, s-maxage=5"), 5, Source.S_MAXAGE, id="4.2.1-s-maxage-first"),
        pytest.param(fields(cache_control="max-age=0, s-maxage=5"), 5, Source.S_MAXAGE, id="4.2.1-s-maxage-longer"),
        pytest.param(
            fields(cache_control="max-age=60", expires=at(5), date=at(0)), 60, Source.MAX_AGE, id="5.3-max-age-first"
        ),
        pytest.param(fields(cache_control="max-age=0", expires=at(5)), 0, Source.MAX_AGE, id="5.3-max-age-zero-first"),
        pytest.param(
            fields(cache_control="max-age=x", expires=at(5)), 0, Source.MAX_AGE, id="4.2.1-malformed-is-stale"
        ),
        pytest.param(fields(expires=at(50), date=at(20)), 30, Source.EXPIRES, id="4.2.1-expires-less-date"),
        pytest.param(fields(expires=at(50)), 50, Source.EXPIRES, id="9110-6.6.1-no-date-is-arrival"),
        pytest.param(fields(expires=at(50), date="x"), 50, Source.EXPIRES, id="9110-6.6.1-bad-date-is-arrival"),
        pytest.param(fields(expires=at(-50), date=at(0)), 0, Source.EXPIRES, id="4.2.1-expires-past"),
        pytest.param(fields(expires="0", date=at(0)), 0, Source.EXPIRES, id="5.3-zero"),
        pytest.param(fields(expires="", date=at(0)), 0, Source.EXPIRES, id="5.3-empty"),
        pytest.param(
            Fields([("Expires", at(9)), ("Expires", at(9))]), 9, Source.EXPIRES, id="4.2.1-same-expires-twice"
        ),
        pytest.param(Fields([("Expires", at(9)), ("Expires", at(99))]), 0, Source.EXPIRES, id="4.2.1-two-expires"),
        pytest.param(
            Fields([("Expires", at(9)), ("Expires", "0")]), 0, Source.EXPIRES, id="4.2.1-expires-and-nonsense"
        ),
        pytest.param(fields(last_modified=at(-1000), date=at(0)), 100, Source.HEURISTIC, id="4.2.2-a-tenth"),
        pytest.param(fields(last_modified=at(-(10**8)), date=at(0)), 86400, Source.HEURISTIC, id="4.2.2-at-most-a-day"),
        pytest.param(fields(last_modified=at(5), date=at(0)), 0, Source.NONE, id="4.2.2-modified-in-the-future"),
        pytest.param(fields(last_modified="x", date=at(0)), 0, Source.NONE, id="4.2.2-modified-no-date"),
        pytest.param(fields(last_modified=at(-1000), expires="0"), 0, Source.EXPIRES, id="4.2.2-not-beside-explicit"),
        pytest.param(fields(), 0, Source.NONE, id="4.2.2-nothing-known"),
        pytest.param(fields(cdn_cache_control="max-age=7", expires="0"), 7, Source.MAX_AGE, id="9213-2.2-max-age"),
        pytest.param(fields(cdn_cache_control="foo", expires=at(9)), 0, Source.NONE, id="9213-2.2-expires-shut-out"),
    ],
)
def test_lifetime(response, seconds, source):
    found = lifetime(200, response, targeted(response), T)
    assert (found.seconds, found.source) == (pytest.approx(seconds), source)


@pytest.mark.parametrize(
    ("status", "heuristic"),
    [
        *[(status, True) for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)],
        *[(status, False) for status in (201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599)],
    ],
)
def test_heuristic_statuses_9110_15_1(status, heuristic):
    response = fields(last_modified=at(-1000), date=at(0))
    assert (lifetime(status, response, NOTHING, T).seconds > 0) is heuristic
    assert lifetime(status, response, cache_control(["public"]), T).seconds == pytest.approx(100)


@pytest.mark.parametrize(
    ("response", "request_time", "expected"),
    [
        pytest.param(fields(), T, 0, id="4.2.3-nothing-known"),
        pytest.param(fields(), T - 3, 3, id="4.2.3-response-delay"),
        pytest.param(fields(age="30"), T, 30, id="4.2.3-age"),
        pytest.param(fields(age="30"), T - 3, 33, id="4.2.3-age-and-delay"),
        pytest.param(fields(date=at(-50)), T, 50, id="4.2.3-apparent-age"),
        pytest.param(fields(date=at(-50), age="30"), T - 3, 50, id="4.2.3-apparent-age-larger"),
        pytest.param(fields(date=at(-20), age="30"), T - 3, 33, id="4.2.3-corrected-age-larger"),
        pytest.param(fields(date=at(100)), T, 0, id="4.2.3-date-ahead-of-our-clock"),
        pytest.param(fields(age="x", date=at(-5)), T, 5, id="5.1-unreadable-age"),
        pytest.param(fields(age="7200, 0"), T, 7200, id="5.1-first-member"),
        pytest.param(fields(date="x"), T, 0, id="4.2.3-unreadable-date"),
        pytest.param(fields(), T + 9, 0, id="4.2.3-clock-set-back-during-the-request"),
    ],
)
def test_initial_age(response, request_time, expected):
    assert initial_age(response, request_time, T) == expected


def asked(text):
    return cache_control([text] if text else [])


FRESH, NEEDS, WANTS = State.FRESH, State.STALE_NEEDS_VALIDATION, State.CLIENT_WANTS_VALIDATION
REFRESH, ACCEPTED = State.STALE_SERVE_AND_REFRESH, State.STALE_ACCEPTED


@pytest.mark.parametrize(
    ("response", "request_text", "after", "expected"),
    [
        pytest.param("max-age=10", "", 0, FRESH, id="4.2-fresh"),
        pytest.param("max-age=10", "", 9.9, FRESH, id="4.2-still-fresh"),
        pytest.param("max-age=10", "", 10, NEEDS, id="4.2-lifetime-must-exceed-age"),
        pytest.param("max-age=10, no-cache", "", 0, State.FRESH_NEEDS_VALIDATION, id="5.2.2.4-no-cache"),
        pytest.param("max-age=10, no-cache", "", 10, NEEDS, id="5.2.2.4-no-cache-and-stale"),
        pytest.param("no-cache, max-age=1", "max-stale", 5, NEEDS, id="5.2.2.4-no-cache-over-max-stale"),
        pytest.param('max-age=10, no-cache="a"', "", 0, FRESH, id="5.2.2.4-qualified-does-not-hinder"),
        pytest.param("max-age=10", "no-cache", 0, WANTS, id="5.2.1.4-no-cache"),
        pytest.param("max-age=10", "max-age=0", 0, WANTS, id="5.2.1.1-zero"),
        pytest.param("max-age=10", "max-age=5", 5, FRESH, id="5.2.1.1-old-enough"),
        pytest.param("max-age=10", "max-age=5", 6, WANTS, id="5.2.1.1-too-old"),
        pytest.param("max-age=10", "max-age=x", 1, WANTS, id="5.2.1.1-malformed"),
        pytest.param("max-age=10", "min-fresh=5", 5, FRESH, id="5.2.1.3-enough-left"),
        pytest.param("max-age=10", "min-fresh=5", 6, WANTS, id="5.2.1.3-too-little-left"),
        pytest.param("max-age=10", "max-stale", 10**6, ACCEPTED, id="5.2.1.2-unbounded"),
        pytest.param("max-age=10", "max-stale=5", 15, ACCEPTED, id="5.2.1.2-within"),
        pytest.param("max-age=10", "max-stale=5", 16, NEEDS, id="5.2.1.2-beyond"),
        pytest.param("max-age=10", "max-stale=99, max-age=20", 20, ACCEPTED, id="5.2.1.1-with-max-stale"),
        pytest.param("max-age=10", "max-stale=99, max-age=20", 21, WANTS, id="5.2.1.1-age-bounds-max-stale"),
        pytest.param("max-age=10, must-revalidate", "max-stale", 11, NEEDS, id="5.2.2.2-must-revalidate"),
        pytest.param("max-age=10, must-revalidate", "", 5, FRESH, id="5.2.2.2-while-fresh"),
        pytest.param("max-age=10, proxy-revalidate", "max-stale", 11, NEEDS, id="5.2.2.8-proxy-revalidate"),
        pytest.param("s-maxage=10", "max-stale", 11, NEEDS, id="5.2.2.10-s-maxage"),
        pytest.param("max-age=10, stale-while-revalidate=5", "", 14.9, REFRESH, id="5861-3-within"),
        pytest.param("max-age=10, stale-while-revalidate=5", "", 15, NEEDS, id="5861-3-beyond"),
        pytest.param("max-age=10, stale-while-revalidate=5", "", 5, FRESH, id="5861-3-not-yet"),
        pytest.param("max-age=10, stale-while-revalidate=5", "max-age=60", 12, NEEDS, id="5.2.1.1-takes-nothing-stale"),
        pytest.param("max-age=10, stale-while-revalidate=5", "no-cache", 12, WANTS, id="5.2.1.4-over-5861"),
        pytest.param("max-age=10, stale-while-revalidate=5, must-revalidate", "", 12, NEEDS, id="5.2.2.2-over-5861"),
        pytest.param("s-maxage=10, stale-while-revalidate=5", "", 12, NEEDS, id="5.2.2.10-over-5861"),
    ],
)
def test_state(response, request_text, after, expected):
    assert made(fields(cache_control=response)).state(asked(request_text), T + after) is expected


@pytest.mark.parametrize(
    ("response", "request_text", "after", "granted", "expected"),
    [
        pytest.param("max-age=10, stale-if-error=5", "", 14, 0, True, id="5861-4-within"),
        pytest.param("max-age=10, stale-if-error=5", "", 15, 0, False, id="5861-4-beyond"),
        pytest.param("max-age=10", "", 11, 0, False, id="9111-4.2.4-nobody-permits-it"),
        pytest.param("max-age=10", "", 14, 5, True, id="4.2.4-the-operator-permits-it"),
        pytest.param("max-age=10, stale-if-error=0", "", 11, 5, False, id="5861-4-the-origin-outranks-the-operator"),
        pytest.param("max-age=10", "stale-if-error=5", 14, 0, True, id="5861-4-the-client-permits-it"),
        pytest.param("max-age=10, stale-if-error=5, must-revalidate", "", 12, 9, False, id="5.2.2.2-outranks-all"),
        pytest.param("s-maxage=10, stale-if-error=5", "stale-if-error=9", 12, 9, False, id="5.2.2.10-outranks-all"),
        pytest.param("max-age=10, stale-if-error=5, no-cache", "", 1, 0, False, id="5.2.2.4-never-without-validation"),
        pytest.param("max-age=10, stale-if-error=5", "no-cache", 1, 0, False, id="5.2.1.4-the-client-wants-the-origin"),
        pytest.param("max-age=10", "max-age=1", 5, 0, True, id="4.2-fresh-beats-an-error"),
    ],
)
def test_standing_in_for_an_error(response, request_text, after, granted, expected):
    found = made(fields(cache_control=response), stale_if_error=granted)
    assert found.stands_in(asked(request_text), T + after) is expected


def test_policy_rule_gives_the_instants():
    rule = CacheRule(mode=CacheMode.POLICY, ttl=10, stale_while_revalidate=5, stale_if_error=60)
    found = policy_freshness(rule, T)
    assert (found.fresh_until, found.refresh_until, found.error_until) == (T + 10, T + 15, T + 70)
    assert found.age(T + 3) == 3
    assert found.source is Source.POLICY
    states = [found.state(NOTHING, T + after) for after in (0, 9.9, 10, 14.9, 15)]
    assert states == [FRESH, FRESH, REFRESH, REFRESH, NEEDS]
    assert [found.stands_in(NOTHING, T + after) for after in (0, 69, 70)] == [True, True, False]


# The model: RFC 9111 §4.2 step by step from given facts, with no text in between and none of the code under test.

WORDS = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
FLAGS = ("must-revalidate", "proxy-revalidate", "no-cache", "public")
NUMBERS = st.none() | st.integers(0, 40) | st.just("bad")
OFFSETS = st.none() | st.integers(-300, 100)
CASES = st.fixed_dictionaries(
    {
        "status": st.sampled_from([200, 404, 500, 599]),
        "words": st.fixed_dictionaries(dict.fromkeys(WORDS, NUMBERS)),
        "flags": st.sets(st.sampled_from(FLAGS)),
        "date": OFFSETS,
        "expires": OFFSETS | st.just("bad"),
        "last-modified": OFFSETS,
        "age": st.none() | st.integers(0, 50) | st.just("bad"),
        "delay": st.integers(0, 5),
        "after": st.integers(0, 90),
        "asked": st.fixed_dictionaries(dict.fromkeys(("max-age", "min-fresh", "stale-if-error"), NUMBERS)),
        "max-stale": st.none() | st.integers(0, 40) | st.just("any"),
        "asked-no-cache": st.booleans(),
    }
)


def rendered(case):
    """The case as HTTP fields."""
    words = [f"{name}={value}" for name, value in case["words"].items() if value is not None]
    pairs = [("Cache-Control", ", ".join([*words, *sorted(case["flags"])]))]
    dates = [(name, case[name]) for name in ("date", "expires", "last-modified") if case[name] is not None]
    pairs.extend((name, "bad" if offset == "bad" else at(offset)) for name, offset in dates)
    if case["age"] is not None:
        pairs.append(("age", str(case["age"])))
    request = [f"{name}={value}" for name, value in case["asked"].items() if value is not None]
    if case["max-stale"] is not None:
        request.append("max-stale" if case["max-stale"] == "any" else f"max-stale={case['max-stale']}")
    if case["asked-no-cache"]:
        request.append("no-cache")
    return Fields(pairs), cache_control([", ".join(request)])


def model(case):  # noqa: C901 - the prose, sentence by sentence
    """(lifetime, current age, state), from the facts of the case; times are relative to T, when the response came."""
    words, flags = case["words"], case["flags"]
    date = 0 if case["date"] is None else case["date"]
    # 4.2.1
    if words["s-maxage"] is not None:
        life = 0 if words["s-maxage"] == "bad" else words["s-maxage"]
    elif words["max-age"] is not None:
        life = 0 if words["max-age"] == "bad" else words["max-age"]
    elif case["expires"] is not None:
        life = 0 if case["expires"] == "bad" else case["expires"] - date
    elif (case["status"] in (200, 404) or "public" in flags) and case["last-modified"] is not None:
        life = (date - case["last-modified"]) / 10
    else:
        life = 0
    life = max(life, 0)
    # 4.2.3
    apparent_age = max(0, 0 - date)
    age_value = case["age"] if isinstance(case["age"], int) else 0
    corrected_age_value = age_value + case["delay"]
    current_age = max(apparent_age, corrected_age_value) + case["after"]
    is_fresh = life > current_age
    # 4.2.4, 5.2.1, 5.2.2
    ask = case["asked"]
    staleness = current_age - life
    if "no-cache" in flags:
        return life, current_age, "fresh-needs-validation" if is_fresh else "stale-needs-validation"
    too_old = ask["max-age"] is not None and (ask["max-age"] in ("bad", 0) or current_age > ask["max-age"])
    not_fresh_enough = ask["min-fresh"] is not None and (ask["min-fresh"] == "bad" or -staleness < ask["min-fresh"])
    if case["asked-no-cache"] or too_old or not_fresh_enough:
        return life, current_age, "client-wants-validation"
    if is_fresh:
        return life, current_age, "fresh"
    prohibited = bool({"must-revalidate", "proxy-revalidate"} & flags) or words["s-maxage"] is not None
    if not prohibited:
        window = words["stale-while-revalidate"]
        if isinstance(window, int) and staleness < window and ask["max-age"] is None:
            return life, current_age, "stale-serve-and-refresh"
        if case["max-stale"] == "any" or (case["max-stale"] is not None and staleness <= case["max-stale"]):
            return life, current_age, "stale-accepted"
    return life, current_age, "stale-needs-validation"


@given(CASES)
@settings(max_examples=600)
def test_equals_the_model(case):
    response, directives = rendered(case)
    # Sub-second noise of the float clock must not decide: the model's quantities are tenths at the finest.
    life, current_age, state = model(case)
    found = made(response, case["status"], request_time=T - case["delay"])
    now = T + case["after"]
    assert found.fresh_until - found.born == pytest.approx(life, abs=1e-5)
    assert found.age(now) == pytest.approx(current_age, abs=1e-5)
    if life == int(life):
        assert found.state(directives, now).value == state


@given(CASES, st.lists(st.integers(-50, 500), min_size=2, max_size=6))
@settings(max_examples=200)
def test_laws(case, moments):
    """Nothing is negative; age never shrinks and freshness never returns as time goes on."""
    response, directives = rendered(case)
    found = made(response, case["status"], request_time=T - case["delay"])
    assert found.born <= T
    assert found.born <= found.fresh_until <= min(found.refresh_until, found.error_until)
    order = sorted(T + moment for moment in moments)
    ages = [found.age(now) for now in order]
    assert ages == sorted(ages)
    assert min(ages) >= 0
    served = [found.state(NOTHING, now) is FRESH for now in order]
    assert served == sorted(served, reverse=True)
    stands = [found.stands_in(directives, now) for now in order]
    assert stands == sorted(stands, reverse=True)


@given(st.dictionaries(st.sampled_from(["Date", "Age", "Expires", "Last-Modified", "Cache-Control"]), st.text()))
def test_no_text_raises(named):
    found = made(Fields(named.items()))
    assert found.born <= found.fresh_until
    assert found.state(cache_control(list(named.values())), T) in State
