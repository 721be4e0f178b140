"""The laws of the two algorithms, and the controller's own windows as recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.ratelimit import ROUNDING, Algorithm, FixedWindow, Gcra, stagger

NOW = 1_800_000_000.0
RECORDED = Path(__file__).parents[2] / "../shared/recordings/ratelimit.jsonl"

amounts = st.integers(1, 10_000)
windows = st.sampled_from([0.5, 1.0, 7.0, 60.0, 3600.0])
algorithms: st.SearchStrategy[Algorithm] = st.one_of(
    st.builds(Gcra, amounts, windows, st.one_of(st.none(), amounts)), st.builds(FixedWindow, amounts, windows)
)
costs = st.one_of(st.just(1.0), st.floats(0, 100, allow_nan=False, width=16), st.floats(0, 20_000, allow_nan=False))
steps = st.lists(st.tuples(st.floats(0, 2000, allow_nan=False, width=32), costs), min_size=1, max_size=60)


def run(bucket: Algorithm, calls: list[tuple[float, float]]) -> list[tuple[float, float, bool]]:
    """(time, charged units, allowed) of calls given as (seconds since the last one, cost)."""
    state: Any = None
    now, seen = NOW, []
    for wait, cost in calls:
        now += wait
        decision = bucket.decide(state, now, cost, "somebody")
        state = decision.state
        seen.append((now, min(cost, bucket.quota) if decision.allowed else 0.0, decision.allowed))
    return seen


def test_gcra_lets_the_burst_pass_at_once_and_then_one_unit_an_interval() -> None:
    bucket, state, remaining = Gcra(5, 60.0), None, []
    for _ in range(5):
        decision = bucket.decide(state, NOW, 1)
        assert decision.allowed
        state = decision.state
        remaining.append(int(decision.remaining))
    assert remaining == [4, 3, 2, 1, 0]
    refused = bucket.decide(state, NOW, 1)
    assert not refused.allowed
    assert refused.retry_after == pytest.approx(12.0)
    assert refused.reset_after == pytest.approx(60.0)
    assert bucket.decide(state, NOW + 12.0, 1).allowed


@pytest.mark.parametrize("limit", [3, 7, 1000, 999_983], ids=str)
def test_gcra_gives_every_unit_of_the_burst_though_floats_are_not_exact(limit: int) -> None:
    bucket, state = Gcra(limit, 60.0), None
    for _ in range(min(limit, 2000)):
        decision = bucket.decide(state, NOW, max(1, limit / 2000))
        assert decision.allowed
        state = decision.state


def test_gcra_burst_is_apart_from_the_rate() -> None:
    bucket, state = Gcra(60, 60.0, burst=2), None
    allowed = []
    for second in (0, 0, 0, 1, 1, 2):
        decision = bucket.decide(state, NOW + second, 1)
        state = decision.state
        allowed.append(decision.allowed)
    assert allowed == [True, True, False, True, False, True]


@given(algorithms, steps)
@settings(max_examples=150)
def test_gcra_and_window_never_let_more_pass_than_their_law_says(bucket: Algorithm, calls: list) -> None:
    seen = run(bucket, calls)
    for first in range(len(seen)):
        taken = 0.0
        for now, units, _ in seen[first:]:
            taken += units
            elapsed = now - seen[first][0]
            if isinstance(bucket, Gcra):
                bound = bucket.quota + (elapsed + 2 * ROUNDING) * bucket.limit / bucket.window
            else:
                bound = bucket.limit * (2 + elapsed // bucket.window)
            assert taken <= bound * (1 + 1e-9) + 1e-3


@given(st.builds(FixedWindow, amounts, windows), steps)
@settings(max_examples=100)
def test_window_never_lets_more_pass_in_one_window_than_its_limit(bucket: FixedWindow, calls: list) -> None:
    taken: dict[float, float] = {}
    for now, units, _ in run(bucket, calls):
        start = stagger("somebody", now, bucket.window)
        taken[start] = taken.get(start, 0.0) + units
    assert all(units <= bucket.limit * (1 + 1e-9) for units in taken.values())


@given(algorithms, steps, costs)
@settings(max_examples=200)
def test_retry_after_is_when_the_request_passes_and_not_before(bucket: Algorithm, calls: list, cost: float) -> None:
    state: Any = None
    now = NOW
    for wait, taken in calls:
        now += wait
        state = bucket.decide(state, now, taken, "somebody").state
    decision = bucket.decide(state, now, cost, "somebody")
    if decision.allowed:
        return
    assert decision.retry_after > 0
    assert bucket.decide(state, now + decision.retry_after + ROUNDING, cost, "somebody").allowed
    if decision.retry_after > 4 * ROUNDING:
        assert not bucket.decide(state, now + decision.retry_after - 3 * ROUNDING, cost, "somebody").allowed
        assert not bucket.decide(state, now + decision.retry_after / 2, cost, "somebody").allowed


@given(algorithms, steps, costs, costs, st.floats(0, 1000, allow_nan=False))
@settings(max_examples=150)
def test_monotone_dearer_is_no_easier_and_waiting_never_hurts(
    bucket: Algorithm, calls: list, cost: float, more: float, wait: float
) -> None:
    state: Any = None
    now = NOW
    for step, taken in calls:
        now += step
        state = bucket.decide(state, now, taken, "somebody").state
    cheap, dear = (bucket.decide(state, now, units, "somebody") for units in (cost, cost + more))
    assert cheap.allowed or not dear.allowed
    assert cheap.retry_after <= dear.retry_after + 1e-6
    later = bucket.decide(state, now + wait, cost, "somebody")
    assert later.allowed or not cheap.allowed
    before, after = (bucket.decide(state, moment, 0, "somebody").remaining for moment in (now, now + wait))
    assert after >= before - 1e-3


@given(algorithms, steps)
@settings(max_examples=100)
def test_cost_0_is_free_and_always_allowed(bucket: Algorithm, calls: list) -> None:
    state: Any = None
    now = NOW
    for wait, cost in calls:
        now += wait
        state = bucket.decide(state, now, cost, "somebody").state
        looked = bucket.decide(state, now, 0, "somebody")
        assert looked.allowed
        assert bucket.decide(looked.state, now, cost, "somebody")[:3] == pytest.approx(
            bucket.decide(state, now, cost, "somebody")[:3]
        )


def test_a_bucket_nobody_touched_needs_no_entry() -> None:
    for bucket in (Gcra(5, 60.0), FixedWindow(5, 60.0)):
        assert bucket.decide(None, NOW, 0, "x").state is None
        state = bucket.decide(None, NOW, 1, "x").state
        assert not bucket.idle(state, NOW)
        assert bucket.idle(state, NOW + bucket.span)


@given(algorithms, steps, st.floats(0, 1e8, allow_nan=False))
@settings(max_examples=150)
def test_a_clock_set_back_gives_nothing_away_and_locks_nobody_out(bucket: Algorithm, calls: list, back: float) -> None:
    state: Any = None
    now = NOW
    for wait, cost in calls:
        now += wait
        state = bucket.decide(state, now, cost, "somebody").state
    before = bucket.decide(state, now, 0, "somebody")
    after = bucket.decide(state, now - back, 0, "somebody")
    assert after.remaining <= before.remaining + 1e-3, "nothing given away"
    assert after.reset_after <= bucket.span + 2 * ROUNDING, "full again as soon as an emptied bucket"
    assert bucket.decide(after.state, now - back + bucket.span + 2 * ROUNDING, bucket.quota, "somebody").allowed


def test_what_costs_more_than_a_bucket_holds_passes_when_it_is_full() -> None:
    bucket = Gcra(10, 10.0)
    emptied = bucket.decide(None, NOW, 5000)
    assert emptied.allowed
    again = bucket.decide(emptied.state, NOW + 4, 5000)
    assert not again.allowed
    assert again.retry_after == pytest.approx(6.0)
    assert bucket.decide(emptied.state, NOW + 10, 5000).allowed


@pytest.mark.parametrize("faulty", [(0, 1, None), (1, 0, None), (1, 1, 0), (-1, 1, None)], ids=str)
def test_a_limit_of_nothing_is_no_limit(faulty: tuple) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Gcra(*faulty)
    with pytest.raises(ValueError, match="above 0"):
        FixedWindow(*((faulty[0], faulty[1]) if faulty[2] is None else (0, 1)))


def test_window_begins_where_the_hash_says_controller_md_3() -> None:
    offset = int(hashlib.md5(b"b0000000-0000-4000-8000-000000000001").hexdigest(), 16) % 60
    start = stagger("b0000000-0000-4000-8000-000000000001", NOW + 33.3, 60.0)
    assert start % 60 == offset
    assert start <= NOW + 33.3 < start + 60


def recorded_windows() -> list[tuple[str, int]]:
    world = json.loads((RECORDED.parent / "world.json").read_text())["principals"]
    found = set()
    for line in RECORDED.read_text().splitlines():
        row = json.loads(line)
        fields = dict(row["response"]["headers"])
        if "X-RateLimit-Reset" not in fields:
            continue
        if fields["X-RateLimit-Limit"] == "5":
            claims = world[row["principal"]]
            claims = claims.get("claims", claims)
            subject = claims.get("user_id") or claims["client_id"]
        else:
            forwarded = dict(row["request"]["headers"]).get("X-Forwarded-For", "127.0.0.1")
            subject = forwarded.split(",")[0]
        found.add((subject, int(fields["X-RateLimit-Reset"])))
    return sorted(found)


def test_window_ends_when_the_recorded_controller_said_it_would() -> None:
    if not RECORDED.exists():
        pytest.skip("recordings not beside the checkout")
    rows = recorded_windows()
    assert len(rows) > 10
    for subject, reset in rows:
        decision = FixedWindow(5, 60.0).decide(None, reset - 12.5, 1, subject)
        assert decision.reset_after == 12.5, subject
        assert decision.remaining == 4
