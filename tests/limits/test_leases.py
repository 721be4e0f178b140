"""Leases: whatever order requests, reports and answers come in, no more passes than the documented bound."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra
from gateway.limits.leases import Bucket, Table, answered, lease_of, report, share_of, unanswered
from tests.limits.script import count

NOW = 1_800_000_000.0
ME = ("issuer", "zone", "me")


def policy(bucket: Algorithm) -> RatePolicy:
    return RatePolicy("one", Who.PRINCIPAL, bucket, frozenset({"list"}), Mode.ENFORCE)


@dataclass
class World:
    """Processes and the one store they report to."""

    rule: Algorithm
    processes: int
    lease: float = 10.0
    now: float = NOW
    store: str | None = None
    admitted: list[tuple[float, float]] = field(default_factory=list)
    under_way: dict[int, tuple[tuple[str, float, float, float], Bucket]] = field(default_factory=dict)
    answers: dict[int, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = [Table(policy(self.rule), 1000, self.lease, self.processes) for _ in range(self.processes)]

    def request(self, number: int, cost: float = 1.0) -> bool:
        table = self.tables[number]
        bucket = table.buckets.get(ME)
        verdict = table.judge(bucket, self.now, cost, "me")
        if verdict[0].retry_after:
            return False
        table.charge(ME, bucket, verdict, cost, self.now)
        self.admitted.append((self.now, min(cost, self.rule.quota)))
        return True

    def send(self, number: int) -> None:
        bucket = self.tables[number].buckets.get(ME)
        if bucket is not None and bucket.pending and number not in self.under_way:
            self.under_way[number] = report(bucket, self.now), bucket

    def arrive(self, number: int) -> None:
        """The store counts a report; its answer is on the way."""
        if number in self.under_way and number not in self.answers:
            told, _ = self.under_way[number]
            self.store, first, second = count(self.store, self.now, *told)
            self.answers[number] = first, second

    def hear(self, number: int) -> None:
        self.arrive(number)
        if number in self.answers:
            _, bucket = self.under_way.pop(number)
            answered(bucket, *self.answers.pop(number), self.now)

    def lose(self, number: int) -> None:
        """The report or its answer gets lost."""
        if number in self.under_way:
            _, bucket = self.under_way.pop(number)
            self.answers.pop(number, None)
            unanswered(bucket)

    def exchange(self) -> None:
        """Everybody is told everything."""
        for number in range(self.processes):
            self.hear(number)
        for number in range(self.processes):
            self.send(number)
            self.hear(number)

    def total(self) -> float:
        return sum(units for _, units in self.admitted)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 7)),
        st.tuples(st.just("burst"), st.integers(0, 7)),
        st.tuples(st.just("send"), st.integers(0, 7)),
        st.tuples(st.just("arrive"), st.integers(0, 7)),
        st.tuples(st.just("hear"), st.integers(0, 7)),
        st.tuples(st.just("lose"), st.integers(0, 7)),
        st.tuples(st.just("wait"), st.integers(1, 4000)),
    ),
    max_size=150,
)
rules = st.one_of(
    st.builds(Gcra, st.integers(1, 400), st.sampled_from([1.0, 7.0, 60.0]), st.one_of(st.none(), st.integers(1, 300))),
    st.builds(FixedWindow, st.integers(1, 400), st.sampled_from([1.0, 7.0, 60.0])),
)


@given(rules, st.integers(1, 8), steps)
@settings(max_examples=400, deadline=None)
def test_no_interleaving_admits_more_than_the_bound(
    rule: Algorithm, processes: int, calls: list[tuple[str, int]]
) -> None:
    """Reports may be late, lost, counted without an answer: the worst case, with a store that need not answer."""
    world = World(rule, processes)
    for kind, number in calls:
        if kind == "wait":
            world.now += number / 1000
        elif kind == "burst":
            for _ in range(20):
                world.request(number % processes)
        else:
            getattr(world, kind)(number % processes)
    elapsed = world.now - NOW
    lease = max(1.0, lease_of(rule.quota, 10))
    shares = processes * max(1.0, share_of(rule, processes).quota)
    if isinstance(rule, Gcra):
        granted = rule.quota + elapsed * rule.limit / rule.window
    else:
        granted = rule.quota * (elapsed // rule.window + 2)
        lease, shares = (part * (elapsed // rule.window + 2) for part in (lease, shares))
    if isinstance(rule, Gcra):
        shares += elapsed * max(rule.limit / rule.window, processes / rule.window)
    assert world.total() <= granted + processes * lease + shares + 1e-6


@given(
    st.builds(Gcra, st.integers(4, 400), st.sampled_from([1.0, 7.0, 60.0])),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 500)), max_size=300),
)
@settings(max_examples=300, deadline=None)
def test_where_each_report_is_answered_before_the_lease_is_used_up_the_overshoot_is_processes_x_lease(
    rule: Gcra, processes: int, calls: list[tuple[int, int]]
) -> None:
    world = World(rule, processes)
    lease = lease_of(rule.quota, 10)
    for number, wait in calls:
        world.now += wait / 1000
        one = number % processes
        world.request(one)
        bucket = world.tables[one].buckets.get(ME)
        if bucket is not None and bucket.pending + 1 > lease:
            world.send(one)
            world.hear(one)
    elapsed = world.now - NOW
    assert world.total() <= rule.quota + elapsed * rule.limit / rule.window + processes * lease + 1e-6


@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("rule", [Gcra(100, 60.0), FixedWindow(100, 60.0)], ids=["gcra", "fixed-window"])
def test_who_gives_something_away_learns_what_the_others_did(rule: Algorithm, processes: int) -> None:
    world = World(rule, processes)
    for turn in range(400):
        world.request(turn % processes)
        world.exchange()
    assert 100 <= world.total() <= 100 + processes - 1, "each may give away one before it learns"


def test_what_was_given_away_too_much_is_owed() -> None:
    rule, world = Gcra(60, 60.0), World(Gcra(60, 60.0), 4)
    for turn in range(59):
        world.request(turn % 4)
        world.exchange()
    lease = lease_of(60, 10)
    for number in range(4):
        while world.request(number) and world.tables[number].buckets[ME].pending < lease:
            pass
    over = world.total() - rule.quota
    assert 0 < over <= 4 * lease
    for _ in range(3000):  # five minutes, everybody asking ten times a second
        world.now += 0.1
        for number in range(4):
            world.request(number)
        world.exchange()
    assert world.total() == pytest.approx(rule.quota + 300, abs=4 * lease), "the overshoot does not add up"


def test_alone_each_process_goes_on_with_its_share() -> None:
    world = World(Gcra(1000, 100.0), 4)
    for _ in range(400):
        for number in range(4):
            world.request(number)
    lease = lease_of(1000, 10)
    assert 1000 <= world.total() <= 1000 + 4 * lease
    before = world.total()
    for _ in range(1000):  # ten seconds later
        world.now += 0.01
        for number in range(4):
            world.request(number)
    assert world.total() - before == pytest.approx(100, abs=8)


def test_after_a_long_time_alone_nobody_is_locked_out() -> None:
    world = World(Gcra(60, 60.0), 2)
    for _ in range(3600):
        world.now += 2
        assert world.request(0)
    world.exchange()
    world.now += 1
    assert world.request(0)
    assert world.request(1)


def test_a_request_that_costs_more_than_the_lease_passes_once() -> None:
    world = World(Gcra(1000, 60.0, 1000), 1, lease=1)
    assert world.request(0, 500.0)
    bucket = world.tables[0].buckets[ME]
    assert bucket.pending == 500
    world.exchange()
    assert world.request(0, 500.0)
    world.exchange()
    assert not world.request(0, 500.0)


@pytest.mark.parametrize(
    ("quota", "asked", "expected"), [(10, 10, 2.5), (100, 10, 10), (5000, 10, 50), (1, 10, 1), (3, 1, 1)]
)
def test_leases(quota: float, asked: float, expected: float) -> None:
    assert lease_of(quota, asked) == expected


def test_a_table_is_bounded_and_drops_what_is_full_first() -> None:
    table = Table(policy(Gcra(10, 10.0)), 100, 10, 2)
    for number in range(1000):
        key = ("", "", str(number))
        verdict = table.judge(None, NOW + number / 1000, 1.0, key[-1])
        bucket = table.charge(key, None, verdict, 1.0, NOW + number / 1000)
        assert bucket is not None
        report(bucket, NOW + number / 1000)
        answered(bucket, 1.0, 0.0, NOW + number / 1000)
    assert len(table.buckets) == 100
    assert table.evictions == 900
    later = NOW + 100
    for number in range(60):
        key = ("", "", f"later-{number}")
        table.charge(key, None, table.judge(None, later, 1.0, key[-1]), 1.0, later)
    assert len(table.buckets) < 100
    assert table.evictions == 900


@pytest.mark.parametrize("rule", [Gcra(100, 3600.0), FixedWindow(100, 3600.0)], ids=["gcra", "fixed-window"])
def test_a_store_that_has_lost_its_data_gives_nobody_another_burst_at_once(rule: Algorithm) -> None:
    world = World(rule, 2)
    for turn in range(100):
        world.request(turn % 2)
        world.exchange()
    world.store = None
    for turn in range(100):
        world.request(turn % 2)
        world.exchange()
    assert world.total() <= 100 + 2
