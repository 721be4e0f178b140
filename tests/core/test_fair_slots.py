"""Places and the queue before them, over any history."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.fair_slots import Answer, FairSlots


def queue(slots: FairSlots[str], *waiters: str) -> list[tuple[Answer, str | None]]:
    """Ask for each; a waiter's owner is its first letter."""
    return [slots.ask(waiter[0], waiter) for waiter in waiters]


def test_owners_take_turns_however_many_each_has_waiting() -> None:
    slots: FairSlots[str] = FairSlots(limit=1, per_owner=None, queue=100)
    slots.take("x")
    queue(slots, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    order = []
    owner = "x"
    while len(slots):
        (waiter,) = slots.done(owner)
        order.append(waiter)
        owner = waiter[0]
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_an_owner_with_all_it_may_have_keeps_nobody_waiting() -> None:
    slots: FairSlots[str] = FairSlots(limit=4, per_owner=2, queue=100)
    assert [answer for answer, _ in queue(slots, "a1", "a2", "a3", "b1", "b2", "c1")] == [
        *[Answer.ADMITTED] * 2,
        Answer.QUEUED,
        *[Answer.ADMITTED] * 2,
        Answer.QUEUED,
    ]
    assert slots.done("b") == ["c1"], "a3 was first but a has two"
    assert slots.done("a") == ["a3"]


def test_when_the_queue_is_full_who_has_most_waiting_gives_way() -> None:
    slots: FairSlots[str] = FairSlots(limit=0, per_owner=None, queue=3)
    assert queue(slots, "a1", "a2", "a3") == [(Answer.QUEUED, None)] * 3
    assert queue(slots, "a4") == [(Answer.REFUSED, None)]
    assert queue(slots, "b1") == [(Answer.QUEUED, "a3")]
    assert queue(slots, "b2") == [(Answer.REFUSED, None)], "it would have as many as a has"
    assert queue(slots, "c1") == [(Answer.QUEUED, "a2")]
    assert queue(slots, "d1") == [(Answer.REFUSED, None)], "nobody has more than one"
    assert slots.resize(3) == ["a1", "b1", "c1"]


def test_without_a_queue_nobody_waits() -> None:
    slots: FairSlots[str] = FairSlots(limit=1, per_owner=None, queue=0)
    assert queue(slots, "a1", "b1") == [(Answer.ADMITTED, None), (Answer.REFUSED, None)]


def test_a_smaller_limit_takes_no_place_away_and_lets_nobody_in_until_it_is_met() -> None:
    slots: FairSlots[str] = FairSlots(limit=3, per_owner=None, queue=9)
    queue(slots, "a1", "a2", "a3", "b1")
    assert slots.resize(1) == []
    assert slots.done("a") == []
    assert slots.done("a") == []
    assert slots.done("a") == ["b1"]


class Slots(RuleBasedStateMachine):
    """Any order of asking, finishing, giving up and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.limit, self.cap, self.room = 3, 2, 5
        self.slots: FairSlots[tuple[str, int]] = FairSlots(limit=self.limit, per_owner=self.cap, queue=self.room)
        self.number = 0
        self.under_way: list[tuple[str, int]] = []
        self.waiting: dict[tuple[str, int], None] = {}

    def admitted(self, waiters: list[tuple[str, int]]) -> None:
        for waiter in waiters:
            del self.waiting[waiter]
            assert not any(other[0] == waiter[0] and other[1] < waiter[1] for other in self.waiting), "own order"
            self.under_way.append(waiter)
        assert not waiters or len(self.under_way) <= self.limit

    @rule(owner=st.sampled_from("abcd"))
    def ask(self, owner: str) -> None:
        self.number += 1
        waiter = (owner, self.number)
        waits = Counter(other for other, _ in self.waiting)
        answer, put_out = self.slots.ask(owner, waiter)
        if answer is Answer.ADMITTED:
            self.under_way.append(waiter)
            assert len(self.under_way) <= self.limit
        elif answer is Answer.QUEUED:
            if put_out is not None:
                assert len(self.waiting) == self.room
                assert waits[put_out[0]] == max(waits.values()) > waits[owner] + 1
                del self.waiting[put_out]
            self.waiting[waiter] = None
        else:
            assert len(self.waiting) == self.room
            assert waits[owner] + 1 >= max(waits.values())

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 100))
    def finish(self, which: int) -> None:
        owner, _ = self.under_way.pop(which % len(self.under_way))
        self.admitted(self.slots.done(owner))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def give_up(self, which: int) -> None:
        waiter = list(self.waiting)[which % len(self.waiting)]
        del self.waiting[waiter]
        self.slots.withdraw(waiter[0], waiter)
        self.slots.withdraw(waiter[0], waiter)

    @rule(limit=st.integers(1, 6))
    def resize(self, limit: int) -> None:
        self.limit = limit
        self.admitted(self.slots.resize(limit))

    @invariant()
    def books_are_right(self) -> None:
        assert self.slots.in_flight == len(self.under_way)
        assert len(self.slots) == len(self.waiting) <= self.room
        owned = Counter(owner for owner, _ in self.under_way)
        assert max(owned.values(), default=0) <= self.cap
        assert self.slots.owners == len(owned)

    @invariant()
    def nobody_waits_for_a_place_that_is_free(self) -> None:
        if len(self.under_way) < self.limit:
            owned = Counter(owner for owner, _ in self.under_way)
            assert all(owned[owner] >= self.cap for owner, _ in self.waiting)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("greedy", [10, 1000])
def test_one_who_asks_often_makes_nobody_wait_longer(greedy: int) -> None:
    slots: FairSlots[str] = FairSlots(limit=1, per_owner=None, queue=5000)
    slots.take("x")
    queue(slots, *(f"a{number}" for number in range(greedy)), "b0")
    first, second = slots.done("x"), slots.done("a")
    assert [*first, *second] == ["a0", "b0"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40))
def test_between_two_of_one_owner_everybody_else_who_waits_has_a_turn(owners: list[str]) -> None:
    slots: FairSlots[tuple[str, int]] = FairSlots(limit=1, per_owner=None, queue=100)
    slots.take("x")
    for number, owner in enumerate(owners):
        slots.ask(owner, (owner, number))
    waiting, order, current = Counter(owners), [], "x"
    while len(slots):
        ((current, _),) = slots.done(current)
        order.append((current, {owner for owner, count in waiting.items() if count}))
        waiting[current] -= 1
    for place, (owner, waited) in enumerate(order):
        since = next((earlier for earlier in range(place - 1, -1, -1) if order[earlier][0] == owner), None)
        if since is not None:
            between = {other for other, _ in order[since + 1 : place]}
            assert waited & order[since][1] - {owner} <= between
