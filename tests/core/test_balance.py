"""Which endpoint is chosen, and when one is passed over."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balance import EjectionPolicy, Health, Standing, choose

GOOD, DOUBTFUL, SHUT = Standing.GOOD, Standing.DOUBTFUL, Standing.SHUT


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], None),
        ([(GOOD, 7)], 0),
        ([(SHUT, 0)], None),
        ([(GOOD, 2), (GOOD, 1)], 1),
        ([(DOUBTFUL, 0), (GOOD, 9)], 1),
        ([(DOUBTFUL, 3), (DOUBTFUL, 2), (SHUT, 0)], 1),
    ],
    ids=["none", "one", "shut", "least loaded", "good before idle", "doubtful when there is no good one"],
)
def test_choice(candidates: list[tuple[Standing, int]], chosen: int | None) -> None:
    assert choose(candidates, 0) == chosen


@given(st.lists(st.tuples(st.sampled_from(Standing), st.integers(0, 5)), max_size=8), st.integers(0, 1000))
def test_nobody_stands_better_or_has_less_to_do(candidates: list[tuple[Standing, int]], turn: int) -> None:
    place = choose(candidates, turn)
    usable = [candidate for candidate in candidates if candidate[0] is not SHUT]
    assert (place is None) == (not usable)
    if place is not None:
        assert candidates[place] == min(usable)


@given(st.integers(1, 6), st.integers(1, 5))
def test_equals_are_taken_in_turns(count: int, rounds: int) -> None:
    chosen = Counter(choose([(GOOD, 0)] * count, turn) for turn in range(count * rounds))
    assert chosen == dict.fromkeys(range(count), rounds)


POLICY = EjectionPolicy(failures=3, rest=5, longest=20, probes=2)


def fail(health: Health, now: float) -> None:
    for _ in range(2):
        assert not health.failed(now)
    assert health.failed(now)
    health.eject(now)


def test_so_many_failures_in_a_row_eject_for_a_while_and_longer_each_time() -> None:
    health, now = Health(POLICY), 0.0
    for rest in (5, 10, 20, 20):
        assert health.good(now)
        fail(health, now)
        assert not health.good(now + rest - 0.1)
        now += rest
        assert health.good(now)
    assert health.ejections == 4


def test_a_success_between_them_begins_anew() -> None:
    health = Health(POLICY)
    for _ in range(9):
        assert not health.failed(0)
        assert not health.failed(0)
        health.succeeded()


def test_a_long_quiet_time_is_a_new_beginning() -> None:
    health = Health(POLICY)
    for now in (0, 5, 15 + POLICY.longest):
        fail(health, now)
    assert health.good(15 + POLICY.longest + POLICY.rest)


def test_what_was_not_ejected_for_want_of_others_is_as_soon_as_there_are() -> None:
    health = Health(POLICY)
    assert [health.failed(0) for _ in range(5)] == [False, False, True, True, True]
    assert health.good(0)


def test_what_fails_while_it_is_ejected_is_not_ejected_again() -> None:
    health = Health(POLICY)
    fail(health, 0)
    assert not any(health.failed(1) for _ in range(9))


def test_a_pardon_ends_it() -> None:
    health = Health(POLICY)
    fail(health, 0)
    health.pardon()
    assert health.good(0)


def test_probes() -> None:
    health = Health(POLICY)
    health.probed(answered=False)
    assert health.good(0)
    health.probed(answered=False)
    assert not health.good(0)
    health.probed(answered=True)
    assert health.good(0)
