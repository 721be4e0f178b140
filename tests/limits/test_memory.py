"""The buckets of one process: all or nothing, bounded whatever keys come, nothing kept for who is idle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra
from gateway.limits.memory import MemoryCounters

NOW = 1_800_000_000.0
ME = ("issuer", "zone", "me")


def policy(name: str, bucket: Algorithm, mode: Mode = Mode.ENFORCE) -> RatePolicy:
    return RatePolicy(name, Who.PRINCIPAL, bucket, frozenset({"list"}), mode)


def counters(*policies: RatePolicy, max_buckets: int = 1000) -> MemoryCounters:
    return MemoryCounters(policies, max_buckets=max_buckets)


def test_units_are_taken_only_when_every_policy_agrees() -> None:
    both = counters(policy("wide", Gcra(10, 60.0)), policy("narrow", Gcra(2, 60.0)))
    charges = [(0, ME, 1.0), (1, ME, 1.0)]
    assert [all(one.allowed for one in both.take(charges, NOW)) for _ in range(5)] == [True, True, False, False, False]
    assert int(both.peek((0, ME, 0.0), NOW).remaining) == 8, "the refused ones took nothing from the wide one"


def test_when_one_refuses_the_others_say_what_they_hold_untouched() -> None:
    both = counters(policy("wide", Gcra(10, 60.0)), policy("narrow", Gcra(1, 60.0)))
    charges = [(0, ME, 1.0), (1, ME, 1.0)]
    both.take(charges, NOW)
    wide, narrow = both.take(charges, NOW)
    assert (wide.allowed, int(wide.remaining)) == (True, 9)
    assert not narrow.allowed


def test_a_shadow_policy_decides_and_stands_in_nobodys_way() -> None:
    both = counters(policy("real", Gcra(10, 60.0)), policy("trial", Gcra(2, 60.0), Mode.SHADOW))
    charges = [(0, ME, 1.0), (1, ME, 1.0)]
    seen = [[one.allowed for one in both.take(charges, NOW)] for _ in range(4)]
    assert seen == [[True, True], [True, True], [True, False], [True, False]]
    assert int(both.peek((0, ME, 0.0), NOW).remaining) == 6


def test_a_shadow_policy_takes_nothing_when_an_enforced_one_refuses() -> None:
    both = counters(policy("real", Gcra(1, 60.0)), policy("trial", Gcra(5, 60.0), Mode.SHADOW))
    charges = [(0, ME, 1.0), (1, ME, 1.0)]
    for _ in range(3):
        both.take(charges, NOW)
    assert int(both.peek((1, ME, 0.0), NOW).remaining) == 4


def test_looking_takes_nothing() -> None:
    one = counters(policy("one", Gcra(1, 60.0)))
    assert all(one.peek((0, ME, 1.0), NOW).allowed for _ in range(3))
    assert one.buckets() == {"one": 0}


@pytest.mark.parametrize("bucket", [Gcra(5, 60.0), FixedWindow(5, 60.0)], ids=["gcra", "fixed-window"])
def test_what_costs_nothing_needs_no_entry(bucket: Algorithm) -> None:
    one = counters(policy("one", bucket))
    one.take([(0, ME, 0.0)], NOW)
    assert one.buckets() == {"one": 0}


@pytest.mark.parametrize("bucket", [Gcra(5, 60.0), FixedWindow(5, 60.0)], ids=["gcra", "fixed-window"])
def test_an_entry_that_is_full_again_leaves_when_it_is_seen(bucket: Algorithm) -> None:
    one = counters(policy("one", bucket))
    one.take([(0, ME, 5.0)], NOW)
    assert one.buckets() == {"one": 1}
    one.take([(0, ME, 0.0)], NOW + 3600)
    assert one.buckets() == {"one": 0}


@pytest.mark.parametrize("bucket", [Gcra(5, 60.0), FixedWindow(5, 60.0)], ids=["gcra", "fixed-window"])
def test_idle_buckets_leave_as_new_ones_come(bucket: Algorithm) -> None:
    one = counters(policy("one", bucket), max_buckets=10_000)
    for number in range(6000):
        one.take([(0, ("old", str(number)), 1.0)], NOW)
    for number in range(2000):
        one.take([(0, ("new", str(number)), 1.0)], NOW + 3600)
    assert one.buckets()["one"] <= 4096, "so many are not looked at"
    for number in range(2000, 6000):
        one.take([(0, ("new", str(number)), 1.0)], NOW + 3600)
    assert one.buckets() == {"one": 6000}
    assert one.evictions() == {"one": 0}


@pytest.mark.parametrize("bucket", [Gcra(5, 60.0), FixedWindow(5, 60.0)], ids=["gcra", "fixed-window"])
def test_attacker_chosen_keys_never_make_a_table_grow_beyond_its_bound(bucket: Algorithm) -> None:
    one = counters(policy("one", bucket), max_buckets=50)
    for number in range(5000):
        one.take([(0, (f"2001:db8:{number:x}::/64",), 1.0)], NOW + number / 1000)
        assert one.buckets()["one"] <= 50
    assert one.evictions()["one"] > 4900


def test_at_the_bound_who_keeps_asking_keeps_being_counted() -> None:
    one = counters(policy("one", Gcra(3, 3600.0)), max_buckets=50)
    for number in range(2000):
        one.take([(0, (str(number),), 1.0)], NOW)
        mine = one.take([(0, ME, 1.0)], NOW)[0]
        assert mine.allowed is (number < 3)


def test_policies_have_tables_of_their_own_so_that_addresses_do_not_push_out_principals() -> None:
    both = counters(policy("principals", Gcra(1, 3600.0)), policy("addresses", Gcra(1, 3600.0)), max_buckets=20)
    both.take([(0, ME, 1.0)], NOW)
    for number in range(1000):
        both.take([(1, (str(number),), 1.0)], NOW)
    assert not both.take([(0, ME, 1.0)], NOW)[0].allowed


def test_a_refusal_after_the_clock_was_set_back_is_written_down() -> None:
    """Else whoever waits for Retry-After would be told the same again."""
    one = counters(policy("one", Gcra(2, 60.0)))
    one.take([(0, ME, 2.0)], NOW)
    early = NOW - 1_000_000
    refused = one.take([(0, ME, 1.0)], early)[0]
    assert refused.retry_after == pytest.approx(30.0)
    assert one.take([(0, ME, 1.0)], early + 30.001)[0].allowed


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.floats(0, 5, allow_nan=False), st.floats(0, 4, allow_nan=False)),
        max_size=80,
    )
)
@pytest.mark.parametrize("bucket", [Gcra(3, 10.0), FixedWindow(3, 10.0)], ids=["steady", "windows"])
@settings(max_examples=100)
def test_tables_decide_as_the_arithmetic_does_while_there_is_room(bucket: Algorithm, calls: list) -> None:
    together, alone = counters(policy("one", bucket)), counters(policy("one", bucket))
    states: dict[str, object] = {}
    now = NOW
    for key, wait, cost in calls:
        now += wait
        expected = bucket.decide(states.get(key), now, cost, key)  # type: ignore[arg-type]
        states[key] = expected.state
        assert together.take([(0, (key,), cost)], now) == [expected]
        assert alone.take_one((0, (key,), cost), now) == expected
        assert alone.buckets() == together.buckets()
        assert alone.buckets()["one"] == sum(state is not None for state in states.values())


@pytest.mark.parametrize("bucket", [Gcra(3, 3600.0), FixedWindow(3, 3600.0)], ids=["steady", "windows"])
def test_counters_that_replace_others_take_from_the_same_buckets(bucket: Algorithm) -> None:
    old, new = counters(policy("one", bucket)), counters(policy("one", bucket))
    old.take_one((0, ME, 1.0), NOW)
    new.succeed(old)
    assert int(new.take_one((0, ME, 1.0), NOW)[0]) == 1
    assert int(old.take_one((0, ME, 1.0), NOW)[0]) == 0
    assert [new.take_one((0, ME, 1.0), NOW)[2] > 0, old.take_one((0, ME, 1.0), NOW)[2] > 0] == [True, True]
    assert new.take([(0, ME, 1.0)], NOW) == [new.peek((0, ME, 1.0), NOW)]
