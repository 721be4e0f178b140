"""The circuit breaker's laws, over any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import Breaker, BreakerPolicy, Outcome, SlidingWindow, State

POLICY = BreakerPolicy(window=10, minimum=4, ratio=0.5, rest=2, longest=16, trials=2)


def ask(breaker: Breaker, now: float, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        assert breaker.admits(now)
        breaker.end(breaker.begin(now), outcome, now)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    ask(breaker, now, *[Outcome.FAILURE] * 4)
    assert breaker.state(now) is State.OPEN
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("fff", State.CLOSED),
        ("ffff", State.OPEN),
        ("ssff", State.OPEN),
        ("sssff", State.CLOSED),
        ("sssfff", State.OPEN),
        ("nnnnnnff", State.CLOSED),
        ("ssssssss", State.CLOSED),
    ],
)
def test_it_opens_by_ratio_and_volume(outcomes: str, state: State) -> None:
    breaker = Breaker(POLICY)
    kinds = {"s": Outcome.SUCCESS, "f": Outcome.FAILURE, "n": Outcome.NEUTRAL}
    ask(breaker, 0, *(kinds[outcome] for outcome in outcomes))
    assert breaker.state(0) is state


def test_old_outcomes_do_not_count() -> None:
    breaker = Breaker(POLICY)
    ask(breaker, 0, *[Outcome.FAILURE] * 3)
    ask(breaker, 11, Outcome.FAILURE)
    assert breaker.state(11) is State.CLOSED


def test_open_lets_nothing_pass_and_says_for_how_long() -> None:
    breaker = opened()
    assert (breaker.admits(1.5), breaker.wait(1.5)) == (False, 0.5)
    assert (breaker.admits(2), breaker.wait(2), breaker.state(2)) == (True, 0, State.HALF_OPEN)


def test_half_open_lets_a_few_pass_and_the_first_success_closes_it() -> None:
    breaker = opened()
    first, second = breaker.begin(2), breaker.begin(2)
    assert not breaker.admits(2)
    breaker.end(first, Outcome.SUCCESS, 3)
    assert breaker.state(3) is State.CLOSED
    breaker.end(second, Outcome.FAILURE, 3)
    assert breaker.state(3) is State.CLOSED, "it began before"


def test_a_trial_that_says_nothing_gives_its_place_back() -> None:
    breaker = opened()
    tickets = [breaker.begin(2), breaker.begin(2)]
    breaker.end(tickets[0], Outcome.NEUTRAL, 2)
    assert breaker.admits(2)


def test_each_time_it_opens_again_soon_it_stays_open_twice_as_long() -> None:
    breaker, now = opened(), 0.0
    for rest in (2, 4, 8, 16, 16, 16):
        assert breaker.wait(now) == rest
        now += rest
        ask(breaker, now, Outcome.FAILURE)
    assert breaker.opened == 7


def test_a_long_quiet_time_is_a_new_beginning() -> None:
    breaker = opened()
    ask(breaker, 2, Outcome.FAILURE)
    ask(breaker, 6, Outcome.SUCCESS)
    ask(breaker, 6 + POLICY.longest, *[Outcome.FAILURE] * 4)
    assert breaker.wait(6 + POLICY.longest) == POLICY.rest


def test_what_began_before_it_opened_says_nothing_after() -> None:
    breaker = Breaker(POLICY)
    late = [breaker.begin(0) for _ in range(8)]
    ask(breaker, 0, *[Outcome.FAILURE] * 4)
    for ticket in late:
        breaker.end(ticket, Outcome.FAILURE, 1)
    assert (breaker.opened, breaker.wait(1)) == (1, 1)


steps = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.sampled_from(["begin", *Outcome])), min_size=1, max_size=80
)


@given(steps)
def test_over_any_history(history: list[tuple[float, str | Outcome]]) -> None:
    """It never hangs: whatever came before, it admits one when its time has come and its trials are over; half-open
    never has more than its trials under way; it never stays open longer than the longest."""
    breaker, now = Breaker(POLICY), 0.0
    under_way: list[tuple[int, State]] = []
    for pause, step in history:
        now += pause
        assert breaker.wait(now) <= POLICY.longest
        assert breaker.admits(now) or breaker.state(now) is not State.CLOSED
        if step == "begin":
            if breaker.admits(now):
                ticket = breaker.begin(now)
                under_way.append((ticket, breaker.state(now)))
        elif under_way:
            breaker.end(under_way.pop(0)[0], step, now)
        if breaker.state(now) is State.HALF_OPEN and under_way:
            newest = max(ticket for ticket, _ in under_way)
            trials = [one for one in under_way if one == (newest, State.HALF_OPEN)]
            assert len(trials) <= POLICY.trials
    for ticket, _ in under_way:
        breaker.end(ticket, Outcome.NEUTRAL, now)
    assert breaker.admits(now + breaker.wait(now))


@given(st.lists(st.tuples(st.floats(0, 3, allow_nan=False), st.booleans()), max_size=100))
def test_the_window_counts_what_is_young_and_nothing_that_is_old(outcomes: list[tuple[float, bool]]) -> None:
    window, now = SlidingWindow(10.0), 0.0
    times: list[tuple[float, bool]] = []
    for pause, failed in outcomes:
        now += pause
        window.add(now, failed=failed)
        times.append((now, failed))
    total, failures = window.counts(now)
    young = [failed for at, failed in times if now - at < 9]
    possible = [failed for at, failed in times if now - at <= 10]
    assert len(young) <= total <= len(possible)
    assert sum(young) <= failures <= sum(possible)
