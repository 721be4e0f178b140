"""The adaptive limit's laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.concurrency import AdaptiveLimit, LimitPolicy, MovingMinimum

POLICY = LimitPolicy(initial=50, least=4, most=100, tolerance=3.0, window=600.0, floor=0.05)


def batch(limit: AdaptiveLimit, now: float, *seconds: float, kind: str = "list", failed: bool = False) -> int:
    """A whole batch of answers that took so long, repeated; returns the limit after it."""
    for number in range(16):
        limit.sample(kind, now, now + seconds[number % len(seconds)], failed=failed)
    return int(limit)


def test_it_shrinks_when_latency_rises_and_grows_back_when_it_falls() -> None:
    limit = AdaptiveLimit(POLICY)
    assert batch(limit, 0, 0.1) == 51
    shrunk = [batch(limit, now, 1.0) for now in range(10, 50, 2)]
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[-1] == POLICY.least
    grown = [batch(limit, now, 0.1) for now in range(60, 300, 2)]
    assert grown == sorted(grown)
    assert grown[-1] == POLICY.most


@pytest.mark.parametrize(
    ("seconds", "moved"),
    [
        ((0.1,), 1),
        ((0.29,), 1),
        ((0.1, 0.1, 0.1, 9.0), 1),
        ((0.9,), -1),
        ((0.9, 0.9, 0.9, 0.1), -1),
        ((0.1, 0.4, 0.1), 1),
        ((0.4, 0.4, 0.1), -1),
        ((0.1, 0.2, 0.39, 9.0), 1),
        ((0.1, 0.2, 0.41, 9.0), -1),
    ],
    ids=[
        *("as ever", "within the tolerance", "a few outliers", "slow", "mostly slow"),
        *("one of three", "two of three", "between the middle two, not above", "above"),
    ],
)
def test_the_median_decides(seconds: tuple[float, ...], moved: int) -> None:
    limit = AdaptiveLimit(POLICY)
    before = batch(limit, 0, 0.1)
    after = batch(limit, 10, *seconds)
    assert (after > before) - (after < before) == moved


def test_each_kind_is_held_against_its_own_kind() -> None:
    """A page of 5,000 rows is not slow for being slower than `GET /v3/info`."""
    limit = AdaptiveLimit(POLICY)
    batch(limit, 0, 0.1, kind="info")
    assert batch(limit, 10, 8.0, kind="big list") == 52
    assert batch(limit, 30, 8.0, kind="info") < 52


def test_what_is_faster_than_the_floor_is_all_the_same() -> None:
    limit = AdaptiveLimit(POLICY)
    batch(limit, 0, 0.001)
    assert batch(limit, 10, 0.04) == 52


def test_failures_halve_it() -> None:
    limit = AdaptiveLimit(POLICY)
    assert batch(limit, 0, 0.1, failed=True) == 25


def test_what_was_sent_before_it_shrank_says_nothing_after() -> None:
    limit = AdaptiveLimit(POLICY)
    batch(limit, 0, 0.1)
    for _ in range(200):
        limit.sample("list", 5.0, 6.0)
    assert int(limit) == int(51 * 0.5)


def test_a_few_requests_a_minute_move_it_too() -> None:
    limit = AdaptiveLimit(POLICY)
    for minute in range(20):
        limit.sample("list", minute * 60.0, minute * 60.0 + 0.1)
    assert int(limit) == 60


def test_what_is_slow_for_long_is_the_new_measure() -> None:
    limit = AdaptiveLimit(POLICY)
    batch(limit, 0, 0.1)
    for now in range(10, 2000, 5):
        batch(limit, now, 1.0)
    assert int(limit) > 50


@given(st.floats(1, 100), st.lists(st.tuples(st.floats(0, 50), st.floats(0.001, 100)), min_size=1, max_size=60))
def test_the_moving_minimum_forgets_after_its_window_and_not_before_half(
    window: float, steps: list[tuple[float, float]]
) -> None:
    minimum, now = MovingMinimum(window), 0.0
    seen: list[tuple[float, float]] = []
    for pause, value in steps:
        now += pause
        seen.append((now, value))
        least = minimum.least(value, now)
        assert least <= min(value for at, value in seen if now - at < window / 2 * 0.999)
        assert least >= min(value for at, value in seen if now - at <= window * 1.001)


@given(
    st.integers(1, 300),
    st.integers(1, 50),
    st.integers(50, 200),
    st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(0, 2), st.floats(0, 60, allow_subnormal=False), st.booleans()),
        max_size=200,
    ),
)
def test_it_stays_within_its_bounds_whatever_comes(
    initial: int, least: int, most: int, samples: list[tuple[str, float, float, bool]]
) -> None:
    limit = AdaptiveLimit(LimitPolicy(initial=initial, least=least, most=most))
    now = 0.0
    for kind, pause, seconds, failed in samples:
        now += pause
        limit.sample(kind, now, now + seconds, failed=failed)
        assert least <= int(limit) <= most
