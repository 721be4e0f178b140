"""The controller's own limit: read, hidden, spared."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.keys import CacheKey
from gateway.core.model import Fields, PrincipalKind, RequestHead, ResponseHead, Target
from gateway.core.visibility import make_principal
from gateway.pipeline.budget import Budget, Left, read
from gateway.pipeline.decide import Policy, lookup
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Stale, Verdict
from gateway.store.memory import MemoryStore
from tests.pipeline.test_standing import ROUTES, Tokens

NOW = 1_800_000_000.0
ME = "b0000000-0000-4000-8000-000000000001"


def told(limit: Any, remaining: Any, reset: Any, prefix: str = "X-RateLimit-") -> Fields:
    return Fields(
        ((f"{prefix}Limit", str(limit)), (f"{prefix}Remaining", str(remaining)), (f"{prefix}Reset", str(reset)))
    )


SAID = [
    pytest.param(told(2000, 500, int(NOW) + 30), 200, Left(0.25, NOW + 30), id="controller.md §3"),
    pytest.param(told(2000, 0, int(NOW) + 30), 404, Left(0.0, NOW + 30), id="spent"),
    pytest.param(told(10, 5, 30, "RateLimit-"), 200, Left(0.5, NOW + 30), id="seconds to go"),
    pytest.param(told(10, 50, int(NOW) + 30), 200, Left(1.0, NOW + 30), id="more than all"),
    pytest.param(told(10, 5, int(NOW) - 1), 200, None, id="over already"),
    pytest.param(told(10, 5, int(NOW) + 10**8), 200, Left(0.5, NOW + 86_400), id="absurdly far"),
    pytest.param(told(0, 0, int(NOW) + 30), 200, None, id="a limit of nothing"),
    pytest.param(told("x", "", "-1"), 200, None, id="nonsense"),
    pytest.param(told("9" * 400, "1", "1"), 200, None, id="absurdly long"),
    pytest.param(Fields((("X-RateLimit-Limit", "5"),)), 200, None, id="incomplete"),
    pytest.param(Fields(), 200, None, id="nothing"),
    pytest.param(Fields((("Retry-After", "17"),)), 429, Left(0.0, NOW + 17), id="429"),
    pytest.param(Fields((("Retry-After", str(int(NOW) + 17)),)), 429, Left(0.0, NOW + 17), id="429 before 2023-05"),
    pytest.param(Fields((("Retry-After", "Fri, 15 Jan 2027 08:01:00 GMT"),)), 429, Left(0.0, NOW + 60), id="429 date"),
    pytest.param(Fields((("Retry-After", "soon"),)), 429, None, id="429 nonsense"),
    pytest.param(Fields(), 429, None, id="429 without"),
]


@pytest.mark.parametrize(("fields", "status", "expected"), SAID)
def test_what_an_answer_says_of_the_budget(fields: Fields, status: int, expected: Left | None) -> None:
    assert read(fields, status, NOW) == expected


class Answer:
    def __init__(self, fields: Fields, status: int = 200) -> None:
        self.head = ResponseHead(status, fields)

    def in_hand(self) -> bytes | None:
        return None

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError("nobody reads")

    async def release(self) -> None:
        pass


class Upstream:
    def __init__(self) -> None:
        self.answer = Answer(Fields())

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Answer:
        return self.answer


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def budget(upstream: Upstream) -> Budget:
    return Budget(upstream, lambda: NOW)


async def say(upstream: Upstream, budget: Budget, remaining: int, who: str | None = ME) -> ResponseHead:
    named = () if who is None else (("X-USER-GUID", who),)
    upstream.answer = Answer(Fields((*told(100, remaining, int(NOW) + 60), ("RateLimit", '"x";r=1'), *named)))
    return (await budget.send(RequestHead("GET", Target("/"), Fields()), None)).head


async def test_limits_come_off_the_answer_and_all_else_stays(upstream: Upstream, budget: Budget) -> None:
    head = await say(upstream, budget, 50)
    assert head.fields.pairs == (("X-USER-GUID", ME),)


async def test_low_is_below_a_tenth_until_the_window_ends(upstream: Upstream, budget: Budget) -> None:
    await say(upstream, budget, 10)
    assert not budget.low(ME, NOW)
    await say(upstream, budget, 9)
    assert budget.low(ME, NOW)
    assert not budget.low("somebody else", NOW)
    assert not budget.low(ME, NOW + 60)
    await say(upstream, budget, 80)
    assert not budget.low(ME, NOW)


async def test_the_gauge_is_the_least_anybody_has(upstream: Upstream, budget: Budget) -> None:
    assert budget.least() == 1
    await say(upstream, budget, 70, "a")
    await say(upstream, budget, 30, "b")
    await say(upstream, budget, 1, None)
    assert budget.least() == 0.3


async def test_the_state_is_bounded(upstream: Upstream, budget: Budget) -> None:
    await say(upstream, budget, 1, "first")
    for number in range(1024):
        await say(upstream, budget, 50, str(number))
    assert not budget.low("first", NOW)


def exchange(verdict: Verdict, *, entry: bool = True) -> Exchange:
    asked = Exchange(RequestHead("GET", Target("/v3/processes"), Fields()), request_id="id", received_at=NOW)
    asked.principal = make_principal(
        kind=PrincipalKind.USER,
        principal_id=ME,
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(),
        expires=int(NOW) + 1,
    )
    asked.verdict = verdict
    asked.refresh = verdict is Verdict.STALE
    if entry:
        key = CacheKey("d", "/v3/processes", "", "json")
        asked.entry = Entry(key, Fields(), b"", '"t"', NOW - 20, NOW - 10, NOW + 5, NOW + 40, ())
    return asked


@pytest.mark.parametrize(
    ("verdict", "after", "refresh"),
    [
        (Verdict.STALE, Verdict.STALE, False),
        (Verdict.MISS, Verdict.STALE, False),
        (Verdict.HIT, Verdict.HIT, False),
        (Verdict.REVALIDATED, Verdict.REVALIDATED, False),
    ],
    ids=lambda one: str(getattr(one, "value", one)),
)
async def test_little_left_is_spared(
    upstream: Upstream, budget: Budget, verdict: Verdict, after: Verdict, refresh: bool
) -> None:
    await say(upstream, budget, 5)
    asked = exchange(verdict)
    budget.spare(asked, NOW)
    assert (asked.verdict, asked.refresh) == (after, refresh)
    spared = verdict in {Verdict.STALE, Verdict.MISS}
    assert (budget.spared, asked.stale) == ((1, Stale.BUDGET) if spared else (0, None))


async def test_a_refresh_before_time_is_spared_too(upstream: Upstream, budget: Budget) -> None:
    await say(upstream, budget, 5)
    asked = exchange(Verdict.HIT)
    asked.refresh = True
    budget.spare(asked, NOW)
    assert (asked.refresh, asked.verdict, asked.stale) == (False, Verdict.HIT, None)


async def test_with_enough_left_without_a_page_or_with_one_too_old_nothing_changes(
    upstream: Upstream, budget: Budget
) -> None:
    asked = exchange(Verdict.STALE)
    budget.spare(asked, NOW)
    assert asked.refresh
    await say(upstream, budget, 5)
    bare = exchange(Verdict.MISS, entry=False)
    budget.spare(bare, NOW)
    old = exchange(Verdict.MISS)
    assert old.entry is not None
    old.entry = dataclasses.replace(old.entry, error_until=NOW)
    budget.spare(old, NOW)
    assert bare.verdict is old.verdict is Verdict.MISS


@pytest.mark.parametrize("touch", [None, True, False], ids=["alone", "in touch", "out of touch"])
async def test_what_others_may_have_changed_spares_nobody(
    upstream: Upstream, budget: Budget, touch: bool | None
) -> None:
    """A write through another process, which this one has not heard of, must be seen (docs/scaling.md)."""
    await say(upstream, budget, 5)
    store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20)
    if touch is not None:
        store.in_touch = lambda: touch
    asked = exchange(Verdict.MISS, entry=False)
    held = exchange(Verdict.MISS).entry
    assert isinstance(held, Entry)
    store.put(dataclasses.replace(held, refresh_until=NOW), generation=1 << 60)
    asked.route, asked.key = ROUTES.match("GET", "/v3/processes"), held.key
    lookup(asked, Policy(ROUTES, Tokens(), store, budget=budget), NOW)
    assert asked.entry is not None
    spared = touch is not False
    assert (asked.verdict, budget.spared) == ((Verdict.STALE, 1) if spared else (Verdict.MISS, 0))
