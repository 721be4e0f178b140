"""What is kept of earlier requests: never what another head, policy or domain would get, and a bounded number of it."""

from __future__ import annotations

from typing import Any

from gateway.core.keys import CacheKey
from gateway.pipeline.known import Held, Known

KEY = CacheKey("domain", "/v3/processes", "", "json")
HIT: Any = object()


def test_how_many_hits_stand_is_bounded() -> None:
    held = Held()
    heads = [Known(held) for _ in range(100)]
    for number in range(20_000):
        heads[number % 100].stand(f"domain {number}", HIT, anybody=False)
    assert len(held) <= 8192
    assert sum(len(known.standing) for known in heads) == len(held)


def test_a_hit_that_takes_the_place_of_another_is_counted_once() -> None:
    held = Held()
    known = Known(held)
    for _ in range(3):
        known.stand("domain", HIT, anybody=False)
    assert (len(held), len(known.standing)) == (1, 1)


def test_nothing_stands_under_another_policy() -> None:
    known = Known(Held())
    one: Any = object()
    other: Any = object()
    known.settle(one, None, None, KEY)
    known.stand("public", HIT, anybody=True)
    known.settle(one, None, None, KEY)
    assert (known.standing, known.anybody) == ({"public": HIT}, True)
    known.settle(other, None, None, KEY)
    assert (known.standing, known.anybody) == ({}, False)


def test_what_a_request_was_chosen_for_is_taken_once() -> None:
    known = Known(Held())
    known.chosen = HIT
    assert (known.take_chosen(), known.take_chosen()) == (HIT, None)
