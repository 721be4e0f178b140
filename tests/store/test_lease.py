"""The right to serve what is stored: it ends by itself, at an instant that a writer can wait for."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.lease import Lease

PULSE, LEASE, GRACE = 0.05, 1.0, 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lease_of(clock: Clock, process: str = "b") -> Lease:
    return Lease(process, lease=LEASE, grace=GRACE, pulse=PULSE, monotonic=clock)


def held() -> tuple[Lease, Clock]:
    clock = Clock()
    one = lease_of(clock)
    one.met(clock.now, {"a": 0.0, "b": 0.0})
    one.answered(clock.now)
    assert one.serves()
    return one, clock


def test_it_takes_both_and_ends_with_either() -> None:
    clock = Clock()
    one = lease_of(clock)
    assert not one.answered(clock.now)
    assert one.met(clock.now, {"b": 0.0})
    clock.now += PULSE
    assert not one.serves()
    assert one.heard()
    assert one.answered(clock.now)
    clock.now += LEASE - PULSE
    assert not one.answered(clock.now)
    assert not one.heard()


def test_it_counts_from_when_was_asked_and_not_from_the_answer() -> None:
    one, clock = held()
    clock.now += 2 * PULSE
    assert not one.answered(clock.now - PULSE)
    assert one.answered(clock.now - PULSE / 2)


def test_whoever_is_silent_ends_it_for_all_until_it_has_been_silent_for_long() -> None:
    one, clock = held()
    silent_since = clock.now
    while clock.now < silent_since + GRACE + 1:
        clock.now += LEASE / 8
        one.met(clock.now, {"a": clock.now - silent_since, "b": 0.0})
        one.answered(clock.now)
        quiet = clock.now - silent_since
        assert one.serves() is (quiet < LEASE or quiet >= GRACE), quiet
    assert one.processes == 1
    assert one.lost == 1


def test_who_said_farewell_is_not_waited_for() -> None:
    one, clock = held()
    one.forget("a")
    clock.now += LEASE
    assert one.met(clock.now, {"b": 0.0}) or one.answered(clock.now)
    assert one.serving == 0


def test_who_was_deaf_serves_nothing_before_it_has_heard_of_all() -> None:
    one, clock = held()
    one.break_off()
    one.suspect()
    assert not one.met(clock.now, {"b": 0.0})
    assert not one.answered(clock.now)
    assert one.met(clock.now, {"a": 0.0, "b": 0.0})


def test_a_newcomer_waits_for_the_silent_as_all_do() -> None:
    clock = Clock()
    one = lease_of(clock)
    one.met(clock.now, {"a": LEASE + 1, "b": 0.0})
    assert not one.answered(clock.now)


def test_a_heartbeat_that_the_store_did_not_count_gives_no_right() -> None:
    one, clock = held()
    clock.now += LEASE
    assert not one.met(clock.now, {"a": 0.0, "b": LEASE})
    assert not one.answered(clock.now)


steps = st.lists(st.floats(0.0, 0.2), min_size=1, max_size=30)


@given(steps, st.data())
def test_who_serves_behind_a_writes_answer_knows_of_the_write(gaps: list[float], data: st.DataObject) -> None:
    """Whatever is slow: a writer lets go a pulse after it has heard that it was announced.

    The store takes pulses and the announcement one by one, at any time; what it sends to a process comes in the order
    in which it was taken, at any time.
    """
    clock = Clock()
    one = lease_of(clock)
    start, delay = clock.now, st.floats(0.0, 0.3)
    asked = [start + at for at in accumulate(gaps)]
    taken = sorted((at + data.draw(delay), at) for at in asked)
    announced = start + data.draw(st.floats(0.0, 3.0))
    answered = announced + data.draw(delay)
    last = 0.0
    events: list[tuple[float, float | None]] = []  # when it arrives; the pulse it answers, or None for the announcement
    stream: list[tuple[float, float | None]] = sorted([*taken, (announced, None)], key=lambda one: one[0])
    for at, pulse in stream:
        last = max(last, at + data.draw(delay))
        events.append((last, pulse))
    released = answered + PULSE
    knows = False
    for at, pulse in events:
        for moment in (max(clock.now, released), at):
            if clock.now <= moment < at:
                clock.now = moment
                assert knows or not one.serves()
        clock.now = at
        if pulse is None:
            knows = True
        else:
            one.met(clock.now, {"b": 0.0})
            if one.answered(pulse) and at >= released:
                assert knows


@given(st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.floats(0.0, 3.0))
def test_who_serves_a_lease_behind_anothers_last_heartbeat_has_heard_another(
    silent: float, asked: float, taken: float, brought: float, later: float
) -> None:
    """What a process cannot announce it holds back for as long: nobody serves by a heartbeat from before."""
    clock = Clock()
    one = lease_of(clock)
    last = clock.now + silent  # of the writer, when the store took it
    ask = clock.now + asked
    take = ask + taken
    clock.now = take + brought
    one.met(ask, {"b": 0.0, **({"a": take - last} if take >= last else {"a": 0.0})})
    one.answered(clock.now + 10)  # whatever of the pulse
    clock.now += later
    assert not (one.serves() and clock.now >= last + LEASE)
