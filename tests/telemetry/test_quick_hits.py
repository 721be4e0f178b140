"""Hits counted by the short way come to what all of them told to everybody would have come to."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.errors import Reason
from gateway.core.keys import CacheKey
from gateway.core.model import Fields, PrincipalKind, RequestHead, Target
from gateway.core.visibility import make_principal
from gateway.pipeline.decision import decision
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Verdict
from gateway.telemetry.decisions import Decisions
from gateway.telemetry.log import AccessLog
from gateway.telemetry.metrics import AGES, OVERHEAD, QUICK, SECONDS, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

BEGAN = 1000.0
INVALID = Reason.INVALID_TOKEN
TRACE = "0af7651916cd43dd8448eb211c80319c"
PEOPLE = [
    make_principal(
        kind=PrincipalKind.USER,
        principal_id=name,
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(),
        expires=2**40,
    )
    for name in ("one", "two")
]


def page(stored_at: float, fetch_seconds: float) -> Entry:
    key = CacheKey("public", "/v3/processes", "", "json")
    return Entry(key, Fields(), b"{}", '"e"', stored_at, 2**40, 2**40, 2**40, (), fetch_seconds)


def standing(path: str, entry: Entry, *, sampled: bool = False) -> Exchange:
    """The exchange of a hit that stands, as the lane uses it again and again."""
    fields = Fields([("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")] if sampled else [])
    one = Exchange(RequestHead("GET", Target(path), fields), request_id="r", received_at=BEGAN)
    one.route, one.status, one.verdict, one.entry = CLOUD_FOUNDRY.match("GET", path), 200, Verdict.HIT, entry
    one.principal = PEOPLE[0]
    one.like = decision(one, complete=True, seconds=0.0)
    return one


def refused(path: str) -> Exchange:
    """The exchange of a refusal that stands."""
    one = Exchange(RequestHead("GET", Target(path), Fields()), request_id="r", received_at=BEGAN)
    one.route, one.status, one.denied, one.token_fault = CLOUD_FOUNDRY.match("GET", path), 401, INVALID, "expired"
    one.like = decision(one, complete=True, seconds=0.0)
    return one


class Side:
    """Recorders, and the hits that stand before them."""

    def __init__(self, *, quick: bool, kept: int = 20, sample: float = 0.0, **more: Any) -> None:
        self.metrics = Metrics("0")
        self.log = AccessLog(self.metrics, sample=sample, **more)
        self.decisions = Decisions(self.log, kept, quick=quick)
        self.hits = [
            standing("/v3/processes", page(BEGAN - 0.25, 0.125)),
            standing("/v3/processes", page(BEGAN - 4.0, 0.5)),
            standing("/v3/apps", page(BEGAN - 60.0, 2.0), sampled=True),
            refused("/v3/processes"),
        ]

    def hit(self, which: int, at: float, seconds: float, **known: object) -> None:
        one = self.hits[which]
        one.received_at, one.limited = at, ()
        for name, value in known.items():
            setattr(one, name, value)
        self.decisions.again(one, seconds)

    def everything(self) -> dict[tuple[Any, ...], tuple[float, object]]:
        """All that is exposed, exemplars too."""
        return {
            (sample.name, *sorted(sample.labels.items())): (sample.value, sample.exemplar)
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name.startswith("gateway_")
        }

    def newest(self) -> list[dict[str, Any]]:
        return asyncio.run(self.decisions.newest(100, {}))


@dataclass(frozen=True)
class Step:
    """One request: what it found and how long it took."""

    which: int
    later: float
    seconds: float
    refreshed: bool
    limited: bool
    person: int
    read: bool


# Sums of these have no error, in whatever order they are added up.
EXACT = 2.0**-20
durations = st.one_of(st.integers(0, 40), st.integers(-5, 10**6)).map(lambda number: number * EXACT)
steps = st.builds(
    Step,
    which=st.integers(0, 3),
    later=st.one_of(st.integers(0, 1000), st.integers(-1000, 2**22)).map(lambda number: number * EXACT),
    seconds=durations,
    refreshed=st.sampled_from([False] * 9 + [True]),
    limited=st.sampled_from([False] * 9 + [True]),
    person=st.integers(0, 1),
    read=st.sampled_from([False] * 9 + [True]),
)


@given(st.lists(steps, min_size=1, max_size=120))
def test_counters_exemplars_and_decisions_are_the_same_either_way(walk: list[Step]) -> None:
    quick, plain = Side(quick=True), Side(quick=False)
    quick.log.written = False
    now = BEGAN
    for number, step in enumerate(walk):
        now += step.later
        for side in (quick, plain):
            if step.refreshed and (entry := side.hits[step.which].entry) is not None:
                side.hits[step.which].entry = replace(entry, stored_at=now, fetch_seconds=0.25)
            known = {"request_id": f"r{number}", "principal": PEOPLE[step.person] if step.which < 3 else None}
            side.hit(step.which, now, step.seconds, limited=("users",) if step.limited else (), **known)
        if step.read:
            assert quick.everything() == plain.everything()
    assert quick.everything() == plain.everything()
    assert quick.newest() == plain.newest()


@pytest.mark.parametrize("age", [*AGES, *(math.nextafter(bound, math.inf) for bound in AGES), 0.0, 1e6])
def test_every_bound_of_ages_is_where_it_was(age: float) -> None:
    quick, plain = Side(quick=True), Side(quick=False)
    for side in (quick, plain):
        entry = page(0.0, 0.5)
        side.hits[0].entry = entry
        for _ in range(3):
            side.hit(0, age, QUICK)
    assert quick.everything() == plain.everything()


def test_what_is_counted_here_is_in_the_first_bucket_of_either() -> None:
    assert min(SECONDS[0], OVERHEAD[0]) == QUICK


def told(side: Side, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the metrics were told of a hit."""
    count = 0
    again = side.metrics.again

    def counting(exchange: Exchange, seconds: float) -> None:
        nonlocal count
        count += 1
        again(exchange, seconds)

    monkeypatch.setattr(side.metrics, "again", counting)
    side.log = AccessLog(side.metrics, sample=0.0)
    return lambda: count


@pytest.mark.parametrize(("quick", "times"), [(True, 1), (False, 1000)], ids=["short", "somebody must see each"])
def test_who_comes_after_is_told_of_the_first(quick: bool, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side(quick=quick)
    count = told(side, monkeypatch)
    side.decisions = Decisions(side.log, 0, quick=quick)
    for number in range(1000):
        side.hit(0, BEGAN + number * EXACT, EXACT)
    assert count() == times
    total = {name: value for name, (value, _) in side.everything().items() if name[0] == "gateway_requests_total"}
    assert list(total.values()) == [1000]
    assert side.newest() == []


def test_pages_of_other_ages_between_them_are_counted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side(quick=True)
    count = told(side, monkeypatch)
    side.decisions = Decisions(side.log, 10, quick=True)
    for number in range(100):
        side.hit(number % 2, BEGAN + number * EXACT, EXACT)
    assert count() == 2
    ages = "gateway_cache_served_age_seconds_bucket"
    assert [side.everything()[ages, ("cache", "hit"), ("le", bound)][0] for bound in ("0.5", "2.5", "5.0")] == [
        50,
        50,
        100,
    ]


@pytest.mark.parametrize(
    ("seconds", "at", "known"),
    [
        (2 * QUICK, BEGAN + EXACT, {}),
        (-EXACT, BEGAN + EXACT, {}),
        (EXACT, BEGAN + 1.0, {}),
        (EXACT, BEGAN - 1.0, {}),
        (EXACT, BEGAN + EXACT, {"limited": ("users",)}),
    ],
    ids=["slow", "clock set back", "older", "younger than its page", "over a limit in shadow mode"],
)
def test_whatever_is_more_than_one_more_is_told(
    seconds: float, at: float, known: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(quick=True)
    count = told(side, monkeypatch)
    side.decisions = Decisions(side.log, 10, quick=True)
    side.hit(0, BEGAN, EXACT)
    side.hit(0, at, seconds, **known)
    assert count() == 2


@pytest.mark.parametrize(
    ("written", "known", "times"),
    [(False, {}, 1), (True, {}, 50), (False, {"limited": ("users",)}, 50)],
    ids=["no lines", "each has a line", "over a limit in shadow mode"],
)
def test_refusals_are_counted_here_where_they_have_no_lines(
    written: bool, known: dict[str, object], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(quick=True)
    count = told(side, monkeypatch)
    side.log.written = written
    side.decisions = Decisions(side.log, 10, quick=True)
    for number in range(50):
        side.hit(3, BEGAN + number * EXACT, EXACT, **known)
    assert count() == times
    everything = side.everything()
    durations = ("gateway_request_duration_seconds_count", "gateway_overhead_seconds_count")
    for name in ("gateway_requests_total", "gateway_denials_total", "gateway_auth_decisions_total", *durations):
        assert sum(value for key, (value, _) in everything.items() if key[0] == name) == 50
    assert [one["denied"] for one in side.newest()] == ["invalid-token"] * 10


def lines(side: Side, hits: int) -> list[int]:
    """Which hits have a line."""
    written = []
    with capture_logs() as logs:
        for number in range(hits):
            before = len(logs)
            side.hit(0, BEGAN, EXACT, request_id=str(number))
            written += [number] * (len(logs) - before)
    assert [log["request_id"] for log in logs] == [str(number) for number in written]
    return written


@pytest.mark.parametrize("quick", [True, False])
def test_lines_of_hits_are_as_far_apart_as_dice_would_have_them(quick: bool) -> None:
    share, hits = 0.05, 40_000
    written = lines(Side(quick=quick, sample=share, chance=random.Random(7).random), hits)
    gaps = [later - earlier for earlier, later in pairwise(written)]
    assert abs(len(written) - hits * share) < 5 * math.sqrt(hits * share * (1 - share))
    for apart in (1, 2, 5, 20):  # P(gap > n) = (1 - share)ⁿ
        expected = (1 - share) ** apart
        assert abs(sum(gap > apart for gap in gaps) / len(gaps) - expected) < 5 * math.sqrt(0.25 / len(gaps))


def test_all_or_no_hits_have_a_line() -> None:
    assert lines(Side(quick=True, sample=1.0), 300) == list(range(300))
    assert lines(Side(quick=True, sample=0.0), 300) == []
    assert lines(Side(quick=True, sample=5e-324), 300) == []
    assert lines(Side(quick=True, sample=0.5, chance=lambda: 1.0), 300) == []


def test_another_share_counts_from_the_next_hit_on() -> None:
    side = Side(quick=True, sample=0.0)
    assert lines(side, 10) == []
    side.log.resample(1.0)
    assert lines(side, 10) == list(range(10))
    side.log.resample(0.0)
    assert lines(side, 10) == []


def test_a_line_says_its_share() -> None:
    side = Side(quick=True, sample=0.5, chance=lambda: 0.6)  # log 0.4 / log 0.5: one is passed over
    with capture_logs() as logs:
        for _ in range(4):
            side.hit(0, BEGAN, EXACT)
    assert [log["sampled"] for log in logs] == [0.5, 0.5]


def test_the_ring_keeps_no_page_alive() -> None:
    side = Side(quick=True)
    side.hit(0, BEGAN, EXACT)
    side.hit(0, BEGAN, EXACT)
    parts = [part for row in side.decisions._ring for part in row]
    assert not any(isinstance(part, (Entry, Exchange)) for part in parts)


def test_only_the_last_are_kept() -> None:
    side = Side(quick=True, kept=3)
    for number in range(5):
        side.hit(0, BEGAN, EXACT, request_id=str(number))
    side.decisions.record(side.hits[1], complete=True, seconds=0.5)
    assert [one["request_id"] for one in side.newest()] == ["r", "4", "3"]
