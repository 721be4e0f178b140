"""Two looks at /metrics and what happened between them, against prometheus_client's own exposition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.live.samples import Change, Snapshot


class Source:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests_total", "x", ("route", "code"), registry=self.registry)
        self.seconds = Histogram("seconds", "x", ("route",), buckets=(0.1, 0.2, 0.4), registry=self.registry)
        self.level = Gauge("level", "x", ("part",), registry=self.registry)

    def look(self, at: float) -> Snapshot:
        return Snapshot.parse(generate_latest(self.registry).decode(), at)


def test_rates_are_by_second_and_by_label() -> None:
    source = Source()
    source.requests.labels("/a", "200").inc(5)
    before = source.look(10)
    source.requests.labels("/a", "200").inc(8)
    source.requests.labels("/b", "500").inc(2)  # a series that was not there before counts from 0
    change = Change(before, source.look(14))
    assert change.rate("requests_total") == 2.5
    assert change.rate("requests_total", route="/a") == 2.0
    assert change.rates("requests_total", "code") == {"200": 2.0, "500": 0.5}
    assert change.rates("requests_total", "code", route="/b") == {"500": 0.5}
    assert change.rate("nothing_total") == 0


def test_a_counter_that_began_anew_counts_from_nothing() -> None:
    old, new = Source(), Source()
    old.requests.labels("/a", "200").inc(100)
    new.requests.labels("/a", "200").inc(3)
    assert Change(old.look(0), new.look(1)).increase("requests_total") == 3


def test_gauges_add_up_or_show_their_worst() -> None:
    source = Source()
    source.level.labels("x").set(2)
    source.level.labels("y").set(5)
    now = source.look(0)
    assert (now.total("level"), now.total("level", part="x"), now.worst("level")) == (7, 2, 5)
    assert now.worst("nothing") is None


@pytest.mark.parametrize(
    ("observed", "share", "expected"),
    [
        ([0.05] * 10, 0.5, 0.05),
        ([0.05] * 5 + [0.15] * 5, 0.5, 0.1),
        ([0.05] * 5 + [0.15] * 5, 1.0, 0.2),
        ([9.0], 0.5, 0.4),  # beyond the last bound nothing better is known
        ([], 0.5, None),
    ],
)
def test_quantiles_are_straight_within_a_bucket(observed: list[float], share: float, expected: float | None) -> None:
    source = Source()
    source.seconds.labels("/a").observe(0.3)
    before = source.look(0)
    for value in observed:
        source.seconds.labels("/a").observe(value)
    found = Change(before, source.look(1)).quantile("seconds", share)
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    source = Source()
    before = source.look(0)
    for value in observed:
        source.seconds.labels("/a").observe(value)
    found = Change(before, source.look(1)).quantile("seconds", share)
    true = sorted(observed)[max(0, math.ceil(share * len(observed) - 1e-9) - 1)]
    bounds = [0.1, 0.2, 0.4]
    lower = max((bound for bound in bounds if bound < true), default=0.0)
    upper = min((bound for bound in bounds if bound >= true), default=0.4)
    assert found is not None
    assert lower - 1e-9 <= found <= upper + 1e-9


def test_a_mean_is_of_the_interval_alone() -> None:
    source = Source()
    source.seconds.labels("/a").observe(100)
    before = source.look(0)
    source.seconds.labels("/a").observe(0.1)
    source.seconds.labels("/b").observe(0.3)
    change = Change(before, source.look(1))
    assert change.mean("seconds") == pytest.approx(0.2)
    assert change.mean("seconds", route="/b") == pytest.approx(0.3)
    assert change.mean("seconds", route="/c") is None


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        Snapshot.parse("<html>no metrics</html>", 0)
