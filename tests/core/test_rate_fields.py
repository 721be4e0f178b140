"""The fields of one policy remember what the answer before said, and are what they are when all is worked out anew."""

from __future__ import annotations

from math import nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rate_fields import Wording, lines
from gateway.core.rate_policy import RatePolicy, Who
from gateway.core.ratelimit import Algorithm, Decision, FixedWindow, Gcra

NOW = 1_800_000_000.0
POLICIES: list[tuple[Algorithm, Who]] = [
    (Gcra(20_000, 3600.0), Who.PRINCIPAL),
    (Gcra(3, 10.0, burst=5), Who.IP),
    (FixedWindow(100, 60.0), Who.PRINCIPAL),
    (FixedWindow(2, 60.0), Who.ANONYMOUS),
]


def policy(bucket: Algorithm, who: Who) -> RatePolicy:
    return RatePolicy("a policy", who, bucket, frozenset({"list"}))


def anew(bucket: Algorithm, who: Who, decision: Decision, now: float) -> str:
    wording = Wording(policy(bucket, who))
    return lines(wording, decision, wording.state(decision), wording.policy, now)


@given(
    st.sampled_from(POLICIES),
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.one_of(st.floats(0, 1e-3), st.floats(0, 2), st.integers(0, 70), st.floats(-5, 0)),
            st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        ),
        max_size=60,
    ),
)
def test_fields_of_one_policy_are_what_they_are_alone(
    rule: tuple[Algorithm, Who], walk: list[tuple[str, float, float]]
) -> None:
    bucket, who = rule
    wording = Wording(policy(bucket, who))
    states: dict[str, object] = {}
    now = NOW
    for key, later, cost in walk:
        now += later
        decision = bucket.decide(states.get(key), now, cost, key)  # type: ignore[arg-type]
        states[key] = decision.state
        if decision.allowed:
            assert wording.alone(decision, now) == anew(bucket, who, decision, now)


@pytest.mark.parametrize("now", [NOW, NOW + 0.25])
@pytest.mark.parametrize("first", [0.0, 1.0, 59.0])
@pytest.mark.parametrize(
    "seconds",
    [near for whole in (0.0, 1.0, 2.0, 59.0, 60.0) for near in (whole, nextafter(whole, 99), whole + 1e-5)]
    + [0.5, 0.75, 1.00002],
)
def test_the_bounds_of_a_second_are_where_they_were(now: float, first: float, seconds: float) -> None:
    bucket, who = POLICIES[0]
    wording = Wording(policy(bucket, who))
    wording.alone(Decision(7.0, first, 0.0, None), now)
    decision = Decision(6.5, seconds, 0.0, None)
    assert wording.alone(decision, now) == anew(bucket, who, decision, now)


@pytest.mark.parametrize(("bucket", "who"), POLICIES)
@pytest.mark.parametrize("left", [-1.5, -0.5, 0.0, 0.5, 1.0, 1.5])
def test_no_units_are_none(bucket: Algorithm, who: Who, left: float) -> None:
    decision = Decision(left, 3.0, 0.0, None)
    assert Wording(policy(bucket, who)).alone(decision, NOW) == anew(bucket, who, decision, NOW)
