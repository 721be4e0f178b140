"""Leases: whatever order requests, reports and answers come in, no more passes than the documented bound."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra
from gateway.limits.leases import Answer, Bucket, Table, answered, lease_of, remembers, report, share_of, unanswered
from tests.limits.script import count

NOW = 1_800_000_000.0
ME = ("issuer", "zone", "me")


def policy(bucket: Algorithm) -> RatePolicy:
    return RatePolicy("one", Who.PRINCIPAL, bucket, frozenset({"list"}), Mode.ENFORCE)


Told = tuple[str, float, float, float, float, float, float]


@dataclass
class World:
    """Processes and the one store they report to; each process has clocks of its own."""

    rule: Algorithm
    processes: int
    lease: float = 10.0
    now: float = NOW
    skew: float = 0.0
    store: str | None = None
    admitted: list[tuple[float, float]] = field(default_factory=list)
    under_way: dict[int, tuple[Told, Bucket]] = field(default_factory=dict)
    answers: dict[int, tuple[float, float, Answer]] = field(default_factory=dict)
    untold: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tables = [Table(policy(self.rule), 1000, self.lease, self.processes) for _ in range(self.processes)]

    def clock(self, number: int) -> float:
        """A process's own idea of the time."""
        return self.now + self.skew * number

    def request(self, number: int, cost: float = 1.0) -> bool:
        table, now = self.tables[number], self.clock(number)
        bucket = table.buckets.get(ME)
        verdict = table.judge(bucket, now, cost, "me")
        if verdict[0][2]:
            return False
        table.charge(ME, bucket, verdict, cost, now)
        self.admitted.append((self.now, min(cost, self.rule.quota)))
        return True

    def offset(self, number: int) -> float:
        """What the server's clock is ahead of a process's steady one."""
        return NOW - 1000.0 * (number + 1)

    def send(self, number: int) -> None:
        bucket = self.tables[number].buckets.get(ME)
        if bucket is not None and (bucket.pending or number in self.untold) and number not in self.under_way:
            self.under_way[number] = report(bucket, self.clock(number), self.offset(number)), bucket

    def arrive(self, number: int) -> None:
        """The store counts a report; its answer is on the way."""
        if number in self.under_way and number not in self.answers:
            told, _ = self.under_way[number]
            self.store, first, second = count(self.store, self.now, *told)
            self.untold.discard(number)
            waited_for = {one for one in self.untold if ME in self.tables[one].buckets}
            self.answers[number] = first, second, Answer(0.0, self.now, self.offset(number), not waited_for)

    def hear(self, number: int) -> None:
        self.arrive(number)
        if number in self.answers:
            _, bucket = self.under_way.pop(number)
            first, second, answer = self.answers.pop(number)
            answered(bucket, first, second, answer._replace(now=self.clock(number)))

    def lose(self, number: int) -> None:
        """The report or its answer gets lost."""
        if number in self.under_way:
            _, bucket = self.under_way.pop(number)
            self.answers.pop(number, None)
            unanswered(bucket)

    def forget(self, _: int = 0) -> None:
        """The store loses its data; everybody will hear of it."""
        self.store = None
        self.untold = set(range(self.processes))

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
        st.tuples(st.just("forget"), st.integers(0, 7)),
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
    """Reports may be late, lost, counted without an answer, and the data lost however often, at any moment."""
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


events = st.sampled_from(["nothing", "forgets", "away", "away and forgets"])


@given(
    st.builds(Gcra, st.integers(4, 400), st.sampled_from([7.0, 60.0, 3600.0])),
    st.integers(1, 8),
    st.sampled_from([0.0, -3.7, 100.0]),
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 20, 700]), st.integers(1, 100), events),
        min_size=5,
        max_size=40,
    ),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_data_lost_however_often_adds_nothing_to_what_all_have_heard_and_at_most_one_burst_otherwise(
    rule: Gcra, processes: int, skew: float, calls: list[tuple[int, int, int, str]], heard: bool
) -> None:
    """The store answers each report before a lease is used up, or nobody; and may lose everything at any moment."""
    world = World(rule, processes, skew=skew)
    lease = lease_of(rule.quota, 10)
    for number, wait, asked, event in calls:
        world.now += wait / 1000
        one = number % processes
        if heard:  # by everybody: each has given away something, and been answered since
            for each in range(processes):
                world.request(each)
                world.exchange()
            world.untold.update(range(processes))
            world.exchange()
        if event.endswith("forgets"):
            world.forget()
        for turn in range(asked * (processes if event.startswith("away") else 1)):
            if event.startswith("away"):
                world.request(turn % processes)
                world.now += 0.001
                continue
            world.request(one)
            bucket = world.tables[one].buckets.get(ME)
            if bucket is not None and bucket.pending + 1 > lease:
                world.send(one)
                world.hear(one)
    elapsed = world.now - NOW
    bound = rule.quota + elapsed * rule.limit / rule.window + processes * lease
    if not heard:
        own = share_of(rule, processes)
        bound += processes * (own.quota + elapsed * own.limit / own.window)
    elif any(event.startswith("away") for *_, event in calls):
        bound += processes * max(1.0, lease)
    assert world.total() <= bound + 1e-6


@pytest.mark.parametrize("skew", [0.0, 3600.0, -17.3], ids=["one-clock", "ahead", "behind"])
@pytest.mark.parametrize("rule", [Gcra(1500, 60.0), FixedWindow(1500, 600.0)], ids=["gcra", "fixed-window"])
def test_a_store_that_loses_its_data_every_other_second_admits_no_burst_more(rule: Algorithm, skew: float) -> None:
    """As was measured before levels were told: 6,902 where 4,501 was the limit, after two losses."""
    world = World(rule, 4, skew=skew)
    for turn in range(6000):
        world.now += 0.02
        for number in range(4):
            for _ in range(3):
                world.request(number)
        world.exchange()
        if turn % 100 == 99:
            world.forget()
    if isinstance(rule, Gcra):
        limit = rule.quota + 120 * rule.limit / rule.window
        assert limit - 40 <= world.total() <= limit + 4 * lease_of(rule.quota, 10)
    else:
        assert rule.limit <= world.total() <= 2 * (rule.limit + 4 * lease_of(rule.quota, 10))


@pytest.mark.parametrize("rule", [Gcra(400, 60.0), FixedWindow(400, 600.0)], ids=["gcra", "fixed-window"])
def test_what_one_alone_knew_reaches_the_others_before_a_lease_is_filled_again(rule: Algorithm) -> None:
    world = World(rule, 2)
    while world.request(0):
        world.exchange()
    knew = world.total()
    world.forget()
    for _ in range(1000):  # the other one has never heard of it, and is answered by a store that knows nothing
        world.request(1)
        world.send(1)
        world.hear(1)
    own = share_of(rule, 2).quota
    assert knew + own <= world.total() <= knew + own + lease_of(400, 10) + 1
    before = world.total()
    for _ in range(5):
        world.exchange()
        world.request(1)
    assert world.total() <= before + 1
    assert not world.request(0)


def test_what_the_share_gave_away_while_the_store_was_away_is_told_to_one_that_comes_back_empty() -> None:
    """For far longer than from empty to full, so that the levels from before say nothing any more."""
    rule = Gcra(60, 6.0)
    world = World(rule, 4)
    for _ in range(3000):
        world.now += 0.02
        for number in range(4):
            world.request(number)
    limit = rule.quota + 60 * rule.limit / rule.window
    assert limit - 4 <= world.total() <= limit + 4 * lease_of(60, 10)
    world.forget()
    for _ in range(1500):
        world.now += 0.02
        world.exchange()
        for number in range(4):
            world.request(number)
    limit = rule.quota + 90 * rule.limit / rule.window
    assert world.total() <= limit + 4 * lease_of(60, 10)


def test_a_bucket_whose_share_is_not_full_is_kept() -> None:
    """Else the share would begin anew whenever the whole is full for a moment."""
    table = Table(policy(Gcra(100, 100.0)), 10, 10, 4)
    for _ in range(35):
        bucket = table.buckets.get(ME)
        table.charge(ME, bucket, table.judge(bucket, NOW, 1.0, "me"), 1.0, NOW)
    mine = table.buckets[ME]
    report(mine, NOW, 0.0)
    answered(mine, NOW, 0.0, Answer(NOW, NOW, 0.0, settled=False))
    for wait, kept in ((40, True), (101, False)):  # the whole is full after 35 s, the share after 100
        other = ("", "", str(wait))
        table.charge(other, None, table.judge(None, NOW + wait, 1.0, "other"), 1.0, NOW + wait)
        assert (ME in table.buckets) is kept


@pytest.mark.parametrize("said", [float("nan"), float("inf"), 1e300, NOW + 1e6, -1e300, 0.0], ids=str)
@pytest.mark.parametrize("rule", [Gcra(100, 60.0), FixedWindow(100, 60.0)], ids=["gcra", "fixed-window"])
def test_whatever_a_store_says_nobody_is_locked_out_for_longer_than_can_be_owed(rule: Algorithm, said: float) -> None:
    table = Table(policy(rule), 10, 10, 2)
    bucket = table.charge(ME, None, table.judge(None, NOW, 1.0, "me"), 1.0, NOW)
    assert bucket is not None
    report(bucket, NOW, 0.0)
    answered(bucket, said, said, Answer(NOW, NOW, 0.0, settled=True))
    assert table.judge(bucket, NOW + 60 * (2 + 2 * 10 / 100), 1.0, "me")[0][2] == 0
    assert not remembers(bucket, NOW + 60 * (2 + 2 * 10 / 100) + 1)
    told = report(bucket, NOW, 0.0)
    assert max(told[4] - NOW, told[5]) <= table.most + 1e-6


def test_a_clock_set_back_inflates_nobody_elses_bucket() -> None:
    rule = Gcra(60, 60.0)
    world = World(rule, 2)
    for number in (0, 1):
        world.request(number)
    world.exchange()
    world.skew = -3600.0  # process 1
    for _ in range(10):
        world.now += 1
        world.request(0)
        world.request(1)
        world.exchange()
    before = world.total()
    for _ in range(60):
        world.request(0)
        world.exchange()
    assert world.total() - before >= 45


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
        now = NOW + number / 1000
        report(bucket, now, 0.0)
        answered(bucket, now + 1.0, 0.0, Answer(now, now, 0.0, settled=True))
    assert len(table.buckets) == 100
    assert table.evictions == 900
    later = NOW + 100
    for number in range(60):
        key = ("", "", f"later-{number}")
        table.charge(key, None, table.judge(None, later, 1.0, key[-1]), 1.0, later)
    assert len(table.buckets) < 100
    assert table.evictions == 900


@pytest.mark.parametrize("rule", [Gcra(100, 3600.0), FixedWindow(100, 3600.0)], ids=["gcra", "fixed-window"])
def test_a_store_that_has_lost_its_data_gives_nobody_another_burst(rule: Algorithm) -> None:
    world = World(rule, 2)
    for turn in range(100):
        world.request(turn % 2)
        world.exchange()
    world.forget()
    for turn in range(100):
        world.request(turn % 2)
        world.exchange()
    assert world.total() <= 100 + 2
