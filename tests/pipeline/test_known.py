"""What is kept of earlier requests: never an answer that another head, policy or page would get, and not for long."""

from __future__ import annotations

import pytest

from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Reply
from gateway.pipeline.known import Held, Known

KEY = CacheKey("domain", "/v3/processes", "", "json")


def entry(body: bytes = b"{}") -> Entry:
    return Entry(KEY, Fields(), body, '"e"', 0.0, 10.0, 10.0, 10.0, ())


def serve(held: Held, now: float, body: bytes = b"{}") -> Known:
    known = Known(held)
    known.served(entry(body), 0, 10, Reply(200, Fields(), body), now)
    return known


def test_answers_of_an_earlier_second_are_let_go_of() -> None:
    held = Held()
    first, second = serve(held, 5.0), serve(held, 5.9)
    assert first.reply is not None
    third = serve(held, 6.0)
    assert (first.reply, first.entry, second.reply, second.entry) == (None, None, None, None)
    assert third.reply is not None
    assert len(held) == 1


@pytest.mark.parametrize(("size", "most"), [(10, 4096), (60_000, 280)], ids=["by number", "by bytes"])
def test_what_is_held_is_bounded(size: int, most: int) -> None:
    held = Held()
    alive = [serve(held, 5.0, b"x" * size) for _ in range(6000 if size == 10 else 600)]
    assert len(held) <= most
    assert sum(known.reply is not None for known in alive) == len(held)


def test_large_answers_are_not_held() -> None:
    assert serve(Held(), 5.0, b"x" * 70_000).reply is None


def test_another_policy_begins_anew_and_another_principal_keeps_how_the_page_was_written() -> None:
    known = serve(Held(), 5.0)
    one, other = object(), object()
    known.settle(one, None, None, KEY)  # type: ignore[arg-type]
    assert known.reply is None, "it was written for no policy yet"
    known.served(entry(), 0, 10, Reply(200, Fields(), b"{}"), 5.0)
    known.settle(one, None, object(), KEY)  # type: ignore[arg-type]
    assert known.reply is not None
    known.settle(other, None, None, KEY)  # type: ignore[arg-type]
    assert (known.reply, known.entry) == (None, None)
