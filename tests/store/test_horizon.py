"""Until when a writer waits for those it could not tell."""

from __future__ import annotations

from gateway.store.horizon import Horizon
from gateway.store.lease import Lease

PULSE, LEASE, LATE = 0.05, 1.0, 0.3


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Horizon, Lease, Clock]:
    clock = Clock()
    lease = Lease("b", lease=LEASE, grace=10.0, pulse=PULSE, monotonic=clock)
    return Horizon(lease, late_by=LATE, monotonic=clock), lease, clock


def test_who_was_never_heard_waits_as_long_once_for_it_may_be_able_to_tell_by_then() -> None:
    horizon, _, clock = made()
    assert horizon.all_here()
    assert horizon.told(clock.now) == clock.now + PULSE
    horizon.owed_at = clock.now
    assert horizon.untold(away=True, owing=True) == clock.now + LATE + LEASE
    horizon.gone_at = clock.now
    assert horizon.untold(away=True, owing=True) == clock.now + PULSE


def test_what_was_announced_is_waited_for_as_long_as_a_pulse_lasts() -> None:
    horizon, lease, clock = made()
    horizon.left_at = clock.now - 0.1
    lease.met(clock.now, {"a": 0.0, "b": 0.0})
    assert horizon.all_here()
    assert horizon.told(clock.now) == clock.now + PULSE


def test_behind_a_move_those_who_may_be_at_the_old_server_are_waited_for() -> None:
    horizon, lease, clock = made()
    lease.met(clock.now, {"a": 0.0, "b": 0.0})
    horizon.left_at = clock.now
    lease.break_off()
    lease.suspect()
    lease.met(clock.now, {"b": 0.0})
    assert not horizon.all_here()
    assert horizon.told(clock.now) == clock.now + LATE + LEASE
    clock.now += LATE + LEASE
    assert horizon.all_here()


def test_what_could_not_be_announced_waits_until_this_process_was_missed() -> None:
    horizon, _, clock = made()
    horizon.gone_at, horizon.last_beat = None, clock.now - 0.1
    for away in (False, True):  # while the connection that listens stands, the store is not gone
        assert horizon.untold(away=away, owing=True) == clock.now - 0.1 + LATE + LEASE


def test_where_the_store_is_gone_a_pulse_will_do() -> None:
    horizon, _, clock = made()
    horizon.last_beat = horizon.gone_at = clock.now
    assert horizon.untold(away=True, owing=True) == clock.now + PULSE
    assert horizon.untold(away=False, owing=True) == clock.now + LATE + LEASE


def test_what_is_announced_in_the_end_is_waited_for_no_longer_than_other_announcements() -> None:
    horizon, _, clock = made()
    horizon.last_beat, horizon.gone_at, horizon.resent_at = clock.now, None, clock.now
    assert horizon.untold(away=False, owing=False) == clock.now + PULSE
